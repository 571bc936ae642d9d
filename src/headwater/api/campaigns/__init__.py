"""Experiments of one's own, one after the other."""
