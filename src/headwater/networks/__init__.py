"""Modules that hold arrays only: networks, heads, ensembles, distributions."""
