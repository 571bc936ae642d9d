"""Simulators: pure-JAX classics whose rollouts compile, and adapters for those on the host."""
