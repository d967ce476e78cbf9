"""Programs that run on the cluster: read here as text, never imported. Python 3.9."""
