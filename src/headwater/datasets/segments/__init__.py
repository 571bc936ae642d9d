"""Segments of a log that were compared."""
