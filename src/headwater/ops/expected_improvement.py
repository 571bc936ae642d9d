"""Expected improvement of a normal quantity on a number."""

import jax
from jaxtyping import Array


def improvement(mean: Array, deviation: Array, best: Array) -> Array:
    """E[(f - best)⁺] of normal f, of shapes that go together."""
    z = (mean - best) / deviation
    return (mean - best) * jax.scipy.stats.norm.cdf(z) + deviation * jax.scipy.stats.norm.pdf(z)
