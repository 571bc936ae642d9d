"""Token processes and tasks."""
