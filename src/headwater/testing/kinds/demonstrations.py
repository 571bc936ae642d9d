"""Whole demonstrations, of which only what was seen is known."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from headwater.core.records import Demonstrations
from headwater.core.spaces import Spaces
from headwater.testing.kinds.kind import ROWS, Kind, kinds_of, repeated_rows
from headwater.testing.kinds.transitions import OBSERVATION, problems

_FRAMES = 12


@kinds_of(Spaces, Demonstrations)
def _kinds() -> list[Kind]:
    return [
        Kind(f"demonstrations of {name}", problem, _demonstrations, True, _HARD)
        for name, problem in problems().items()
    ]


def _demonstrations(key) -> Demonstrations:
    """Of different lengths, the longest of which leaves nothing to pad."""
    seen_key, length_key = jax.random.split(key)
    length = jax.random.randint(length_key, (ROWS,), _FRAMES // 2, _FRAMES + 1)
    return Demonstrations(jax.random.normal(seen_key, (ROWS, _FRAMES, OBSERVATION)), length)


_HARD = {
    "nothing changes": lambda d: replace(d, observation=jnp.zeros_like(d.observation)),
    "repeated rows": repeated_rows,
    "a single frame each": lambda d: replace(d, length=jnp.ones_like(d.length)),
    "large observations": lambda d: replace(d, observation=1e4 * d.observation),
}
