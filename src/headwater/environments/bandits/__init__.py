"""Bandits with exact mean rewards."""
