"""The site's settings of the cluster client."""
