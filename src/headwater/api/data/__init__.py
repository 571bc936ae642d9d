"""Verbs on logged data, and what is said of it."""
