"""The cluster client: a daemon on a login node, reached over a stdio bridge."""
