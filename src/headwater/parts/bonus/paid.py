"""The steps of a method that pays for what is new and lets another method learn from the sum.

A step takes the method itself for its `settings`.
"""

import dataclasses
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.catalogue import build_method
from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.method import AbstractMethod, AbstractPolicy, Metrics
from headwater.core.records import Transition
from headwater.core.spaces import Box, Spaces, Statistics
from headwater.parts.streaming import RunningMoments

Memory = TypeVar("Memory", bound=eqx.Module)


class Paid(eqx.Module, Generic[Memory]):
    """What the inner method learned, what was seen, and what bonuses were like so far.

    **Arguments:** `fresh`: the next step is the first of an episode.
    """

    inner: Any
    memory: Memory
    bonuses: RunningMoments
    fresh: Bool[Array, ""]


@runtime_checkable
class BonusSettings(Protocol):
    """The hyper-parameters that the steps below read from a method."""

    @property
    def inner(self) -> AbstractMethod: ...
    @property
    def bonus_scale(self) -> float | Float[Array, ""]: ...
    @property
    def scale_bonus(self) -> bool: ...
    @property
    def reward_clip(self) -> float | Float[Array, ""]: ...
    @property
    def policy_columns(self) -> tuple[int, ...]: ...
    @property
    def novelty_columns(self) -> tuple[int, ...]: ...


def inner_method() -> Any:
    """The field of the method that acts and learns."""
    return eqx.field(default_factory=partial(build_method, "StreamQ"))


def begin_paid(
    settings: BonusSettings, problem: Spaces, memory: Memory, *, key: PRNGKeyArray
) -> Paid[Memory]:
    """The state before any step. Raises `SpecificationError` where the inner method cannot act."""
    inner = settings.inner.init(_part(problem, settings.policy_columns), key=key)
    return Paid(inner, memory, RunningMoments(()), jnp.ones((), bool))


def check_settings(settings: BonusSettings) -> None:
    """Raises `SpecificationError` if the inner method does not learn from each step as it happens.

    Bonuses of an episode need its steps in their order, which a replay buffer does not keep.
    """
    name, inner = type(settings).__name__, settings.inner
    if not isinstance(inner, AbstractMethod):
        raise SpecificationError(
            f"{name}.inner = {inner!r}: it must be a method, such as StreamQ()"
        )
    if inner.feed is not Feed.STREAM or not isinstance(inner, AbstractPolicy):
        raise SpecificationError(
            f"{name}.inner = {type(inner).__name__}: it must act and learn from each step once, "
            "because what is new in an episode depends on the order of its steps: take StreamAC or "
            "StreamQ"
        )


def check_columns(settings: BonusSettings, problem: Spaces) -> None:
    """Raises `SpecificationError` for a column that observations do not have."""
    for field in ("policy_columns", "novelty_columns"):
        for column in getattr(settings, field):
            if not 0 <= column < problem.observation_size:
                raise SpecificationError(
                    f"{type(settings).__name__}.{field}: there is no column {column} among the "
                    f"{problem.observation_size} of observations, which are numbered from 0"
                )


def chosen(x: Float[Array, " observation"], columns: tuple[int, ...]) -> Float[Array, " column"]:
    """These columns of an observation; all where none are named."""
    return x[jnp.asarray(columns)] if columns else x


def reached(data: Transition) -> Float[Array, " observation"]:
    """What a step led to. What stands behind a terminal step is not looked at."""
    return jnp.where(data.terminal, data.observation, data.next_observation)


def pay(
    settings: BonusSettings,
    state: Paid[Memory],
    data: Transition,
    memory: Memory,
    bonus: Float[Array, ""],
) -> tuple[Paid[Memory], Transition, Metrics]:
    """The step with its bonus, as the inner method has to learn from it; a terminal one gets none.

    **Arguments:** `memory`: after the step; `bonus`: for what the step led to, before scaling.

    **Returns:** the state, whose inner one is as before; the step; and scalars to log.
    """
    bonus = jnp.where(data.terminal, 0.0, bonus)
    bonuses = state.bonuses.with_one(bonus)
    paid = settings.bonus_scale * (bonus / bonuses.deviation if settings.scale_bonus else bonus)
    step = dataclasses.replace(
        data,
        observation=chosen(data.observation, settings.policy_columns),
        next_observation=chosen(data.next_observation, settings.policy_columns),
        reward=jnp.clip(data.reward + paid, -settings.reward_clip, settings.reward_clip),
    )
    over = data.terminal | data.truncated
    return Paid(state.inner, memory, bonuses, over), step, {"bonus": bonus, "paid": paid}


def act_paid(
    settings: BonusSettings,
    state: Paid,
    observation: Float[Array, " observation"],
    *,
    key: PRNGKeyArray,
    explore: bool,
):
    """What the inner method does."""
    assert isinstance(settings.inner, AbstractPolicy)
    seen = chosen(observation, settings.policy_columns)
    return settings.inner.act(state.inner, seen, key=key, explore=explore)


def _part(problem: Spaces, columns: tuple[int, ...]) -> Spaces:
    """The problem as the inner method sees it."""
    if not columns:
        return problem
    low, high = problem.observation.low, problem.observation.high
    box = Box(tuple(low[c] for c in columns), tuple(high[c] for c in columns))
    statistics = problem.statistics
    if isinstance(statistics, Statistics):
        statistics = dataclasses.replace(
            statistics,
            observation_mean=chosen(statistics.observation_mean, columns),
            observation_std=chosen(statistics.observation_std, columns),
        )
    return Spaces(box, problem.action, problem.horizon, statistics)
