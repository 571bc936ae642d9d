"""Acting in stages of whole episodes, each of which passes if its returns did not fall."""

import dataclasses
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.records import StagedTransitions, Transitions
from headwater.core.source import AbstractHostSource, AbstractSource, Keys
from headwater.sources.collect import Collect, Collecting, HostCollect, HostCollecting
from headwater.sources.mixed import HostMixed, Mixed
from headwater.sources.ring import Ring


class Stages(eqx.Module):
    """The stage under way, and the mean return of the last one that passed.

    **Arguments:** `running`: return so far of the episode under way; `total`, `episodes`: sum of
    the returns of those that ended in this stage, and how many; `steps`: environment steps of this
    stage; `reference`: the mean return that it is held against, which means nothing until `known`.
    Each may have a leading seed axis.
    """

    running: Float[Array, "*seed"]
    total: Float[Array, "*seed"]
    episodes: Int[Array, "*seed"]
    steps: Int[Array, "*seed"]
    reference: Float[Array, "*seed"]
    known: Bool[Array, "*seed"]


class InStages(AbstractSource[tuple[Any, Stages], StagedTransitions]):
    """Draws as `source` does, and says when a stage of acting has passed.

    A stage lasts until `stage_episodes` have ended in it or more, the last of them `stage_steps`
    environment steps after it began or later. It passes if the mean return of the episodes that
    ended in it is at least that of the last one that passed. The first is held against the episodes
    that ended in the warm-up, and passes if none did. An episode counts where it ends.

    **Arguments:** `source`: acts in one copy of an environment, perhaps with a log beside it;
    `stage_steps`, `stage_episodes`: see above.
    """

    source: Collect | Mixed
    stage_steps: int = eqx.field(static=True)
    stage_episodes: int = eqx.field(static=True)

    def __check_init__(self):
        _check(self)

    def init(self, *, key: PRNGKeyArray) -> tuple[Any, Stages]:
        return self.source.init(key=key), _no_stages()

    def prepare(self, state: tuple[Any, Stages], agent: Agent, *, key: PRNGKeyArray):
        inner, stages = state
        inner = self.source.prepare(inner, agent, key=key)
        return inner, _after_warm_up(stages, _ring(inner), count=_warm_up(self.source))

    def draw(self, state: tuple[Any, Stages], agent: Agent, *, key: PRNGKeyArray):
        inner, stages = state
        before = _ring(inner).written
        inner, batch = self.source.draw(inner, agent, key=key)
        stages, passed = _watch(
            stages,
            _ring(inner),
            before,
            count=_acting(self.source).steps_per_draw,
            stage_steps=self.stage_steps,
            stage_episodes=self.stage_episodes,
        )
        return (inner, stages), _staged(batch, passed)

    def environment_steps(self, state: tuple[Any, Stages]) -> Int[Array, ""]:
        return self.source.environment_steps(state[0])


class HostInStages(AbstractHostSource[tuple[Any, Stages], StagedTransitions]):
    """The host twin of `InStages`, with the same arguments and semantics."""

    source: HostCollect | HostMixed
    stage_steps: int = eqx.field(static=True)
    stage_episodes: int = eqx.field(static=True)

    def __check_init__(self):
        _check(self)

    def init(self, *, keys: Keys) -> tuple[Any, Stages]:
        none = jax.tree.map(lambda x: jnp.broadcast_to(x, keys.shape), _no_stages())
        return self.source.init(keys=keys), none

    def prepare(self, state: tuple[Any, Stages], agent: Agent, *, keys: Keys):
        inner, stages = state
        inner = self.source.prepare(inner, agent, keys=keys)
        return inner, _after_warm_up_each(stages, _ring(inner), _warm_up(self.source))

    def draw(self, state: tuple[Any, Stages], agent: Agent, *, keys: Keys):
        inner, stages = state
        # Read before the buffer is handed over to the program that writes to it.
        before = np.asarray(_ring(inner).written)
        inner, batch = self.source.draw(inner, agent, keys=keys)
        count = _acting(self.source).steps_per_draw
        length = (self.stage_steps, self.stage_episodes)
        stages, staged = _watch_each(stages, _ring(inner), before, batch, count, length)
        return (inner, stages), staged

    def environment_steps(self, state: tuple[Any, Stages]) -> int:
        return self.source.environment_steps(state[0])

    def save(self, state: tuple[Any, Stages]) -> dict[str, np.ndarray]:
        inner, stages = state
        saved = {f"source.{name}": value for name, value in self.source.save(inner).items()}
        return {**saved, **{f"stages.{name}": np.asarray(x) for name, x in vars(stages).items()}}

    def load(self, saved: dict[str, np.ndarray], *, keys: Keys) -> tuple[Any, Stages]:
        def part(prefix: str) -> dict[str, np.ndarray]:
            return {n.removeprefix(prefix): v for n, v in saved.items() if n.startswith(prefix)}

        stages = Stages(**{name: jnp.asarray(value) for name, value in part("stages.").items()})
        return self.source.load(part("source."), keys=keys), stages

    def close(self, state: tuple[Any, Stages]) -> None:
        self.source.close(state[0])


def in_stages(source: Any, stage_steps: int, stage_episodes: int = 1) -> InStages | HostInStages:
    """`source`, which says when a stage has passed: compiled if it is, on the host if not."""
    if isinstance(source, AbstractSource):
        return InStages(source, stage_steps, stage_episodes)  # pyright: ignore[reportArgumentType]
    return HostInStages(source, stage_steps, stage_episodes)


def _acting(source: Any) -> Collect | HostCollect:
    """The part of `source` that acts."""
    parts = source.sources if isinstance(source, Mixed | HostMixed) else (source,)
    return next(part for part in parts if isinstance(part, Collect | HostCollect))


def _ring(state: Any) -> Ring:
    """What was seen, newest last, of the state of a source that acts."""
    parts = state if isinstance(state, tuple | list) else (state,)
    found = next(part for part in parts if isinstance(part, Collecting | HostCollecting))
    return found.ring if isinstance(found, Collecting) else found.rings


def _warm_up(source: Any) -> int:
    """Steps before the first draw that the buffer still holds."""
    acting = _acting(source)
    return min(acting.random_steps + acting.warm_up_steps, acting.capacity)


def _check(source: InStages | HostInStages) -> None:
    name, copies = type(source).__name__, _acting(source.source).copies
    if copies != 1:
        raise SpecificationError(
            f"{name}: copies={copies}, but stages are told by the episodes of one copy: use one"
        )
    for what in ("stage_steps", "stage_episodes"):
        given = getattr(source, what)
        if given < 1:
            raise SpecificationError(f"{name}: {what}={given} must be at least 1")


def _no_stages() -> Stages:
    zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
    return Stages(zero, zero, none, none, zero, jnp.zeros((), bool))


def _watch(
    stages: Stages,
    ring: Ring,
    before: Any,
    *,
    count: int,
    stage_steps: int,
    stage_episodes: int,
):
    """`stages` after the rows that were written since `before`, at most `count`, and whether one
    passed among them."""

    def one(carry: tuple[Stages, Array], i: Array):
        stages, passed = carry
        row = (before + i) % ring.capacity
        new = before + i < ring.written
        over = new & (ring.data.terminal[row] | ring.data.truncated[row])
        running = stages.running + jnp.where(new, ring.data.reward[row], 0.0)
        total = stages.total + jnp.where(over, running, 0.0)
        episodes, steps = stages.episodes + over, stages.steps + new
        mean = total / jnp.maximum(episodes, 1)
        ends = over & (steps >= stage_steps) & (episodes >= stage_episodes)
        passes = ends & (~stages.known | (mean >= stages.reference))
        stages = Stages(
            running=jnp.where(over, 0.0, running),
            total=jnp.where(ends, 0.0, total),
            episodes=jnp.where(ends, 0, episodes),
            steps=jnp.where(ends, 0, steps),
            reference=jnp.where(passes, mean, stages.reference),
            known=stages.known | ends,
        )
        return (stages, passed | passes), None

    return jax.lax.scan(one, (stages, jnp.zeros((), bool)), jnp.arange(count))[0]


def _after_warm_up(stages: Stages, ring: Ring, *, count: int) -> Stages:
    """The first stage, held against the episodes of the warm-up's `count` steps."""
    # No stage is as long as the warm-up and a step more.
    length = {"stage_steps": count + 1, "stage_episodes": 1}
    seen, _ = _watch(stages, ring, ring.written - count, count=count, **length)
    return dataclasses.replace(
        _no_stages(),
        running=seen.running,
        reference=seen.total / jnp.maximum(seen.episodes, 1),
        known=seen.episodes > 0,
    )


def _staged(batch: Transitions, passed: Array) -> StagedTransitions:
    rows = batch.reward.shape[0]
    return StagedTransitions(batch, (jnp.arange(rows) == 0) & passed)


@partial(jax.jit, static_argnums=2)
def _after_warm_up_each(stages, rings, count):
    return jax.vmap(lambda s, ring: _after_warm_up(s, ring, count=count))(stages, rings)


@partial(jax.jit, static_argnums=(4, 5))
def _watch_each(stages, rings, before, batch, count, length):
    steps, episodes = length

    def one(stages, ring, before, batch):
        stages, passed = _watch(
            stages, ring, before, count=count, stage_steps=steps, stage_episodes=episodes
        )
        return stages, _staged(batch, passed)

    return jax.vmap(one)(stages, rings, before, batch)
