"""Control tasks in pure JAX."""
