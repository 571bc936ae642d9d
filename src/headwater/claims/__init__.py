"""Statements of papers as programs: one file for each method or paper, found by `registry`."""
