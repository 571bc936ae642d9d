"""Pulls of arms, with and without contexts and features."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.testing.kinds.kind import ROWS, Kind, kinds_of, repeated_rows

_ARMS = 4


@kinds_of(Arms, Pulls)
def _kinds() -> list[Kind]:
    problems = {
        "pulls with contexts": Arms(_ARMS, 3),
        "pulls with contexts and features": Arms(_ARMS, 3, 2),
        "pulls without contexts": Arms(_ARMS),
    }
    return [
        Kind(name, problem, lambda key, p=problem: _pulls(key, p), True, _HARD)
        for name, problem in problems.items()
    ]


def _pulls(key, problem: Arms) -> Pulls:
    keys = jax.random.split(key, 5)
    rewards = jax.random.uniform(keys[0], (ROWS, problem.arms))
    arm = jax.random.randint(keys[1], (ROWS,), 0, problem.arms, jnp.int32)
    return Pulls(
        jax.random.normal(keys[2], (ROWS, problem.context_size)),
        jax.random.normal(keys[3], (ROWS, problem.arms, problem.feature_size)),
        arm,
        jnp.take_along_axis(rewards, arm[:, None], 1)[:, 0],
        jax.random.uniform(keys[4], (ROWS,), minval=0.1),
        rewards,
    )


_HARD = {
    "no rewards": lambda d: replace(
        d, reward=jnp.zeros_like(d.reward), rewards=jnp.zeros_like(d.rewards)
    ),
    "rarely pulled": lambda d: replace(d, propensity=jnp.full_like(d.propensity, 1e-6)),
    "large contexts": lambda d: replace(d, context=1e3 * d.context, features=1e3 * d.features),
    "repeated rows": repeated_rows,
}
