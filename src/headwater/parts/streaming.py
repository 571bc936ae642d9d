"""What methods that learn from one step at a time share: running scales of what they see.

A step takes the method itself for its `settings`.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from headwater.core.records import Transition
from headwater.core.spaces import Spaces

_SMALLEST_VARIANCE = 1e-8
"""Added to each variance, so that what never changes stays finite."""


class RunningMoments(eqx.Module):
    """Mean and variance of all that was seen so far, updated one by one (Welford)."""

    count: Int[Array, ""]
    mean: Float[Array, "*shape"]
    squares: Float[Array, "*shape"]

    def __init__(self, shape: tuple[int, ...]):
        self.count = jnp.zeros((), jnp.int32)
        self.mean = jnp.zeros(shape)
        self.squares = jnp.zeros(shape)

    def with_one(self, x: Float[Array, "*shape"]) -> "RunningMoments":
        """The moments with `x` among what was seen."""
        count = self.count + 1
        change = x - self.mean
        mean = self.mean + change / count
        squares = self.squares + change * (x - mean)
        return eqx.tree_at(lambda m: (m.count, m.mean, m.squares), self, (count, mean, squares))

    def with_many(self, rows: Float[Array, "row *shape"]) -> "RunningMoments":
        """The moments with all `rows` among what was seen."""
        count = self.count + rows.shape[0]
        middle = jnp.mean(rows, axis=0)
        change = middle - self.mean
        mean = self.mean + change * (rows.shape[0] / count)
        within = jnp.sum((rows - jnp.broadcast_to(middle, rows.shape)) ** 2, axis=0)
        squares = self.squares + within + change**2 * (self.count * (rows.shape[0] / count))
        return eqx.tree_at(lambda m: (m.count, m.mean, m.squares), self, (count, mean, squares))

    def standardised(self, x: Float[Array, "*some"]) -> Float[Array, "*some"]:
        """`x`, whose last axes are those of the moments, less the mean, over the deviation."""
        mean, deviation = (jnp.broadcast_to(y, x.shape) for y in (self.mean, self.deviation))
        return (x - mean) / deviation

    @property
    def deviation(self) -> Float[Array, "*shape"]:
        """The standard deviation of a sample; 1 before there are two."""
        several = self.squares / jnp.maximum(self.count - 1, 1)
        variance = jnp.where(self.count > 1, several, 1.0)
        return jnp.sqrt(variance + _SMALLEST_VARIANCE)


class Scales(eqx.Module):
    """Moments of observations and of discounted sums of rewards, and where in the stream we are.

    **Arguments:** `fresh`: the next step is the first of an episode; `step`: steps so far.
    """

    observation: RunningMoments
    rewards: RunningMoments
    discounted: Float[Array, ""]
    fresh: Bool[Array, ""]
    step: Int[Array, ""]


@runtime_checkable
class ScaleSettings(Protocol):
    """The hyper-parameters that the steps below read from a method."""

    @property
    def discount(self) -> float | Float[Array, ""]: ...
    @property
    def normalise_observations(self) -> bool: ...
    @property
    def scale_rewards(self) -> bool: ...


def begin_scales(problem: Spaces) -> Scales:
    """The scales before any step."""
    return Scales(
        observation=RunningMoments((problem.observation_size,)),
        rewards=RunningMoments(()),
        discounted=jnp.zeros(()),
        fresh=jnp.ones((), bool),
        step=jnp.zeros((), jnp.int32),
    )


def scaled_step(
    settings: ScaleSettings, scales: Scales, data: Transition
) -> tuple[Scales, Transition]:
    """The scales after one step, and the step in them.

    Each observation is counted once, and standardised by what was seen up to it: the first of an
    episode, and every next one that follows. What stands behind a terminal step is not looked at.
    """
    over = data.terminal | data.truncated
    before = _counted(scales.observation, data.observation, scales.fresh)
    # Even a number that is none must not get through.
    following = jnp.where(data.terminal, data.observation, data.next_observation)
    after = _counted(before, following, ~data.terminal)
    discounted = settings.discount * jnp.where(over, 0.0, scales.discounted) + data.reward
    rewards = scales.rewards.with_one(discounted)
    seen = dataclasses.replace(
        data,
        observation=_standardised(settings, before, data.observation),
        next_observation=_standardised(settings, after, following),
        reward=data.reward / rewards.deviation if settings.scale_rewards else data.reward,
    )
    return Scales(after, rewards, discounted, over, scales.step + 1), seen


def standardised(
    settings: ScaleSettings, scales: Scales, observation: Float[Array, " observation"], live: bool
) -> Float[Array, " observation"]:
    """An observation to act on or to judge.

    **Arguments:** `live`: it is the one that the next update is about; the first of an episode is
    counted before it is acted on, as it will be then.
    """
    moments = scales.observation
    if live:
        moments = _counted(moments, observation, scales.fresh)
    return _standardised(settings, moments, observation)


def reward_scale(settings: ScaleSettings, scales: Scales) -> Float[Array, ""]:
    """What values have to be multiplied by to be in units of the reward."""
    return scales.rewards.deviation if settings.scale_rewards else jnp.ones(())


def _counted(moments: RunningMoments, x: Array, count: Bool[Array, ""]) -> RunningMoments:
    return jax.tree.map(lambda new, old: jnp.where(count, new, old), moments.with_one(x), moments)


def _standardised(settings: ScaleSettings, moments: RunningMoments, x: Array) -> Array:
    return (x - moments.mean) / moments.deviation if settings.normalise_observations else x
