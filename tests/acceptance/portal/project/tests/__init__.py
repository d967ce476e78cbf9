"""The portal's own tests: the gateway must not claim this name."""
