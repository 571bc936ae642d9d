"""Equations as pure functions."""
