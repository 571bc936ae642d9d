"""What is promised of linear cloning: the claim to copy with a method.

The criterion is written down before the run that judges it. `smoke` takes seconds and is part of
the tests; `small` takes minutes, and its records are what documents quote.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from headwater.methods.control.imitation.linear_cloning import LinearCloning

from headwater.core.records import Transitions
from headwater.core.spaces import Box, Spaces
from headwater.evidence.claim import Claim, Criterion, Finding, ratio_of_means
from headwater.runs.learn import learn
from headwater.sources.replay import Replay

_SPACES = Spaces(Box((-1.0, -1.0), (1.0, 1.0)), Box((-2.0,), (2.0,)))


def _error(key: jax.Array, rows: int, updates: int) -> jax.Array:
    """How far the policy learned from `rows` noisy demonstrations is from the demonstrator's."""
    weight_key, data_key, noise_key, learn_key = jax.random.split(key, 4)
    weight = 0.3 * jax.random.normal(weight_key, (2, 1))
    observation = jax.random.normal(data_key, (rows, 2))
    action = observation @ weight + 0.2 * jax.random.normal(noise_key, (rows, 1))
    zeros = jnp.zeros(rows)
    data = Transitions(observation, action, zeros, observation, zeros > 0, zeros > 0)
    method = LinearCloning(learning_rate=0.02, weight_penalty=0.0)
    learned = learn(method, _SPACES, Replay(data, 64), updates, key=learn_key)
    return jnp.linalg.norm(learned.state.policy.weight.T - weight)


def _more_rows(seed: int, *, instances: int, rows: int, updates: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    run = eqx.filter_jit(jax.vmap(_error, in_axes=(0, None, None)))
    few, many = (run(keys, count, updates) for count in (rows, 16 * rows))
    ratio = ratio_of_means(many, few)
    return Finding((Criterion("error from 16 times the rows over that", ratio, at_most=0.5),))


CLAIMS = (
    Claim(
        name="linear-cloning-error-falls-with-the-rows",
        statement="From sixteen times the demonstrations the cloned policy is at most half as far "
        "from the demonstrator's.",
        methods=("LinearCloning",),
        paper="pomerleau1988alvinn",
        where="a consequence: least squares errs as one over the square root of the rows",
        scales={
            "smoke": {"instances": 12, "rows": 16, "updates": 500},
            "small": {"instances": 48, "rows": 16, "updates": 4_000},
        },
        experiment=_more_rows,
    ),
)
