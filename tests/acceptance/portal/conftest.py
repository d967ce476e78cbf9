"""The portal has tests of its own, which its own settings and runner are for."""

collect_ignore = ["project"]
