"""Specifications of runs: what was asked for, and the plan that it amounts to."""
