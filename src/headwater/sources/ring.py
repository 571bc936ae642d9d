"""A ring buffer of transitions on the device."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.sources.replay import take


class Ring(eqx.Module):
    """The newest transitions, in the order of their arrival modulo the capacity.

    **Arguments:** `data`: `[capacity, …]`; `written`: how many rows were ever pushed. Both have a
    leading `seed` axis where a host source keeps one buffer per seed.
    """

    data: Transitions
    written: Int[Array, "*seed"]

    @property
    def capacity(self) -> int:
        """How many rows fit."""
        return self.data.reward.shape[0]


def empty(spaces: Spaces, capacity: int) -> Ring:
    """A buffer with nothing in it."""
    observation = jnp.zeros((capacity, spaces.observation_size))
    action = (
        jnp.zeros(capacity, jnp.int32)
        if spaces.discrete
        else jnp.zeros((capacity, spaces.action_size))
    )
    no = jnp.zeros(capacity, bool)
    data = Transitions(observation, action, jnp.zeros(capacity), observation, no, no)
    return Ring(data, jnp.zeros((), jnp.int32))


def push(ring: Ring, rows: Transitions, valid: Bool[Array, " row"] | None = None) -> Ring:
    """The buffer after `rows` (`[row, …]`, at most its capacity), without those not `valid`."""
    count = rows.reward.shape[0]
    if count > ring.capacity:
        raise ValueError(f"{count} rows do not fit into a buffer of {ring.capacity}")
    valid = jnp.ones(count, bool) if valid is None else valid
    place = (ring.written + jnp.cumsum(valid) - 1) % ring.capacity
    # Out-of-range places are dropped by the scatter.
    place = jnp.where(valid, place, ring.capacity)
    data = jax.tree.map(lambda old, new: old.at[place].set(new, mode="drop"), ring.data, rows)
    return Ring(data, ring.written + jnp.sum(valid, dtype=jnp.int32))


def sample(ring: Ring, rows: int, *, key: PRNGKeyArray) -> Transitions:
    """`rows` transitions drawn uniformly, with replacement, from those present."""
    present = jnp.maximum(jnp.minimum(ring.written, ring.capacity), 1)
    return take(ring.data, jax.random.randint(key, (rows,), 0, present))
