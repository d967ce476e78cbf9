"""What runs the program on one machine: services, the supervised stack, the tiers of tests."""
