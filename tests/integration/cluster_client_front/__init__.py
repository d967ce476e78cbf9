"""The cluster client as its users start it: real processes, sockets and files."""
