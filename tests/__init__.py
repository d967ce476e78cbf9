"""The tests of the project, by tier: unit, integration, acceptance."""
