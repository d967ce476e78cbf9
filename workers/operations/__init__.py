"""What tasks, sweep and keeper do: plain functions that load, ask the link, and record."""
