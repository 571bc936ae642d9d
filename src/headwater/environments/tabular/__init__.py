"""Finite processes."""
