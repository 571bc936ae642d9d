"""Pipes of different lengths, all of whose ends have to be reached at the same time."""

from itertools import accumulate
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import AbstractEnvironment, Step


class PanFluteState(eqx.Module):
    """The bits of all pipes, one pipe after the other; steps taken."""

    bits: Float[Array, " bit"]
    time: Int[Array, ""]


class PanFlute(AbstractEnvironment):
    """Blow into the pipes in such an order that all of them sound together.

    Pipe i is i + 1 cells long. A step moves the bits of every pipe one cell on, and what was in its
    last cell is gone; action i puts a bit into the first cell of pipe i. Reward: one in the step
    after all last cells held a bit. With probability 1/pipes² a step puts a bit into all last cells
    whatever was done, so that the reward is met by chance. The process never ends; an episode is
    cut after `horizon` steps. Observation: all bits.

    **Arguments:** `pipes`: how many; `horizon`: steps of an episode.

    Raises `SpecificationError` for less than one of either.

    **Reference:** Young, Ramesh, Kirsch, Schmidhuber (2023), arXiv:2211.02222.
    """

    name: ClassVar[str] = "pan-flute"
    reference_returns: ClassVar[None] = None

    pipes: int = eqx.field(static=True, default=5)
    horizon: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        if self.pipes < 1 or self.horizon < 1:
            raise SpecificationError(
                f"{self.name}: pipes = {self.pipes} and horizon = {self.horizon} must be at least 1"
            )

    @property
    def bits(self) -> int:
        """Cells of all pipes together."""
        return self.pipes * (self.pipes + 1) // 2

    @property
    def spaces(self) -> Spaces:
        box = Box((0.0,) * self.bits, (1.0,) * self.bits)
        return Spaces(box, Discrete(self.pipes), horizon=self.horizon)

    def reset(self, *, key: PRNGKeyArray):
        state = self.observed(jnp.zeros(self.bits))
        return state, state.bits

    def step(self, state: PanFluteState, action: Array, *, key: PRNGKeyArray):
        last = np.asarray(list(accumulate(range(1, self.pipes + 1)))) - 1
        first = last - np.arange(self.pipes)
        reward = jnp.prod(state.bits[last])
        blown = jax.nn.one_hot(action, self.pipes, dtype=state.bits.dtype)
        bits = jnp.roll(state.bits, 1).at[first].set(blown)
        by_chance = jax.random.bernoulli(key, 1.0 / self.pipes**2)
        bits = bits.at[last].set(jnp.where(by_chance, 1.0, bits[last]))
        reached = PanFluteState(bits, state.time + 1)
        over = reached.time >= self.horizon
        return reached, Step(bits, reward, jnp.zeros((), bool), over)

    def observed(self, observation: Float[Array, " bit"]) -> PanFluteState:
        """The state in which this is observed, as the first of an episode."""
        return PanFluteState(observation, jnp.zeros((), jnp.int32))
