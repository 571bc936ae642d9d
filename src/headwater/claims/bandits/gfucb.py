"""What it is worth to learn the features of several bandits together, and when it costs."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.bandits.bandit import AbstractBandit
from headwater.environments.bandits.multitask import ClusterBandit, SharedFeatureBandit
from headwater.evidence.claim import Claim, Criterion, Finding, ratio_of_means, with_numbers
from headwater.methods.bandits.multitask.gfucb import GFUCB
from headwater.runs.learn import learn
from headwater.sources.pulls import LivePulls

_EVERY = 10
"""Rounds of each task in one update."""


def _regret(
    make: Callable[[int, jax.Array], AbstractBandit],
    tasks: int,
    bonus_scales: Sequence[float],
    *,
    seed: int,
    instances: int,
    rounds: int,
) -> list[np.ndarray]:
    """Regret per task and update, `[instance, update]`, for each scale of the bonus."""
    # A task alone gets as many steps for each of its pulls, of fewer rows.
    method = GFUCB(batch_size=min(32 * tasks, 512), memory_size=rounds + 200)

    def one(bonus_scale, seed, key):
        bandit = make(tasks, seed)
        return learn(
            with_numbers(method, bonus_scale=bonus_scale),
            bandit.problem,
            LivePulls(bandit, batch_size=_EVERY * tasks),
            rounds // _EVERY,
            measure=lambda agent, data: {"regret": _EVERY * jnp.mean(data.regret)},
            every=1,
            key=key,
        ).sums["regret"]

    seeds = seed * 1000 + jnp.arange(instances)
    keys = jax.random.split(jax.random.key(seed), instances)
    run = eqx.filter_jit(jax.vmap(one, in_axes=(None, 0, 0)))
    return [np.asarray(run(jnp.asarray(c), seeds, keys), np.float64) for c in bonus_scales]


def _alone(make, seed: int, instances: int, singles: int, rounds: int) -> np.ndarray:
    """The mean over the tasks, each learned alone, that stand for one instance."""
    (regret,) = _regret(make, 1, (0.3,), seed=seed, instances=instances * singles, rounds=rounds)
    return regret.reshape(instances, -1, regret.shape[-1]).mean(axis=1)


def _sharing(seed: int, *, instances: int, singles: int, tasks: int, rounds: int) -> Finding:
    def make(tasks, seed):
        return SharedFeatureBandit(tasks=tasks, seed=seed)

    alone = _alone(make, seed, instances, singles, rounds)
    scales = (0.3, 0.0)
    together, greedy = _regret(make, tasks, scales, seed=seed, instances=instances, rounds=rounds)
    at = _EVERY * np.arange(1, rounds // _EVERY + 1)
    return Finding(
        (
            Criterion(
                f"regret per task of {tasks} tasks together over that of one alone",
                ratio_of_means(together.sum(1), alone.sum(1)),
                at_most=0.75,
            ),
            Criterion(
                "regret with the bonus over that without, tasks together",
                ratio_of_means(together.sum(1), greedy.sum(1)),
                at_most=1.0,
            ),
        ),
        {
            "regret per task": {
                "alone": alone.sum(1).tolist(),
                "together": together.sum(1).tolist(),
                "together, greedy": greedy.sum(1).tolist(),
            }
        },
        {
            "one task": (at, alone.cumsum(1)),
            f"{tasks} tasks": (at, together.cumsum(1)),
            f"{tasks} tasks, greedy": (at, greedy.cumsum(1)),
        },
        "rounds of each task",
        "regret per task",
    )


def _nothing_shared(seed: int, *, instances: int, singles: int, tasks: int, rounds: int) -> Finding:
    def make(tasks, seed):
        return ClusterBandit(tasks=tasks, seed=seed)

    alone = _alone(make, seed, instances, singles, rounds)
    (together,) = _regret(make, tasks, (0.3,), seed=seed, instances=instances, rounds=rounds)
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


_SMALL = {"instances": 4, "singles": 3, "tasks": 20, "rounds": 600}
_SMOKE = {"instances": 3, "singles": 1, "tasks": 2, "rounds": 20}

CLAIMS = (
    Claim(
        name="bandits-that-share-features-learn-them-together",
        statement="Twenty contextual bandits that are linear in the same three unknown features "
        "have at most 0.75 of the regret per task of one alone in 600 rounds each, and no more "
        "with the bonus than without.",
        methods=("GFUCB",),
        paper="lu2022provable",
        where="the regret bound, whose term of the features is shared; the numbers are ours",
        scales={"smoke": _SMOKE, "small": _SMALL},
        experiment=_sharing,
    ),
    Claim(
        name="bandits-that-share-only-clusters-learn-no-faster-together",
        statement="Where tasks share twenty clusters of arms but not what a cluster earns, twenty "
        "tasks together have at least the regret per task of one alone in 600 rounds each.",
        methods=("GFUCB",),
        paper="lu2022provable",
        where="a control of ours: one task needs a single function of the features",
        scales={"smoke": _SMOKE, "small": _SMALL},
        experiment=_nothing_shared,
    ),
)
