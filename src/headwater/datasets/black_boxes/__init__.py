"""Evaluations of black boxes in files."""
