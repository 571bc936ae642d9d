"""A grid with buttons, all of which have to be on at the same time."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import AbstractEnvironment, Step

_MOVES = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))
"""Stay, up, left, down, right, as (row, column)."""


class ButtonGridState(eqx.Module):
    """The cells of the agent and of the buttons, by number; which buttons are on; steps taken."""

    agent: Int[Array, ""]
    buttons: Int[Array, " button"]
    on: Bool[Array, " button"]
    time: Int[Array, ""]


class ButtonGrid(AbstractEnvironment):
    """Step onto every button of a square grid; stepping onto one again turns it off.

    Reward: one in the step after all buttons were on, in which agent and buttons are drawn anew,
    the buttons off. With probability 1/(10 size²) a step turns all buttons on whatever was done, so
    that the reward is met by chance. The process never ends; an episode is cut after `horizon`
    steps. Actions: stay, up, left, down, right; the edge stops. Observation: of each cell, row by
    row, whether the agent is there, a button that is on, and one that is off.

    **Arguments:** `size`: rows and columns; `buttons`: how many; `horizon`: steps of an episode.

    Raises `SpecificationError` for a size below two, or more buttons than there are cells.

    **Reference:** Young, Ramesh, Kirsch, Schmidhuber (2023), arXiv:2211.02222.
    """

    name: ClassVar[str] = "button-grid"
    reference_returns: ClassVar[None] = None

    size: int = eqx.field(static=True, default=5)
    buttons: int = eqx.field(static=True, default=2)
    horizon: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        if self.size < 2 or self.horizon < 1 or not 1 <= self.buttons <= self.size**2:
            raise SpecificationError(
                f"{self.name}: size = {self.size} must be at least 2, horizon = {self.horizon} at "
                f"least 1 and buttons = {self.buttons} between 1 and the {self.size**2} cells"
            )

    @property
    def spaces(self) -> Spaces:
        bits = 3 * self.size**2
        return Spaces(Box((0.0,) * bits, (1.0,) * bits), Discrete(5), horizon=self.horizon)

    def reset(self, *, key: PRNGKeyArray):
        state = self._begin(key)
        return state, self._observe(state)

    def step(self, state: ButtonGridState, action: Array, *, key: PRNGKeyArray):
        chance_key, reset_key = jax.random.split(key)
        earned = jnp.all(state.on)
        place = jnp.stack(jnp.divmod(state.agent, self.size))
        moved = jnp.clip(place + jnp.asarray(_MOVES, jnp.int32)[action], 0, self.size - 1)
        agent = (moved[0] * self.size + moved[1]).astype(jnp.int32)
        pressed = (state.buttons == agent) & (agent != state.agent)
        by_chance = jax.random.bernoulli(chance_key, 0.1 / self.size**2)
        walked = ButtonGridState(
            agent, state.buttons, (state.on ^ pressed) | by_chance, state.time + 1
        )
        fresh = eqx.tree_at(lambda s: s.time, self._begin(reset_key), walked.time)
        reached = jax.tree.map(lambda new, old: jnp.where(earned, new, old), fresh, walked)
        over = reached.time >= self.horizon
        reward = earned.astype(jnp.float32)
        return reached, Step(self._observe(reached), reward, jnp.zeros((), bool), over)

    def observed(self, observation: Float[Array, " bit"]) -> ButtonGridState:
        """A state in which this is observed, as the first of an episode."""
        agent, on, off = observation.reshape(self.size**2, 3).T
        # The cells with a button come first, in their order.
        buttons = jnp.argsort(-(on + off), stable=True)[: self.buttons].astype(jnp.int32)
        nothing = jnp.zeros((), jnp.int32)
        return ButtonGridState(
            jnp.argmax(agent).astype(jnp.int32), buttons, on[buttons] > 0.5, nothing
        )

    def _begin(self, key: PRNGKeyArray) -> ButtonGridState:
        agent_key, button_key = jax.random.split(key)
        agent = jax.random.randint(agent_key, (), 0, self.size**2, jnp.int32)
        buttons = jax.random.permutation(button_key, self.size**2)[: self.buttons]
        off = jnp.zeros(self.buttons, bool)
        return ButtonGridState(agent, buttons.astype(jnp.int32), off, jnp.zeros((), jnp.int32))

    def _observe(self, state: ButtonGridState) -> Float[Array, " bit"]:
        shown = jnp.zeros((self.size**2, 3)).at[state.agent, 0].set(1.0)
        shown = shown.at[state.buttons, 2 - state.on.astype(jnp.int32)].set(1.0)
        return shown.reshape(-1)
