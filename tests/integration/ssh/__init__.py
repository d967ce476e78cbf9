"""Logins, commands and links over a real sshd."""
