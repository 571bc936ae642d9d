"""Agents that learn by a rule which is learned itself, and how it is."""
