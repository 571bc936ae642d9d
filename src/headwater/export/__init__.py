"""Policies for use elsewhere."""
