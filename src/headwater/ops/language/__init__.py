"""Equations over tokens."""
