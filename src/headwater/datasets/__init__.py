"""Logged experience: reading, writing, describing and transforming it."""
