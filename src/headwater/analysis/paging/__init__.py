"""Caches: which page to evict, and how many faults that costs."""
