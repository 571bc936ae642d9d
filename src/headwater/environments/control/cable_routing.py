"""Route a cable through one clip after the other, with primitives that may fail."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.control.clip_insertion import ClipInsertion
from headwater.environments.environment import AbstractEnvironment, AbstractExpert, Step

ROUTE, PERTURB, PICK_UP, NEXT = range(4)
"""The primitives: press the cable in, shake it loose, pick it up, go to the next clip."""
HELD, STUCK, FALLEN, INSERTED = range(4)
"""Situations of the cable at the present clip; primitive i is for situation i."""
_VIEW = 16
_STUCK_SHARE = 0.25 / 0.35
"""Of the attempts that fail, those after which the cable is stuck; after the others it fell."""
_LOOSENED, _PICKED_UP = 0.8, 0.9
"""How probably these primitives succeed."""


class CableRoutingState(eqx.Module):
    """At which clip, in which situation the cable is there; primitives done."""

    clip: Int[Array, ""]
    situation: Int[Array, ""]
    time: Int[Array, ""]


class CableRouting(AbstractEnvironment, AbstractExpert):
    """A chain of clips into which a cable is pressed; each step is a whole primitive, or fails.

    Actions: route (0) presses the cable that is held into the present clip; perturb (1) loosens one
    that is stuck on it, four times in five; pick up (2) takes one that fell, nine times in ten;
    next (3) goes on to the next clip where the cable is in this one. A primitive for another
    situation changes nothing. Observation: which clip and which situation, shown as sixteen numbers
    with noise. Reward: one when the cable is in the last clip, which is terminal.

    **Arguments:** `clips`: how many; `route_success`: how probably route succeeds; of its failures
    five in seven leave the cable stuck, the others let it fall; `noise`: deviation of what is added
    to each number of the observation; `horizon`: primitives of an episode; `skill`: instead of that
    probability, a policy of `clip-insertion` that presses the cable in; `slip`: of the cable while
    it does.

    Raises `SpecificationError` for less than one clip or more than twelve, a probability or a noise
    that cannot be one, or a skill that is no `Agent`.
    """

    name: ClassVar[str] = "cable-routing"
    reference_returns: ClassVar[None] = None

    clips: int = eqx.field(static=True, default=3)
    route_success: float | Float[Array, ""] = 0.65
    noise: float | Float[Array, ""] = 0.3
    horizon: int = eqx.field(static=True, default=25)
    slip: float | Float[Array, ""] = 0.107
    # An `Agent`; from a command line it may be anything.
    skill: Any = None

    def __check_init__(self):
        if not 1 <= self.clips <= _VIEW - 4 or self.horizon < 1:
            raise SpecificationError(
                f"{self.name}: clips = {self.clips} must be between 1 and {_VIEW - 4}, and "
                f"horizon = {self.horizon} at least 1"
            )
        chance, noise = self.route_success, self.noise
        if isinstance(chance, int | float) and not 0.0 <= chance <= 1.0:
            raise SpecificationError(
                f"{self.name}: route_success = {chance} is no probability: it must be in [0, 1]"
            )
        if isinstance(noise, int | float) and noise < 0.0:
            raise SpecificationError(f"{self.name}: noise = {noise} must not be negative")
        if self.skill is not None and not isinstance(self.skill, Agent):
            raise SpecificationError(
                f"{self.name}: skill must be an Agent, which is a method and what it has learned"
            )

    @property
    def spaces(self) -> Spaces:
        return Spaces(Box((-np.inf,) * _VIEW, (np.inf,) * _VIEW), Discrete(4), horizon=self.horizon)

    def reset(self, *, key: PRNGKeyArray):
        nothing = jnp.zeros((), jnp.int32)
        state = CableRoutingState(nothing, jnp.full((), HELD, jnp.int32), nothing)
        return state, self._observe(state, key)

    def step(self, state: CableRoutingState, action: Array, *, key: PRNGKeyArray):
        view_key, route_key, other_key = jax.random.split(key, 3)
        coin = jax.random.uniform(other_key)
        outcomes = jnp.stack(
            [
                self._routed(route_key),
                jnp.where(coin < _LOOSENED, HELD, STUCK),
                jnp.where(coin < _PICKED_UP, HELD, FALLEN),
                jnp.full((), HELD),
            ]
        )
        serves = action == state.situation
        onward = serves & (action == NEXT)
        situation = jnp.where(serves, outcomes[action], state.situation).astype(jnp.int32)
        clip = state.clip + onward.astype(jnp.int32)
        reached = CableRoutingState(clip, situation, state.time + 1)
        terminal = (clip == self.clips - 1) & (situation == INSERTED)
        truncated = (reached.time >= self.horizon) & ~terminal
        reward = terminal.astype(jnp.float32)
        return reached, Step(self._observe(reached, view_key), reward, terminal, truncated)

    def expert_action(self, state: CableRoutingState, *, key: PRNGKeyArray):
        return state.situation

    def _routed(self, key: PRNGKeyArray) -> Int[Array, ""]:
        """The situation after one attempt."""
        if self.skill is None:
            success_key, stuck_key = jax.random.split(key)
            failed = jnp.where(jax.random.uniform(stuck_key) < _STUCK_SHARE, STUCK, FALLEN)
            return jnp.where(jax.random.uniform(success_key) < self.route_success, INSERTED, failed)
        task, skill = ClipInsertion(self.slip), self.skill
        reset_key, walk_key = jax.random.split(key)

        def one(carry, key):
            state, observation, over = carry
            act_key, step_key = jax.random.split(key)
            action = skill.act(observation, key=act_key, explore=False)[0]
            reached, step = task.step(state, action, key=step_key)
            following = jax.tree.map(
                lambda new, old: jnp.where(over, old, new),
                (reached, step.observation),
                (state, observation),
            )
            return (*following, over | step.terminal), None

        begun = (*task.reset(key=reset_key), jnp.zeros((), bool))
        (end, _, _), _ = jax.lax.scan(one, begun, jax.random.split(walk_key, task.horizon))
        failed = jnp.where(task.fallen(end), FALLEN, STUCK)
        return jnp.where(task.inserted(end), INSERTED, failed)

    def _observe(self, state: CableRoutingState, key: PRNGKeyArray) -> Float[Array, " observation"]:
        facts = jnp.concatenate(
            [jax.nn.one_hot(state.clip, self.clips), jax.nn.one_hot(state.situation, 4)]
        )
        return facts @ _directions(len(facts)) + self.noise * jax.random.normal(key, (_VIEW,))


def _directions(facts: int) -> Float[np.ndarray, "fact view"]:
    """How each fact shows: rows of a Hadamard matrix, which are at right angles, of length one."""
    signs = [[(-1) ** (i & j).bit_count() for j in range(_VIEW)] for i in range(facts)]
    return np.asarray(signs, np.float32) / _VIEW**0.5
