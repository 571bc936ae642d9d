"""Paying agents who gather information for a principal."""
