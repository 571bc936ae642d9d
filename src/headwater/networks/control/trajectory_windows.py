"""The steps of a trajectory that observations hold, and how they lie there."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from headwater.core.problems.history import Frames, frames_of
from headwater.core.problems.trajectory import steps_of
from headwater.core.spaces import Spaces
from headwater.networks.normaliser import Normaliser


class Window(NamedTuple):
    """The steps of a trajectory that an observation holds, `[*batch, step, …]`.

    **Arguments:** `observation`: standardised; `before`: the action before it, one-hot if it is one
    of a finite set; `so_far`: what the episode had brought; `present`: there is such a step.
    """

    observation: Float[Array, "*batch step observation"]
    before: Float[Array, "*batch step action"]
    so_far: Float[Array, "*batch step"]
    present: Bool[Array, "*batch step"]


class Layout(eqx.Module):
    """How observations are laid out, and their scale.

    **Arguments:** `mean`, `std`: of what is observed in a step; `frames`: steps and numbers of
    each; `actions`: numbers of an action; `discrete`: it is one of a finite set; `held`: what a
    step holds beside the observation: nothing (`"one"`), the action before it (`"history"`), and
    the return so far too (`"trajectory"`).
    """

    mean: Float[Array, " observation"]
    std: Float[Array, " observation"]
    frames: Frames = eqx.field(static=True)
    actions: int = eqx.field(static=True)
    discrete: bool = eqx.field(static=True)
    held: Literal["one", "history", "trajectory"] = eqx.field(static=True)

    def __init__(self, problem: Spaces, normalise: bool):
        trajectory, history = steps_of(problem), frames_of(problem)
        self.frames = trajectory or history or Frames(1, problem.observation_size)
        self.actions, self.discrete = problem.action_size, problem.discrete
        self.held = "trajectory" if trajectory else "history" if history else "one"
        scale = Normaliser(problem, normalise)
        # The last step is there in every row, so that its scale is that of all.
        self.mean, self.std = (
            x.reshape(self.frames)[-1, : self.observations] for x in (scale.mean, scale.std)
        )

    @property
    def observations(self) -> int:
        """Numbers of what is observed in one step."""
        beside = {"one": 0, "history": self.actions + 1, "trajectory": self.actions + 2}
        return self.frames.size - beside[self.held]

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Window:
        """The steps in an observation."""
        batch, size = observation.shape[:-1], self.observations
        steps = observation.reshape(*batch, *self.frames)
        seen = steps[..., :size]
        shape = seen.shape
        seen = (seen - jnp.broadcast_to(self.mean, shape)) / jnp.broadcast_to(self.std, shape)
        before = jnp.zeros((*shape[:-1], self.actions))
        so_far, present = jnp.zeros(shape[:-1]), jnp.ones(shape[:-1], bool)
        if self.held != "one":
            before, present = steps[..., -1 - self.actions : -1], steps[..., -1] > 0.5
        if self.held == "trajectory":
            so_far = steps[..., size]
        return Window(seen, before, so_far, present)
