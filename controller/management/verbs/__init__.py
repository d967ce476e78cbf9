"""The verbs of `manage.py hpc`, a module a noun; each returns the exit status."""
