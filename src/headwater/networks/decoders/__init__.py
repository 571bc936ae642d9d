"""Causal transformers: what shapes them, what they are made of, and what is changed in them."""
