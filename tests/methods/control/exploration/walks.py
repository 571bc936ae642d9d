"""A walk over whole numbers in two episodes, and what a method pays for it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.records import Transition
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.streaming.stream_q import StreamQ

PLACES = ((2, 0, 2, 1, 2), (1, 1, 2, 0))
"""Column 1 of the observations: one tuple for each episode; column 0 is always 9."""
SPACES = Spaces(Box((0.0, 0.0), (9.0, 3.0)), Discrete(2), horizon=8)
INNER = StreamQ(hidden_sizes=())


def steps(terminal: bool = False) -> list[Transition]:
    """Every step of the walk; an episode ends by truncation, or as the last step's end says."""
    found = []
    for places in PLACES:
        for i, (left, came) in enumerate(itertools.pairwise(places)):
            last = jnp.asarray(i == len(places) - 2)
            found.append(
                Transition(
                    jnp.asarray([9.0, left]),
                    jnp.asarray(i % 2),
                    jnp.asarray(0.25),
                    jnp.asarray([9.0, came]),
                    last & terminal,
                    last & (not terminal),
                )
            )
    return found


def paid(method, data) -> tuple[np.ndarray, object]:
    """What the method adds to each reward, and its last state."""
    state = method.init(SPACES, key=jax.random.key(0))
    update = jax.jit(lambda state, step: method.update(state, step, key=jax.random.key(1)))
    found = []
    for step in data:
        state, metrics = update(state, step)
        found.append(metrics["paid"])
    return np.asarray(found), state
