"""The same environment, compiled and stepped on the host, gives the same run."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

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
from headwater.sources.collect import Collect, HostCollect
from headwater.sources.mixed import HostMixed, Mixed

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
