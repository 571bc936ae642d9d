"""What is promised of upper confidence bound value iteration."""

from typing import Any

import numpy as np

from headwater.environments.tabular.finite import river_swim
from headwater.evaluation.statistics import frequency
from headwater.evidence.claim import Claim, Criterion, Finding, ratio_of_means
from headwater.evidence.finite_regret import (
    GRID,
    compare,
    curves,
    learn_each,
    numbers,
    ratio,
    sparse_process,
)
from headwater.methods.tabular.online.ucbvi import UCBVI

_PAPER = "azar2017minimax"


def _optimism(seed: int, *, sizes: dict[str, int], episodes: int, runs: int) -> Finding:
    processes = [sparse_process(seed * runs + i, **sizes) for i in range(runs)]
    criteria = []
    for bonus in ("hoeffding", "bernstein"):
        learned = learn_each(
            UCBVI(bonus, num_episodes=float(episodes)), processes, episodes=episodes, seed=seed
        )
        always = int(np.sum(learned.sums["optimistic"][:, -1] == episodes))
        share = frequency(always, runs)
        criteria.append(
            Criterion(f"share of runs that are optimistic throughout, {bonus}", share, at_least=0.9)
        )
    return Finding(tuple(criteria))


def _square_root(seed: int, *, sizes: Any, episodes: int, **scale: Any) -> Finding:
    methods = {
        bonus: UCBVI(bonus, num_episodes=float(episodes), value_cap="remaining")
        for bonus in ("hoeffding", "bernstein")
    }
    found, chosen = compare(
        methods, lambda i: sparse_process(i, **sizes), seed=seed, episodes=episodes, **scale
    )
    criteria = []
    for name, learned in found.items():
        regret = learned.sums["regret"]
        quarter = regret.shape[1] // 4 - 1
        growth = ratio_of_means(regret[:, -1], regret[:, quarter])
        criteria.append(
            Criterion(f"regret over that of the first quarter, {name}", growth, at_most=2.0)
        )
    return Finding(tuple(criteria), numbers(found, chosen), curves(found), "episodes", "regret")


def _variance_helps(seed: int, *, episodes: int, **scale: Any) -> Finding:
    def make(index: int):
        random = np.random.default_rng(index)
        return river_swim(states=6, horizon=20, small_reward=float(random.uniform(0.0, 0.01)))

    methods = {
        bonus: UCBVI(bonus, num_episodes=float(episodes), value_cap="remaining")
        for bonus in ("hoeffding", "bernstein")
    }
    found, chosen = compare(methods, make, seed=seed, episodes=episodes, **scale)
    over = ratio(found, "bernstein", "hoeffding")
    return Finding(
        (Criterion("regret with Bernstein's bonus over Hoeffding's", over, at_most=1.0),),
        numbers(found, chosen),
        curves(found),
        "episodes",
        "regret",
    )


_SIZES = {"states": 5, "actions": 3, "horizon": 6}
_TINY = {"states": 3, "actions": 2, "horizon": 3}

CLAIMS = (
    Claim(
        name="ucbvi-is-optimistic",
        statement="With either of the theorem's bonuses, the value of the start is at least the "
        "best return in all episodes of at least nine in ten runs (δ = 0.1).",
        methods=("UCBVI",),
        paper=_PAPER,
        where="lemma 18 (optimism), for theorems 1 and 2",
        scales={
            "smoke": {"sizes": _TINY, "episodes": 2_000, "runs": 48},
            "small": {
                "sizes": {"states": 2, "actions": 2, "horizon": 2},
                "episodes": 100_000,
                "runs": 48,
            },
        },
        experiment=_optimism,
    ),
    Claim(
        name="ucbvi-regret-grows-as-a-square-root",
        statement="With a tuned bonus of either kind, four times the episodes at most double the "
        "regret.",
        methods=("UCBVI",),
        paper=_PAPER,
        where="theorems 1 and 2: regret grows as the square root of the episodes",
        scales={
            "smoke": {
                "sizes": _TINY,
                "episodes": 2_000,
                "runs": 6,
                "grid": (0.01, 0.003, 0.001),
            },
            "small": {"sizes": _SIZES, "episodes": 8_000, "runs": 24, "grid": GRID},
        },
        experiment=_square_root,
    ),
    Claim(
        name="ucbvi-variance-helps-a-swimmer",
        statement="In rivers that are swum up against the current, the bonus that knows the "
        "variance of the next value has less regret than the one that knows only its range, both "
        "tuned by the same rule.",
        methods=("UCBVI",),
        paper=_PAPER,
        where="theorem 2 against theorem 1: a factor of the square root of the horizon",
        scales={
            "smoke": {"episodes": 400, "runs": 4, "grid": (0.003, 0.001)},
            "small": {"episodes": 4_000, "runs": 12, "grid": GRID},
        },
        experiment=_variance_helps,
    ),
)
