"""Logged rounds of bandits in files."""
