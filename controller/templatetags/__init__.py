"""Filters of the app's pages."""
