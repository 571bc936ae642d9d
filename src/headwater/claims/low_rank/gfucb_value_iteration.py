"""What it is worth to learn the features of several processes together, and when it is nothing."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.linear.shared_features import shared_feature_tasks
from headwater.evaluation.instances import stacked
from headwater.evidence.claim import Claim, Criterion, Finding, ratio_of_means, with_numbers
from headwater.methods.low_rank.gfucb_value_iteration import GFUCBValueIteration
from headwater.ops.tabular.planning import expected_return, optimal_values
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes

_BONUS_SCALE = 0.1


def _regret(
    tasks: int,
    bonus_scales: Sequence[float],
    *,
    shared: bool,
    seed: int,
    instances: int,
    episodes: int,
) -> list[np.ndarray]:
    """Regret per task and update, `[instance, update]`, for each scale of the bonus."""
    method = GFUCBValueIteration()
    updates = episodes // method.episodes_per_update
    families = [
        shared_feature_tasks(tasks=tasks, shared=shared, key=jax.random.key(1000 * seed + i))
        for i in range(instances)
    ]
    processes = stacked([each.process for each in families])
    features = stacked([each.problem.features for each in families])
    given = processes, features, jax.random.split(jax.random.key(seed), instances)
    problem = families[0].problem
    run = lambda scale: _learned(method, problem, updates, jnp.asarray(scale), *given)
    return [np.asarray(run(scale), np.float64) for scale in bonus_scales]


# Compiled once for all scales of the bonus, and for groups of as many tasks.
@eqx.filter_jit
def _learned(
    method: Any, problem: Any, updates: int, bonus_scale: Any, processes: Any, features: Any,
    keys: Any,
) -> jax.Array:  # fmt: skip
    """Regret per task and update, `[instance, update]`."""

    def one(process, features, key):
        told = dataclasses.replace(problem, initial=process.initial, features=features)
        plans = jax.vmap(optimal_values)(process)
        best = jnp.einsum("is,is->i", process.initial, plans.value[:, 0])

        def measure(agent, data):
            earned = jax.vmap(expected_return)(process, agent.policy(explore=False))
            return {"regret": method.episodes_per_update * jnp.mean(best - earned)}

        # What is measured before an update is the policy that has just been played.
        return learn(
            with_numbers(method, bonus_scale=bonus_scale),
            told,
            FreshEpisodes(process, tasks=told.tasks),
            updates,
            measure=measure,
            every=1,
            key=key,
        ).sums["regret"]

    return jax.vmap(one)(processes, features, keys)


def _alone(seed: int, shared: bool, instances: int, singles: int, episodes: int) -> np.ndarray:
    """The mean over the tasks, each learned alone, that stand for one instance."""
    (regret,) = _regret(
        1, (_BONUS_SCALE,), shared=shared, seed=seed, instances=instances * singles,
        episodes=episodes,
    )  # fmt: skip
    return regret.reshape(instances, singles, -1).mean(axis=1)


def _sharing(seed: int, *, instances: int, singles: int, tasks: int, episodes: int) -> Finding:
    alone = _alone(seed, True, instances, singles, episodes)
    together, greedy = _regret(
        tasks, (_BONUS_SCALE, 0.0), shared=True, seed=seed, instances=instances, episodes=episodes
    )
    at = np.linspace(0, episodes, alone.shape[1] + 1)[1:]
    runs = {"one task": alone, f"{tasks} tasks": together, f"{tasks} tasks, greedy": greedy}
    return Finding(
        (
            Criterion(
                f"regret per task of {tasks} tasks together over that of one alone",
                ratio_of_means(together.sum(1), alone.sum(1)),
                at_most=1.0,
            ),
        ),
        {"regret per task": {name: regret.sum(1).tolist() for name, regret in runs.items()}},
        {name: (at, regret.cumsum(1)) for name, regret in runs.items()},
        "episodes of each task",
        "regret per task",
    )


def _nothing_shared(
    seed: int, *, instances: int, singles: int, tasks: int, episodes: int
) -> Finding:
    alone = _alone(seed, False, instances, singles, episodes)
    (together,) = _regret(
        tasks, (_BONUS_SCALE,), shared=False, seed=seed, instances=instances, episodes=episodes
    )
    return Finding(
        (
            Criterion(
                f"regret per task of {tasks} tasks together over that of one alone",
                ratio_of_means(together.sum(1), alone.sum(1)),
                at_least=1.0,
            ),
        ),
        {"alone": alone.sum(1).tolist(), "together": together.sum(1).tolist()},
    )


_SMALL = {"instances": 4, "singles": 3, "tasks": 20, "episodes": 600}
# One task takes no second program to be compiled.
_SMOKE = {"instances": 3, "singles": 1, "tasks": 1, "episodes": 20}

CLAIMS = (
    Claim(
        name="processes-that-share-features-learn-them-together",
        statement="Twenty processes that are linear in the same three unknown features have less "
        "regret per task in 600 episodes each than one alone.",
        methods=("GFUCBValueIteration",),
        paper="lu2022provable",
        where="the regret bound for MDPs, whose term of the features is shared; the settings were "
        "chosen for one task alone, on other instances",
        scales={"smoke": _SMOKE, "small": _SMALL},
        experiment=_sharing,
    ),
    Claim(
        name="processes-of-different-features-learn-no-faster-together",
        statement="Where every task is linear in features of its own, twenty tasks together have "
        "at least the regret per task of one alone in 600 episodes each.",
        methods=("GFUCBValueIteration",),
        paper="lu2022provable",
        where="a control of ours: there is nothing to be shared",
        scales={"smoke": _SMOKE, "small": _SMALL},
        experiment=_nothing_shared,
    ),
)
