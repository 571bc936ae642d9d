"""A random log of a small process."""

import jax.numpy as jnp
import numpy as np

from headwater.core.records import Episodes

HORIZON, STATES, ACTIONS, EPISODES = 3, 3, 2, 40


def random_log() -> Episodes:
    """Episodes with uniform states, actions and rewards."""
    draw = np.random.default_rng(0)
    return Episodes(
        jnp.asarray(draw.integers(0, STATES, (EPISODES, HORIZON + 1)), jnp.int32),
        jnp.asarray(draw.integers(0, ACTIONS, (EPISODES, HORIZON)), jnp.int32),
        jnp.asarray(draw.uniform(size=(EPISODES, HORIZON)), jnp.float32),
    )
