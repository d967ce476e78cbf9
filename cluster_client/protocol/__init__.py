"""What both ends of a link say to each other; pure, shared with the workers."""
