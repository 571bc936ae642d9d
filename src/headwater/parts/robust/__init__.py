"""Attacks on what policies observe, and policies that learn under them."""
