"""Policies for use outside of runs."""
