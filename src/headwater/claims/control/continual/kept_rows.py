"""OER: which logged rows to keep of a task, and what a policy of its own is worth to the next."""

import dataclasses
import functools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.records import TaskLog
from headwater.core.spaces import Spaces
from headwater.environments.control.pendulum import Pendulum, PendulumState
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.interaction import episode_returns, random_action
from headwater.evaluation.continual.transfer import transfer_scores
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.evidence.logs import record
from headwater.methods.control.continual.oer import OER
from headwater.parts.continual.kept_experience import (
    rows_along_rollouts,
    rows_at_random,
    rows_of_reward,
)
from headwater.parts.continual.replayed_tasks import ReplayedTasks, expected_next, with_task
from headwater.runs.learn import learn
from headwater.runs.recipes.continual import task_log
from headwater.sources.replay import Replay

_ANGLES = tuple(2.0 * np.pi * i / 5.0 for i in (0, 2, 4, 1, 3))
"""Where the pendulum is to be held, from upright, in the order of the tasks."""
_LIGHT = Pendulum(gravity=2.0)
"""Its torque holds it at any angle."""
_EPISODES = 20
"""Of each policy in each task."""


class _Held(AbstractEnvironment):
    """A light pendulum that is to be held at an angle, which is not observed.

    **Arguments:** `angle`: in radians from upright.
    """

    name: ClassVar[str] = "held-pendulum"
    reference_returns: ClassVar[tuple[float, float] | None] = None
    angle: Float[Array, ""]

    @property
    def spaces(self) -> Spaces:
        return _LIGHT.spaces

    def reset(self, *, key: PRNGKeyArray):
        return _LIGHT.reset(key=key)

    def step(self, state: PendulumState, action: Array, *, key: PRNGKeyArray):
        reached, step = _LIGHT.step(state, action, key=key)
        cost = _turn(state.angle - self.angle) ** 2 + 0.1 * state.velocity**2
        return reached, dataclasses.replace(step, reward=-cost)


def _turn(angle: Array) -> Array:
    """The same angle between -π and π."""
    return (angle + jnp.pi) % (2.0 * jnp.pi) - jnp.pi


def _holding(angle: Float[Array, ""], observation: Float[Array, " 3"]) -> Float[Array, " 1"]:
    """A controller that turns the pendulum to the angle and holds it there."""
    here = jnp.arctan2(observation[1], observation[0])
    push = -2.0 * _turn(here - angle) - 0.7 * observation[2] - 0.5 * jnp.sin(here)
    return jnp.clip(push, -1.0, 1.0)[None]


def _act(angle: Array, observation: Array, key: PRNGKeyArray) -> Array:
    """The controller's action with noise, and any where no angle is given."""
    any_action = random_action(_LIGHT.spaces, key=key)
    noisy = jnp.clip(_holding(angle, observation) + 0.3 * any_action, -1.0, 1.0)
    return jnp.where(jnp.isnan(angle), any_action, noisy)


@eqx.filter_jit
def _references(angles: Float[Array, " task"]) -> tuple[Array, Array]:
    """The mean returns of chance and of the controller in each task."""

    def one(angle: Array, played: Array) -> Array:
        key, act = jax.random.key(0), functools.partial(_act, played)
        return jnp.mean(episode_returns(_Held(angle), act, episodes=100, key=key))

    chance = jnp.full_like(angles, jnp.nan)
    return jax.vmap(one)(angles, chance), jax.vmap(one)(angles, angles)


def _branches(method: OER, state: ReplayedTasks, log: TaskLog, key: PRNGKeyArray):
    """Each way to choose rows, in the order of `_SELECTIONS`."""
    count, steps, tasks = method.buffer_size, method.rollout_steps, method.num_tasks

    def modelled(observation: Array) -> Array:
        return expected_next(state, observation, tasks)

    def true(observation: Array) -> Array:
        here = with_task(state.learner.normaliser(observation), state.task, tasks)
        return jax.vmap(_next_observation)(observation, state.learner.actor(here))

    def along(step):
        return lambda: rows_along_rollouts(step, log, count, rollout_steps=steps, key=key)

    by_chance = lambda: rows_at_random(log, count, key=key)
    return [along(modelled), by_chance, lambda: rows_of_reward(log, count), along(true)]


def _next_observation(observation: Array, action: Array) -> Array:
    state = _LIGHT.observed(observation)
    return _LIGHT.step(state, action, key=jax.random.key(0))[1].observation


@eqx.filter_jit
def _matrices(method: OER, selection, logs, problems, angles, updates: int, batch: int, keys):
    """The mean return in each task after each, `[seed, after, task]`.

    **Arguments:** `selection`: place in `_SELECTIONS`; `logs`, `problems`: `[seed, task, …]`.
    """

    def judged(state: ReplayedTasks, key: PRNGKeyArray) -> Float[Array, " task"]:
        def one(task: Array, angle: Array) -> Array:
            act = lambda observation, key: method.act(
                method.for_task(state, task), observation, key=key, explore=False
            )[0]
            return jnp.mean(episode_returns(_Held(angle), act, episodes=_EPISODES, key=key))

        return jax.vmap(one)(jnp.arange(len(angles)), angles)

    def one_task(state: ReplayedTasks, given):
        log, problem, key = given
        learn_key, rows_key, next_key, judge_key = jax.random.split(key, 4)
        source = Replay(log.rows, batch)
        state = learn(method, problem, source, updates, state=state, key=learn_key).state
        returns = judged(state, judge_key)
        rows = jax.lax.switch(selection, _branches(method, state, log, rows_key))
        # What the method would choose by itself is replaced, so that one program serves all.
        following = method.next_task(state, log, problem, key=next_key)
        kept = state.kept.with_task(state.task, log, rows)
        return dataclasses.replace(following, kept=kept), returns

    def one_seed(given):
        logs, problems, key = given
        first = method.init(jax.tree.map(lambda x: x[0], problems), key=key)
        # A task begins in the units of rewards of its own log.
        after = jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), problems)
        return jax.lax.scan(one_task, first, (logs, after, jax.random.split(key, len(angles))))[1]

    return jax.lax.map(one_seed, (logs, problems, keys))


_SELECTIONS = ("model", "random", "reward", "true rollouts")
_SINGLE = "random, single policy"


def _kept_rows(
    seed: int,
    *,
    seeds: int,
    tasks: int,
    episodes: int,
    steps: int,
    held: float,
    rows: int,
    rollout_steps: int,
    updates: int,
    width: int,
    batch: int,
    discount: float,
    polyak_rate: float,
) -> Finding:
    angles = jnp.asarray(_ANGLES[:tasks], jnp.float32)
    keys = jax.random.split(jax.random.key(seed), (seeds, tasks))
    by_controller = np.arange(episodes) < held * episodes
    made = [
        [
            record(_Held(angle), _act, np.where(by_controller, angle, np.nan), steps=steps, key=key)
            for angle, key in zip(angles, each)
        ]
        for each in keys
    ]
    stack = lambda *leaves: jnp.stack(leaves)
    logs = [[task_log(log) for log in each] for each in made]
    problems = [[log.spaces for log in each] for each in made]
    logs, problems = (
        jax.tree.map(stack, *(jax.tree.map(stack, *each) for each in nested))
        for nested in (logs, problems)
    )
    low, high = (np.asarray(x) for x in _references(angles))
    settings = {
        "num_tasks": tasks,
        "buffer_size": rows,
        "rollout_steps": rollout_steps,
        "hidden_sizes": (width, width),
        "learning_rate": 1e-3,
        "discount": discount,
        "polyak_rate": polyak_rate,
    }
    runs = jax.random.split(jax.random.key(seed + 1), seeds)
    found, matrices = {}, {}
    for name in (*_SELECTIONS, _SINGLE):
        method = OER(**settings, selection="random", dual_cloning=name != _SINGLE)
        place = _SELECTIONS.index("random" if name == _SINGLE else name)
        returns = _matrices(
            *(method, jnp.asarray(place), logs, problems, angles, updates, batch, runs)
        )
        scores = 100.0 * (np.asarray(returns) - low) / (high - low)
        found[name], matrices[name] = transfer_scores(scores), scores.mean(0)
    ours, chance, single = (found[name] for name in ("model", "random", _SINGLE))
    return Finding(
        (
            Criterion(
                "average of rollouts in the model less that of rows at random, points",
                mean_of(ours.average - chance.average),
                at_least=3.0,
            ),
            Criterion(
                "average less that of rows at random with a single policy, points",
                mean_of(ours.average - single.average),
                at_least=10.0,
            ),
            Criterion(
                "backward transfer less that of rows at random, points",
                mean_of(ours.backward_transfer - chance.backward_transfer),
                at_least=0.0,
            ),
            Criterion(
                "backward transfer less that of a single policy, points",
                mean_of(ours.backward_transfer - single.backward_transfer),
                at_least=0.0,
            ),
        ),
        {
            name: {
                "average": float(scores.average.mean()),
                "backward_transfer": float(scores.backward_transfer.mean()),
                "forgetting": float(scores.forgetting.mean()),
                "matrix": np.round(matrices[name], 1).tolist(),
            }
            for name, scores in found.items()
        },
    )


CLAIMS = (
    Claim(
        "oer-keeps-what-its-policy-visits",
        "Of five tasks learned one after the other from logs in which a third of the episodes is a "
        "noisy controller's and the others are random, each to hold a pendulum at another angle, "
        "OER with 500 rows kept of each ends at an average score at least 3 points above the same "
        "with rows kept at random, and at least 10 above that with a single policy; its backward "
        "transfer is no more negative than theirs. Task and sizes were chosen in pilots with "
        "another seed; no setting was chosen by a score.",
        ("OER",),
        "gai2023oer",
        "its comparison of selections and its ablation of dual behaviour cloning, on a small task",
        {
            "smoke": {
                "seeds": 2,
                "tasks": 2,
                "episodes": 6,
                "steps": 20,
                "held": 0.34,
                "rows": 20,
                "rollout_steps": 5,
                "updates": 8,
                "width": 8,
                "batch": 16,
                "discount": 0.95,
                "polyak_rate": 0.02,
            },
            "small": {
                "seeds": 3,
                "tasks": 5,
                "episodes": 150,
                "steps": 100,
                "held": 0.34,
                "rows": 500,
                "rollout_steps": 50,
                "updates": 2_000,
                "width": 32,
                "batch": 64,
                "discount": 0.95,
                "polyak_rate": 0.02,
            },
        },
        _kept_rows,
        "It fails: averages are 31 along rollouts in the model, 43 with rows at random and 40 with "
        "a single policy, of three instances that differ by more (the first less the second: -28 "
        "to 9). Along rollouts of the process itself it is 35, so that the model is not what "
        "costs. In a pilot with another seed (two instances, not recorded) it was which action is "
        "kept, the logged one, in a log where chance acts twice of three times: with the learned "
        "policy's action instead, backward transfer was -4 points along rollouts, 0 at random and "
        "-1 with a single policy, and averages 70 to 73.",
    ),
)
