"""Equations of control."""
