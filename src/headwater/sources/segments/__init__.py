"""Segments of a log, drawn."""
