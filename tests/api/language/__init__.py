"""Tests of the verbs of `headwater.api`."""
