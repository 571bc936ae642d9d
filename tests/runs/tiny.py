"""The smallest method and problems that use everything that a run offers."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from headwater.core.feed import Feed
from headwater.core.method import AbstractMethod, AbstractPolicy, Info
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.environments.adapters.gymnasium_task import GymnasiumTask
from headwater.environments.control.pendulum import Pendulum
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.collect import Collect, HostCollect
from headwater.sources.replay import Replay


class TinyState(eqx.Module):
    """A linear value, its moving average and a count."""

    weight: Array
    average: Array
    step: Array


class Tiny(AbstractMethod[Spaces, Transitions, TinyState], AbstractPolicy[TinyState]):
    """Noisy linear TD(0) whose policy follows its value, so that data depend on what was learned.

    From update `explode_at` on it yields NaN.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info("of no paper", "tests the loop")

    learning_rate: float = 0.01
    explode_at: int = 10**9

    def init(self, problem: Spaces, *, key):
        weight = 0.1 * jax.random.normal(key, (problem.observation_size,))
        return TinyState(weight, weight, jnp.zeros((), jnp.int32))

    def update(self, state: TinyState, data: Transitions, *, key):
        following = jnp.where(data.terminal, 0.0, data.next_observation @ state.average)
        error = 0.1 * data.reward + 0.9 * following - data.observation @ state.weight
        error = jnp.where(state.step >= self.explode_at, jnp.nan, error)
        step = jnp.mean(error[:, None] * data.observation, axis=0)
        noise = 0.01 * jax.random.normal(key, step.shape)
        weight = jnp.clip(state.weight + self.learning_rate * (step + noise), -10.0, 10.0)
        average = 0.9 * state.average + 0.1 * weight
        metrics = {"error": jnp.mean(error**2), "size": jnp.sum(weight**2)}
        return TinyState(weight, average, state.step + 1), metrics

    def act(self, state: TinyState, observation, *, key, explore: bool):
        mean = jnp.tanh(observation @ state.weight)[None]
        noise = 0.3 * jax.random.normal(key, (1,)) if explore else jnp.zeros(1)
        return jnp.clip(mean + noise, -1.0, 1.0), ()


SPACES = Pendulum().spaces


def logged(rows: int = 200) -> Transitions:
    """Random transitions, some of them terminal."""
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    over = jnp.asarray(random.random(rows) < 0.1)
    return Transitions(
        draw(rows, 3), jnp.tanh(draw(rows, 1)), draw(rows), draw(rows, 3), over, over & False
    )


def source(kind: str, batch_size: int = 8):
    """A source of each kind: `replay`, `collect`, `host`."""
    sizes = {"capacity": 64, "batch_size": batch_size, "steps_per_draw": 2, "random_steps": 10}
    if kind == "replay":
        return Replay(logged(), batch_size)
    if kind == "collect":
        return Collect(Pendulum(), copies=2, warm_up_steps=6, **sizes)
    return HostCollect(GymnasiumTask("Pendulum-v1"), copies=2, warm_up_steps=6, **sizes)


def stages(kind: str, updates: int = 40, method: Tiny | None = None, **options) -> list[Stage]:
    """One stage fed by a source of that kind."""
    return [Stage("only", method or Tiny(), source(kind), updates, **options)]


def evaluate(method, states, key) -> np.ndarray:
    """Numbers that depend on the weights and on the key."""
    noise = np.asarray(jax.random.normal(key, (2,)))
    return np.asarray(states.weight).sum(1)[:, None] + noise[None]


def finish(stages, **options):
    """Runs them with few evaluations."""
    options = {"seeds": 2, "evaluate": evaluate, "evaluations": 5, "logs": 10, **options}
    return run(stages, SPACES, **options)


def without_speed(rows: list[dict]) -> list[dict]:
    """Logged rows without the one number that may differ."""
    return [{k: v for k, v in row.items() if k != "updates_per_second"} for row in rows]


def assert_same(one, other) -> None:
    """Two results agree to the bit, logs included."""
    for name, outcome in one.outcomes.items():
        for x, y in zip(
            jax.tree.leaves(outcome.state), jax.tree.leaves(other.outcomes[name].state), strict=True
        ):
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
    assert without_speed(one.metrics) == without_speed(other.metrics)
    assert one.evaluations == other.evaluations
