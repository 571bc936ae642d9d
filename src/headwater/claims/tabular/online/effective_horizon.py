"""Claims of the effective horizon and GORP."""

import math

import jax
import numpy as np

from headwater.analysis.effective_horizon import (
    effective_horizon_bound,
    empirical_effective_horizon,
)
from headwater.environments.tabular.finite import combination_lock
from headwater.evaluation.instances import ExactReturn, learn_instances, stacked
from headwater.evaluation.statistics import frequency
from headwater.evidence.claim import Claim, Criterion, Finding, exactly
from headwater.methods.tabular.online.gorp import GORP


def locks(*, seed: int, horizons: tuple[int, ...], runs: int, learned: int) -> Finding:
    """The effective horizon of locks, and how often GORP opens them with the samples it names."""
    away, bound_below, rows, opened = [], [], {}, 0
    for actions in (2, 3, 4):
        for horizon in horizons:
            key = jax.random.key(seed * 1000 + 10 * horizon + actions)
            process = combination_lock(horizon=horizon, actions=actions, key=key)
            found = empirical_effective_horizon(process, 1, runs=runs, seed=seed)
            rows[f"{actions} actions, {horizon} steps"] = round(found, 3)
            bound_below.append(found - effective_horizon_bound(process))
            if actions > 2:
                away.append(abs(found - horizon))
    process = combination_lock(horizon=horizons[0], actions=3, key=jax.random.key(seed))
    found = empirical_effective_horizon(process, 1, runs=runs, seed=seed)
    samples = math.ceil(3.0 ** (found - 1.0))
    processes = stacked([process] * learned)
    returns = learn_instances(
        GORP(lookahead=1, episodes_per_sequence=samples),
        processes,
        stacked([process.problem()] * learned),
        ExactReturn(processes),
        updates=process.horizon,
        key=jax.random.key(seed),
    )["return"]
    opened = int((returns[:, -1] > 0.5).sum())
    lengths = np.asarray(horizons, np.float64)
    curves = {
        f"{actions} actions": (
            lengths,
            np.asarray([[rows[f"{actions} actions, {h} steps"] for h in horizons]]),
        )
        for actions in (2, 3, 4)
    }
    return Finding(
        (
            Criterion(
                "effective horizon less the length of the lock, 3 or 4 actions, largest",
                exactly(max(away)),
                at_most=1.0,
            ),
            Criterion(
                "effective horizon less its bound from the model, largest",
                exactly(max(bound_below)),
                at_most=0.0,
            ),
            Criterion(
                "share of runs in which GORP opens a lock with the samples of its effective "
                "horizon",
                frequency(opened, learned),
                at_least=0.35,
            ),
        ),
        {"effective horizons": rows, "samples": samples},
        curves,
        "length of the lock",
        "effective horizon",
    )


CLAIMS = (
    Claim(
        name="effective-horizon-of-locks",
        statement=(
            "The effective horizon k + log_A m of GORP is the length of a combination lock with "
            "three or four actions, to within one, and no more than its bound from the model; with "
            "the samples that it names GORP opens a lock in 0.35 of its runs or more."
        ),
        methods=("GORP",),
        paper="laidlaw2023bridging",
        where="Definition of the effective horizon and Theorem 5.4",
        scales={
            "smoke": {"horizons": (2, 3), "runs": 101, "learned": 100},
            "small": {"horizons": (3, 4, 5, 6, 7, 8), "runs": 401, "learned": 400},
        },
        experiment=locks,
        learned=(
            "With two actions the effective horizon of a lock is 1.0 to 1.2 less than its length: "
            "where no rollout earned anything GORP breaks the tie at random, and is right every "
            "other time."
        ),
    ),
)
