"""The loop and its files."""
