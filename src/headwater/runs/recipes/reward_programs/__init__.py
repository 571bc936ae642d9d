"""Rewards that are written by a proposer, tried, and improved by what a judge says (ICPL)."""
