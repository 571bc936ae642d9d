"""Adapters to environments of other libraries."""
