"""Fetching a key and bringing it to a door, seen as a small picture."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Spaces
from headwater.environments.environment import AbstractEnvironment, AbstractExpert, Step

PIXELS = 16
SPEED, _NOISE = 0.08, 0.005
_START, _SPREAD = 0.12, 0.03
_NEAR = 0.04
"""How near the key is picked up, and the door opens."""
_THROUGH = 0.08
"""How near the place behind the door counts as there."""
_DOOR, _BEHIND = 0.78, 0.94
"""How far to the right the door is, and the place behind it."""


class PickAndCarryState(eqx.Module):
    """Where the hand, the key and the door are, what has been done, and steps taken."""

    hand: Float[Array, " 2"]
    key: Float[Array, " 2"]
    door: Float[Array, ""]
    holding: Bool[Array, ""]
    opened: Bool[Array, ""]
    time: Int[Array, ""]


class PickAndCarry(AbstractEnvironment, AbstractExpert):
    """A hand picks up a key, carries it to a door, which opens, and goes through.

    An action in [-1, 1]² moves the hand by 0.08 times it in the unit square, with noise of 0.005.
    The hand starts in the lower left corner, picks the key up within 0.04 of it, and opens the door
    within 0.04 of it with the key. Observation: a picture of 16 × 16 pixels with brightness from 0
    to 1. Reward: one in the last step of the episode, if the door is open then and the hand within
    0.08 of the place behind it.

    **Arguments:** `key_place`: of the key, `door_height`: of the door, in every episode; if there
    is none, one is drawn for each; `changes_appearance`: the closed hand is larger and brighter
    than the open one, and an open door lets light in; if not, only places change; `horizon`: steps
    of an episode.

    Raises `SpecificationError` for a horizon below one.
    """

    name: ClassVar[str] = "pick-and-carry"
    reference_returns: ClassVar[None] = None

    key_place: Float[Array, " 2"] | None = None
    door_height: Float[Array, ""] | None = None
    changes_appearance: bool = eqx.field(static=True, default=True)
    horizon: int = eqx.field(static=True, default=40)

    def __check_init__(self):
        if self.horizon < 1:
            raise SpecificationError(f"{self.name}: horizon = {self.horizon} must be at least 1")

    @property
    def spaces(self) -> Spaces:
        box = Box((0.0,) * PIXELS**2, (1.0,) * PIXELS**2)
        return Spaces(box, Box((-1.0, -1.0), (1.0, 1.0)), horizon=self.horizon)

    def reset(self, *, key: PRNGKeyArray):
        hand_key, layout_key = jax.random.split(key)
        place, height = draw_layout(key=layout_key)
        start = _START + _SPREAD * jax.random.uniform(hand_key, (2,), minval=-1.0)
        no = jnp.zeros((), bool)
        state = PickAndCarryState(
            start,
            place if self.key_place is None else jnp.asarray(self.key_place, jnp.float32),
            height if self.door_height is None else jnp.asarray(self.door_height, jnp.float32),
            no,
            no,
            jnp.zeros((), jnp.int32),
        )
        return state, self.picture(state)

    def step(self, state: PickAndCarryState, action: Array, *, key: PRNGKeyArray):
        moved = SPEED * jnp.clip(action, -1.0, 1.0) + _NOISE * jax.random.normal(key, (2,))
        hand = jnp.clip(state.hand + moved, 0.0, 1.0)
        holding = state.holding | (jnp.linalg.norm(hand - state.key) <= _NEAR)
        door = jnp.stack([jnp.asarray(_DOOR), state.door])
        opened = state.opened | (holding & (jnp.linalg.norm(hand - door) <= _NEAR))
        carried = jnp.where(holding, hand, state.key)
        reached = PickAndCarryState(hand, carried, state.door, holding, opened, state.time + 1)
        over = reached.time >= self.horizon
        reward = (over & through(reached)).astype(jnp.float32)
        return reached, Step(self.picture(reached), reward, jnp.zeros((), bool), over)

    def expert_action(self, state: PickAndCarryState, *, key: PRNGKeyArray):
        return self.paced_action(state, 1)

    def paced_action(
        self, state: PickAndCarryState, steps: int | Int[Array, ""]
    ) -> Float[Array, " 2"]:
        """Straight to where the hand has to go next, to be there in so many steps if it can."""
        return jnp.clip((target(state) - state.hand) / (SPEED * steps), -1.0, 1.0)

    def picture(self, state: PickAndCarryState) -> Float[Array, " pixel"]:
        """What is seen, row by row from below."""
        changed = self.changes_appearance
        closed, lit = state.holding & changed, state.opened & changed
        hand = jnp.where(closed, 1.0, 0.5) * _spot(state.hand, jnp.where(closed, 0.08, 0.04))
        key = 0.5 * _spot(state.key, jnp.asarray(0.04))
        across, up = _grid()
        bar = (jnp.abs(across - _DOOR) < 0.04) & (jnp.abs(up - state.door) < 0.2)
        light = 0.6 * (lit & (across > _DOOR + 0.04))
        wall = 0.7 * (bar & ~lit)
        return jnp.clip(hand + key + wall + light, 0.0, 1.0).reshape(-1)


def target(state: PickAndCarryState) -> Float[Array, " 2"]:
    """Where the hand has to go next."""
    door = jnp.stack([jnp.asarray(_DOOR), state.door])
    behind = jnp.stack([jnp.asarray(_BEHIND), state.door])
    return jnp.where(state.opened, behind, jnp.where(state.holding, door, state.key))


def through(state: PickAndCarryState) -> Bool[Array, ""]:
    """Whether the door is open and the hand behind it."""
    return state.opened & (jnp.linalg.norm(target(state) - state.hand) <= _THROUGH)


def draw_layout(*, key: PRNGKeyArray) -> tuple[Float[Array, " 2"], Float[Array, ""]]:
    """A place for the key and a height for the door, far enough from each other."""
    along, high, height = jax.random.uniform(key, (3,))
    place = jnp.stack([0.2 + 0.35 * along, 0.55 + 0.35 * high])
    return place, 0.2 + 0.5 * height


def _grid() -> tuple[Float[Array, "row column"], Float[Array, "row column"]]:
    middle = (jnp.arange(PIXELS) + 0.5) / PIXELS
    across = jnp.broadcast_to(middle[None, :], (PIXELS, PIXELS))
    return across, jnp.broadcast_to(middle[:, None], (PIXELS, PIXELS))


def _spot(place: Float[Array, " 2"], width: Float[Array, ""]) -> Float[Array, "row column"]:
    across, up = _grid()
    squares = (across - place[0]) ** 2 + (up - place[1]) ** 2
    return jnp.exp(-0.5 * squares / width**2)
