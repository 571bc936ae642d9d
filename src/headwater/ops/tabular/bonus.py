"""What is added to estimates of values, or taken off them, for being estimates."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.fields import check_choice
from headwater.core.finite import FiniteProblem
from headwater.ops.tabular.counts import Counts, at_least_once, reward_variance

ValueCap = Literal["horizon", "remaining"]
"""What no value may exceed: the horizon at every step, or the steps that remain."""


def highest_values(problem: FiniteProblem, cap: ValueCap) -> Float[Array, "horizon state action"]:
    """The largest value that each step may have, for rewards in [0, 1]."""
    check_choice(cap, ValueCap, "cap")
    if cap == "horizon":
        return jnp.full(problem.sizes, problem.horizon, jnp.float32)
    remaining = jnp.arange(problem.horizon, 0, -1, dtype=jnp.float32)
    return jnp.broadcast_to(remaining[:, None, None], problem.sizes)


def reward_width(
    counts: Counts, log: float | Float[Array, ""]
) -> Float[Array, "horizon state action"]:
    """How far the mean of the rewards that were seen may be from their expectation.

    `sqrt(2 L Var / N) + 7 L / (3 N)` (Maurer and Pontil 2009), for rewards in [0, 1].

    **Arguments:** `log`: `L`, the logarithm of one over the probability of being wrong.
    """
    visits = at_least_once(counts.visits)
    return jnp.sqrt(2.0 * log * reward_variance(counts) / visits) + 7.0 * log / (3.0 * visits)
