"""Bonuses for what is new, and the steps of methods that add them to another method's rewards."""
