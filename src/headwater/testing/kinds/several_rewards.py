"""Transitions that brought several rewards each."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from headwater.core.records import AuxiliaryTransitions
from headwater.core.spaces import Spaces
from headwater.testing.kinds.kind import ROWS, Kind, kinds_of, repeated_rows
from headwater.testing.kinds.transitions import edge, problems, transitions


@kinds_of(Spaces, AuxiliaryTransitions)
def _kinds() -> list[Kind]:
    return [
        Kind(
            f"two further rewards, {name}",
            problem,
            lambda key, d=problem.discrete: _rows(key, d),
            True,
            _HARD,
        )
        for name, problem in problems().items()
    ]


def _rows(key, discrete: bool) -> AuxiliaryTransitions:
    row_key, other_key = jax.random.split(key)
    rows = transitions(row_key, (ROWS,), discrete)
    return AuxiliaryTransitions(
        rows.observation,
        rows.action,
        rows.reward,
        rows.next_observation,
        rows.terminal,
        rows.truncated,
        jax.random.bernoulli(other_key, 0.4, (ROWS, 2)).astype(jnp.float32),
    )


_HARD = {
    "all terminal": lambda d: replace(d, terminal=jnp.ones_like(d.terminal)),
    "no rewards": lambda d: replace(
        d, reward=jnp.zeros_like(d.reward), auxiliary=jnp.zeros_like(d.auxiliary)
    ),
    "one action": lambda d: replace(d, action=jnp.zeros_like(d.action)),
    "repeated rows": repeated_rows,
    "actions at the edge": lambda d: replace(d, action=edge(d.action)),
    "large rewards": lambda d: replace(d, reward=1e6 * d.reward, auxiliary=1e6 * d.auxiliary),
    "a rare response": lambda d: replace(
        d, auxiliary=jnp.zeros_like(d.auxiliary).at[0, 0].set(1.0)
    ),
}
