"""Adaptation that keeps the log: it does not fall, and saves steps, on three tasks."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.catalogue import build_method
from headwater.datasets.dataset import Dataset
from headwater.environments.control.mountain_car import MountainCar
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.control.point_maze import PointMaze
from headwater.environments.environment import AbstractEnvironment
from headwater.evaluation.returns import evaluate_returns
from headwater.evaluation.savings import sample_savings
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.evidence.logs import record
from headwater.runs.evaluations import learning_curve
from headwater.runs.loop import run
from headwater.runs.recipes.online import (
    CRITICS_FIT,
    Budget,
    Start,
    fit_stage,
    online_method,
    online_stage,
    rows_per_update,
    warm_start,
)
from headwater.runs.stage import Stage
from headwater.sources.replay import Replay


class _Task(NamedTuple):
    """Where to adapt, and to which score.

    **Arguments:** `environment`; `random`, `expert`: the mean returns that are 0 and 100: of random
    actions, and of the optimum or a script that solves it (4,000 and 1,000 episodes); `target`.
    """

    environment: AbstractEnvironment
    random: float
    expert: float
    target: float

    def score(self, returns: np.ndarray) -> np.ndarray:
        """Returns on that scale."""
        return 100.0 * (np.asarray(returns) - self.random) / (self.expert - self.random)


_TASKS = {
    "pendulum": _Task(Pendulum(), -1231.0, -137.0, 80.0),
    "mountain car": _Task(MountainCar(power=0.004), 29.3, 99.0, 80.0),
    "point maze": _Task(PointMaze(dense=0.5), -264.3, 97.5, 20.0),
}


def _medium_logs(
    task: _Task,
    seed: int,
    *,
    seeds: int,
    steps: int,
    snapshots: int,
    sizes: tuple[int, ...],
    batch: int,
    rows: int,
) -> list[Dataset]:
    """One log for each seed, made as `headwater data collect` makes its medium one.

    SAC learns for `steps`; the first of its snapshots that is a third of the way from random to the
    best one acts, sampling its actions, until there are about `rows`.
    """
    rates = ("actor_learning_rate", "critic_learning_rate", "temperature_learning_rate")
    method = build_method("SAC", {"hidden_sizes": sizes, **dict.fromkeys(rates, 1e-3)})
    environment, states = task.environment, []

    def look(method, state, key):
        # A copy, since training goes on in the same place.
        states.append(jax.tree.map(np.array, state))
        return evaluate_returns(method, state, environment, episodes=5, key=key, explore=True)

    budget = Budget(steps, rows_per_update(method, batch), random_steps=steps // 10)
    stage = online_stage(method, environment, budget, name="behaviour")
    spaces = environment.spaces
    found = run([stage], spaces, seeds=seeds, seed=seed, evaluate=look, evaluations=snapshots)
    scores = task.score(learning_curve(found.evaluations, seeds)[1])
    horizon = spaces.horizon
    assert horizon is not None
    pieces, logs = np.zeros(max(1, rows // horizon)), []
    for i, own in enumerate(scores):
        medium = int(np.argmax(own >= own.max() / 3.0))
        own_state = jax.tree.map(lambda leaf, at=i: jnp.asarray(leaf[at]), states[medium])
        act = jax.tree_util.Partial(_sampled, method, own_state)
        key = jax.random.fold_in(jax.random.key(seed), i)
        logs.append(record(environment, act, pieces, steps=horizon, key=key))
    return logs


def _sampled(method, state, skill, observation, key):
    return method.act(state, observation, key=key, explore=True)[0]


def _adaptation(
    task: _Task,
    seed: int,
    *,
    seeds: int,
    behaviour_steps: int,
    snapshots: int,
    rows: int,
    updates: int,
    fit_updates: int,
    steps: int,
    wait: int,
    evaluations: int,
    sizes: tuple[int, ...],
    batch: int,
    critics: int,
    near: bool,
) -> dict[str, Any]:
    """Curves of scores in `task`, by arm: `keep-data` after IQL on a log, and `from scratch`.

    Every seed has a log, and an offline policy, of its own. The arms are the same SAC; the first is
    held near the offline policy (PROTO) if `near`, and begins with the actor of IQL and with
    critics fitted to it on the log, from which half of every batch is; the second after as many
    random steps as the first one waits.
    """
    logs = _medium_logs(
        task,
        seed,
        seeds=seeds,
        steps=behaviour_steps,
        snapshots=snapshots,
        sizes=sizes,
        batch=batch,
        rows=rows,
    )
    data = [jax.tree.map(jnp.asarray, log.transitions()) for log in logs]
    spaces = [log.spaces for log in logs]
    offline = build_method(
        "IQL",
        {
            "hidden_sizes": sizes,
            "learning_rate": 1e-3,
            "actor_decay_updates": updates,
        },
    )
    # The recipes' own rates; only the sizes are smaller.
    online, scratch = (
        dataclasses.replace(online_method(offline, False, near=held), num_critics=critics)
        for held in (near, False)
    )
    environment = task.environment

    def score(method, states, key):
        return task.score(evaluate_returns(method, states, environment, episodes=20, key=key))

    replays = [Replay(each, batch) for each in data]
    begin = warm_start(online, "offline", fitted=CRITICS_FIT)
    budget = Budget(steps, rows_per_update(online, batch), warm_up_steps=wait)
    kept = [online_stage(online, environment, budget, data=each, begin=begin) for each in data]
    fit = Start(fit_updates, fit_rows=batch)
    budget = dataclasses.replace(budget, random_steps=wait, warm_up_steps=0)
    arms = {
        "keep-data": [
            Stage("offline", offline, replays, updates, evaluated=False),
            fit_stage(online, fit, "offline", source=replays),
            dataclasses.replace(kept[0], source=[stage.source for stage in kept]),
        ],
        "from scratch": [online_stage(scratch, environment, budget)],
    }
    found = {}
    for arm, stages in arms.items():
        result = run(
            stages,
            spaces,
            seeds=seeds,
            seed=seed + 1,
            evaluate=score,
            evaluations=evaluations,
        )
        found[arm] = learning_curve(result.evaluations, seeds)
    return found


def _without_a_fall(
    seed: int,
    *,
    tasks: tuple[str, ...],
    margin: float,
    early: int,
    at_least: float,
    near: bool = False,
    **scale: Any,
) -> Finding:
    criteria, numbers, shown = [], {}, {}
    for name in tasks:
        curves = _adaptation(_TASKS[name], seed, near=near, **scale)
        steps, scores = curves["keep-data"]
        before, lowest = scores[:, 0], scores[:, steps <= early].min(1)
        target = _TASKS[name].target
        savings = sample_savings(curves["keep-data"], curves["from scratch"], target)
        criteria += [
            Criterion(
                f"{name}: lowest score in {early:,} steps, less that of the offline policy",
                mean_of(lowest - before),
                -margin,
            ),
            Criterion(
                f"{name}: steps to a score of {target:g} from scratch, over those with the log",
                savings.interval,
                at_least,
            ),
        ]
        numbers[name] = {
            "score_before": mean_of(before),
            "lowest": mean_of(lowest),
            "savings": savings.plain(),
            "score_at_the_end": {arm: mean_of(y[:, -1]) for arm, (_, y) in curves.items()},
        }
        shown |= {f"{name}, {arm}": curve for arm, curve in curves.items()}
    return Finding(
        tuple(criteria), numbers, shown, across="new environment steps", up="normalised score"
    )


def _without_a_fall_near_the_policy(seed: int, **scale: Any) -> Finding:
    return _without_a_fall(seed, near=True, **scale)


_BOUNDS = {"margin": 10.0, "at_least": 1.5}
_SMOKE = {
    "seeds": 3,
    "behaviour_steps": 60,
    "snapshots": 2,
    "rows": 400,
    "updates": 20,
    "fit_updates": 10,
    "steps": 60,
    "wait": 20,
    "evaluations": 2,
    "sizes": (8,),
    "batch": 8,
    "critics": 3,
}
_SMALL = {
    "seeds": 5,
    "behaviour_steps": 6_000,
    "snapshots": 12,
    "rows": 8_000,
    "updates": 2_000,
    "fit_updates": 3_000,
    "steps": 1_600,
    "wait": 200,
    "evaluations": 12,
    "sizes": (32, 32),
    "batch": 64,
    "critics": 5,
}

CLAIMS = (
    Claim(
        "adaptation-with-the-log-does-not-fall",
        "On the pendulum, the mountain car and the point maze, from medium logs collected by SAC: "
        "begun with the policy of IQL, and with half of every batch from the log, the score of "
        "SAC falls by at most 10 of the 100 from random to expert in its first 1,000 steps, and "
        "reaches 80 (20 in the maze) in at most two thirds of the steps that the same SAC needs "
        "from scratch.",
        ("SAC", "IQL"),
        "ball2023efficient",
        "ours: their half of every batch from the log, after a warm start",
        {
            "smoke": {**_BOUNDS, "tasks": ("pendulum",), "early": 40, **_SMOKE},
            "small": {**_BOUNDS, "tasks": tuple(_TASKS), "early": 1_000, **_SMALL},
        },
        _without_a_fall,
        learned=(
            "On the mountain car and in the maze it holds: no fall, and at least 5 times fewer "
            "steps (scratch does not get there). On the pendulum it falls by 67 of 100 within "
            "1,000 steps, and as far with other rates of learning; critics that begin at the "
            "level of the log only put the fall off (docs/real_run.md)."
        ),
    ),
    Claim(
        "adaptation-near-the-offline-policy-does-not-fall",
        "The same from the same logs, with an actor held near the offline policy by PROTO: its "
        "score falls by at most 10 of the 100 from random to expert in its first 1,000 steps, and "
        "reaches 80 (20 in the maze) in at most two thirds of the steps that SAC, which nothing "
        "holds, needs from scratch.",
        ("PROTO", "IQL"),
        "li2023proto",
        "ours: half of every batch from the log, and an anchor that stays where it began",
        {
            "smoke": {**_BOUNDS, "tasks": ("pendulum",), "early": 40, **_SMOKE},
            "small": {**_BOUNDS, "tasks": tuple(_TASKS), "early": 1_000, **_SMALL},
        },
        _without_a_fall_near_the_policy,
        learned=(
            "It hardly falls: on the pendulum by 3, 11 (undecided) and 2 with seeds 0 to 2, where "
            "the default fell by 67, on the mountain car and in the maze by 1 at most. Neither the "
            "adapted runs nor those from scratch often get to 80 on the pendulum and the mountain "
            "car, so that what is saved there is undecided; in the maze it is five times fewer "
            "steps."
        ),
    ),
)
