"""Rewards as texts in a small language of their own, which are data and never run as Python."""
