"""How the bytes of a file go between a web process and a files worker, on one host or on two."""
