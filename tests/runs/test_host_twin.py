"""The same environment, compiled and stepped on the host, gives the same run."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.spaces import Box, Spaces
from headwater.environments.environment import (
    AbstractEnvironment,
    AbstractHostEnvironments,
    AbstractHostTask,
    HostStep,
    Step,
)
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.acting.in_stages import in_stages
from headwater.sources.collect import Collect, HostCollect
from headwater.sources.mixed import HostMixed, Mixed
from headwater.sources.rollout import Rollout, rollout

from .tiny import Tiny, evaluate, source


class DriftState(eqx.Module):
    """A position and how long the episode has lasted."""

    position: Array
    time: Array


class Drift(AbstractEnvironment):
    """Drifts with the action; terminal far out, truncated after seven steps. Nothing is random."""

    name: ClassVar[str] = "drift"
    reference_returns: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def spaces(self) -> Spaces:
        return Spaces(Box((-9.0,) * 3, (9.0,) * 3), Box((-1.0,), (1.0,)), horizon=7)

    def reset(self, *, key):
        state = DriftState(jnp.asarray([0.5, -0.25, 1.0]), jnp.zeros((), jnp.int32))
        return state, state.position

    def step(self, state: DriftState, action: Array, *, key):
        position = 0.9 * state.position + jnp.asarray([0.5, -0.75, 0.25]) * action[0]
        reached = DriftState(position, state.time + 1)
        terminal = position[0] > 0.9
        truncated = ~terminal & (reached.time >= 7)
        return reached, Step(position, -jnp.sum(position**2), terminal, truncated)


class DriftTask(AbstractHostTask):
    """`Drift` for the host."""

    @property
    def name(self) -> str:
        return "drift"

    @property
    def spaces(self) -> Spaces:
        return Drift().spaces

    def open(self, copies: int) -> "DriftEnvironments":
        return DriftEnvironments(copies)


@jax.jit
def _step(state, action):
    return jax.vmap(lambda s, a: Drift().step(s, a, key=jax.random.key(0)))(state, action)


class DriftEnvironments(AbstractHostEnvironments):
    """Steps the same function, one call after the other, and begins again by itself."""

    exact = True

    def __init__(self, copies: int):
        self.copies = copies
        self.state: Any = None

    def _fresh(self):
        state, _ = Drift().reset(key=jax.random.key(0))
        return jax.tree.map(lambda x: np.stack([np.asarray(x)] * self.copies), state)

    def reset(self, seeds):
        assert seeds.shape == (self.copies,)
        self.state = self._fresh()
        return np.asarray(self.state.position)

    def step(self, actions) -> HostStep:
        reached, step = jax.tree.map(np.asarray, _step(self.state, actions))
        over = step.terminal | step.truncated
        fresh = self._fresh()
        self.state = DriftState(
            np.where(over[:, None], fresh.position, reached.position),
            np.where(over, fresh.time, reached.time),
        )
        return HostStep(
            self.state.position,
            step.observation,
            step.reward,
            step.terminal,
            step.truncated,
            np.ones(self.copies, bool),
        )

    def save(self):
        return {"position": self.state.position, "time": self.state.time}

    def load(self, saved):
        self.state = DriftState(saved["position"], saved["time"])
        return self.state.position

    def close(self):
        self.state = None


SIZES = {"capacity": 50, "batch_size": 8, "steps_per_draw": 4, "copies": 2}


def _run(origin, seeds: Any = 3, updates: int = 30):
    stages = [Stage("only", Tiny(), origin, updates, updates_per_draw=2)]
    return run(stages, Drift().spaces, seeds=seeds, evaluate=evaluate, evaluations=2, logs=6)


def _assert_close(one, other):
    for x, y in zip(
        jax.tree.leaves(one.outcomes["only"].state), jax.tree.leaves(other.outcomes["only"].state)
    ):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    for x, y in zip(one.metrics, other.metrics, strict=True):
        assert x["environment_steps"] == y["environment_steps"]
        np.testing.assert_allclose(x["metrics"]["error"], y["metrics"]["error"], rtol=1e-3)


@pytest.mark.parametrize("random_steps, warm_up_steps", ((6, 0), (5, 8), (0, 3)))
def test_host_collection_equals_compiled_collection(random_steps, warm_up_steps):
    phases = {"random_steps": random_steps, "warm_up_steps": warm_up_steps}
    compiled = _run(Collect(Drift(), **SIZES, **phases))
    on_host = _run(HostCollect(DriftTask(), **SIZES, **phases))
    _assert_close(compiled, on_host)
    assert (
        compiled.metrics[-1]["environment_steps"]
        == sum(-(-steps // 2) * 2 for steps in phases.values()) + 4 * 15
    )


def test_a_mixture_on_the_host_equals_the_compiled_mixture():
    data = source("replay", batch_size=4)
    pure = Mixed((data, Collect(Drift(), **SIZES, random_steps=4)))
    host = HostMixed((data, HostCollect(DriftTask(), **SIZES, random_steps=4)))
    _assert_close(_run(pure), _run(host))


# Rollouts ----------------------------------------------------------------------------------------


class ResettingEnvironments(DriftEnvironments):
    """After an end a copy takes a step to reset itself, which it reports as one."""

    def reset(self, seeds):
        self.resets: np.ndarray = np.zeros(self.copies, bool)
        return super().reset(seeds)

    def step(self, actions) -> HostStep:
        before, resets = self.state, self.resets
        step = super().step(actions)
        self.state = jax.tree.map(
            lambda new, old: np.where(resets.reshape(-1, *(1,) * (new.ndim - 1)), old, new),
            self.state,
            before,
        )
        self.resets = ~resets & (step.terminal | step.truncated)
        nothing = np.zeros(self.copies, bool)
        return HostStep(
            self.state.position,
            step.next_observation,
            step.reward,
            np.where(resets, nothing, step.terminal),
            np.where(resets, nothing, step.truncated),
            ~resets,
        )


class ResettingTask(DriftTask):
    """`Drift` as a simulator shows it whose resets are steps."""

    def open(self, copies: int) -> DriftEnvironments:
        return ResettingEnvironments(copies)


def _drawn(source, count: int = 4) -> Any:
    """What `count` draws of two seeds hold."""
    keys = jax.random.split(jax.random.key(4), 2)
    agent = Agent(Tiny(), jax.vmap(lambda k: Tiny().init(Drift().spaces, key=k))(keys))
    rows = []
    if isinstance(source, Rollout):
        state = jax.vmap(lambda k: source.init(key=k))(keys)
        for i in range(count):
            each = jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(keys)
            state, data = jax.vmap(
                lambda s, learned, k: source.draw(s, Agent(Tiny(), learned), key=k)
            )(state, agent.state, each)
            rows.append(data)
        return rows, int(state.steps[0])
    state = source.init(keys=keys)
    for i in range(count):
        if i == 2:
            saved = source.save(state)
            source.close(state)
            state = source.load(saved, keys=keys)
        each = jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(keys)
        state, data = source.draw(state, agent, keys=each)
        rows.append(data)
    return rows, source.environment_steps(state)


def test_rollouts_on_the_host_equal_compiled_ones():
    compiled, steps = _drawn(rollout(Drift(), 5, 2))
    on_host, taken = _drawn(rollout(DriftTask(), 5, 2))
    assert steps == taken == 4 * 5 * 2
    for one, other in zip(compiled, on_host):
        assert other.reward.shape == (2, 5, 2)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), one, other)


def test_resets_that_a_simulator_reports_as_steps_are_no_steps():
    rows, taken = _drawn(rollout(ResettingTask(), 16, 2), count=1)
    data = rows[0]
    assert data.reward.shape == (2, 16, 2) and taken > 16 * 2
    over = data.terminal | data.truncated
    assert over.any(axis=1).all(), "an episode is over within seven steps"
    follows, reached = data.observation[:, 1:], data.next_observation[:, :-1]
    joined = np.all(np.isclose(follows, reached), axis=-1)
    np.testing.assert_array_equal(joined, ~over[:, :-1])


# Stages ------------------------------------------------------------------------------------------

BLOCK, STAGE, DRAWS = 3, 12, 60


def _passes(ring, wait: int) -> list[bool]:
    """For each draw whether a stage passed in it, told from all rows at once."""
    count = wait + BLOCK * DRAWS
    reward = np.asarray(ring.data.reward[:count])
    ends = np.flatnonzero(np.asarray(ring.data.terminal | ring.data.truncated)[:count])
    returns = [float(one.sum()) for one in np.split(reward, ends + 1)[: len(ends)]]
    kept = [r for end, r in zip(ends, returns) if end < wait]
    best, since, passed, stage = (np.mean(kept) if kept else -np.inf), wait, [False] * DRAWS, []
    for end, one in zip(ends, returns):
        if end < wait:
            continue
        stage.append(one)
        if end + 1 - since >= STAGE:
            if np.mean(stage) >= best:
                best = np.mean(stage)
                passed[(end - wait) // BLOCK] = True
            since, stage = end + 1, []
    return passed


@pytest.mark.parametrize("wait", [10, 2])
def test_stages_pass_where_episodes_did_not_return_less(wait):
    sizes = {"capacity": 300, "batch_size": 4, "steps_per_draw": BLOCK, "random_steps": 0}
    method, keys = Tiny(), jax.random.split(jax.random.key(4), 2)
    state = jax.vmap(lambda k: method.init(Drift().spaces, key=k))(keys)
    agent = Agent(method, state)
    log = source("replay", batch_size=2)
    host = in_stages(HostMixed((log, HostCollect(DriftTask(), warm_up_steps=wait, **sizes))), STAGE)
    at = host.prepare(host.init(keys=keys), agent, keys=keys)
    flags = []
    for i in range(DRAWS):
        if i == DRAWS // 2:
            saved = host.save(at)
            host.close(at)
            at = host.load(saved, keys=keys)
        at, data = host.draw(
            at, agent, keys=jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(keys)
        )
        flags.append(np.asarray(data.passed))
        assert data.transitions.reward.shape == data.passed.shape == (2, 6)
    flags = np.stack(flags, 1)
    # One row says so: of the pieces of a batch, the first alone is told.
    assert not flags[:, :, 1:].any()
    rings = at[0][1].rings
    for i in range(2):
        expected = _passes(jax.tree.map(lambda x, i=i: x[i], rings), wait)
        assert flags[i, :, 0].tolist() == expected
        assert 2 < sum(expected) < DRAWS // 4
    assert host.environment_steps(at) == wait + BLOCK * DRAWS

    pure = in_stages(Mixed((log, Collect(Drift(), warm_up_steps=wait, **sizes))), STAGE)

    @jax.jit
    @jax.vmap
    def compiled(state, key):
        agent = Agent(method, state)
        at = pure.prepare(pure.init(key=key), agent, key=key)

        def one(at, i):
            at, data = pure.draw(at, agent, key=jax.random.fold_in(key, i))
            return at, data.passed

        return jax.lax.scan(one, at, jnp.arange(DRAWS))

    last, flags = compiled(state, keys)
    assert not np.asarray(flags)[:, :, 1:].any()
    for i in range(2):
        expected = _passes(jax.tree.map(lambda x, i=i: x[i], last[0][1].ring), wait)
        assert np.asarray(flags)[i, :, 0].tolist() == expected
        assert any(expected) and int(last[0][1].steps[i]) == wait + BLOCK * DRAWS


def test_stages_are_of_one_copy_and_have_a_length():
    with pytest.raises(SpecificationError, match="copies=2, but stages are told by the episodes"):
        in_stages(Collect(Drift(), **SIZES), STAGE)
    with pytest.raises(SpecificationError, match="stage_steps=0 must be at least 1"):
        in_stages(Collect(Drift()), 0)
