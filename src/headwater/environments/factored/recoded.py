"""A world of bits, each of whose states is shown as the bits of another."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Spaces
from headwater.environments.environment import AbstractEnvironment

_MOST_BITS = 20
"""A code has an entry for each state, of which there are then a million."""


class Recoded(AbstractEnvironment):
    """The same process with its observations renamed: as much can be known of it, and no bit
    changes with a few others only.

    **Arguments:** `task`: whose observations are bits, at most twenty; `code`: a permutation of all
    numbers that so many bits can write, such as `random_code` draws: a state whose bits write n is
    shown as the bits that write `code[n]`.

    Raises `SpecificationError` for a task of other observations or a code of another length.
    """

    task: AbstractEnvironment
    code: Int[Array, " state"]

    # Written out, since the annotations of the base class are no arguments.
    def __init__(self, task: AbstractEnvironment, code: Int[Array, " state"]):
        bits = _bits(task)
        if code.shape[-1] != 2**bits:
            raise SpecificationError(
                f"{task.name}: a code for {bits} bits has {2**bits} entries, not {code.shape[-1]}"
            )
        self.task, self.code = task, code

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.task.name

    @property
    def reference_returns(self) -> tuple[float, float] | None:
        """Those of the task."""
        return self.task.reference_returns

    @property
    def spaces(self) -> Spaces:
        return self.task.spaces

    def reset(self, *, key: PRNGKeyArray):
        state, observation = self.task.reset(key=key)
        return state, self._shown(observation)

    def step(self, state: Any, action: Array, *, key: PRNGKeyArray):
        state, step = self.task.step(state, action, key=key)
        shown = self._shown(step.observation)
        return state, eqx.tree_at(lambda s: s.observation, step, shown)

    def _shown(self, observation: Float[Array, " bit"]) -> Float[Array, " bit"]:
        place = jnp.arange(observation.shape[-1])
        number = jnp.sum((observation > 0.5).astype(jnp.int32) << place)
        return ((self.code[number] >> place) & 1).astype(observation.dtype)


def random_code(task: AbstractEnvironment, *, key: PRNGKeyArray) -> Int[Array, " state"]:
    """A permutation of everything that the bits of `task` can write, drawn uniformly."""
    return jax.random.permutation(key, 2 ** _bits(task)).astype(jnp.int32)


def _bits(task: AbstractEnvironment) -> int:
    spaces = task.spaces
    if set(spaces.observation.low) != {0.0} or set(spaces.observation.high) != {1.0}:
        raise SpecificationError(f"{task.name}: its observations are not bits, each 0 or 1")
    if spaces.observation_size > _MOST_BITS:
        raise SpecificationError(
            f"{task.name}: it shows {spaces.observation_size} bits, and a code for more than "
            f"{_MOST_BITS} would not fit into memory"
        )
    return spaces.observation_size
