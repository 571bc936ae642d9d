"""Worlds of many bits, each of which changes with a few others only."""
