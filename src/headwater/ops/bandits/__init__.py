"""Equations of bandits."""
