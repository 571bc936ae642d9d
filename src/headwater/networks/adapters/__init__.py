"""Adapters with gates, and layers that choose among several adapters for each token."""
