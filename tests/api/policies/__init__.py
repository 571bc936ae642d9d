"""Tests of policies for use outside of runs."""
