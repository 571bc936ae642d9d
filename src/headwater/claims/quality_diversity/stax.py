"""Rewards that are found and climbed to with nothing told but frames of what solutions did."""

from typing import Any

import jax
import numpy as np

from headwater.evidence.claim import (
    Claim,
    Criterion,
    Finding,
    mean_of,
    ratio_of_means,
    with_numbers,
)
from headwater.evidence.quality_diversity.point_searches import BATCH, LONGEST, at_random, searched
from headwater.methods.quality_diversity.serene import SERENE
from headwater.methods.quality_diversity.stax import STAX


def _rewards(seed: int, *, searches: int, updates: int, **networks: Any) -> Finding:
    keys = jax.random.split(jax.random.key(seed), searches)
    # Beyond all evaluations: one compiled program does for both.
    trained, never = (with_numbers(STAX(**networks), training_evaluations=x) for x in (1e3, 1e9))
    found = {
        "STAX": searched(trained, keys, updates),
        "SERENE": searched(SERENE(), keys, updates),
        "STAX, not trained": searched(never, keys, updates),
        "uniform solutions": at_random(keys, updates),
    }
    stayed = {n: np.asarray(x.stayed[:, -1], np.float64) for n, x in found.items()}
    coverage = {n: np.asarray(x.coverage, np.float64) for n, x in found.items()}
    entered = (stayed["STAX"] > 0).sum(axis=1)
    return Finding(
        (
            Criterion("areas that STAX enters", mean_of(entered), at_least=4.0),
            Criterion(
                "most steps in an area, mean over the areas, of STAX over that of SERENE",
                ratio_of_means(stayed["STAX"].mean(axis=1), stayed["SERENE"].mean(axis=1)),
                at_least=0.8,
            ),
            Criterion(
                "coverage with an autoencoder that is not trained over that with one that is",
                ratio_of_means(coverage["STAX, not trained"][:, -1], coverage["STAX"][:, -1]),
                at_most=1.0,
            ),
        ),
        {
            "share of the most steps, mean over the areas": {
                name: float((steps / LONGEST).mean()) for name, steps in stayed.items()
            },
            "coverage": {name: float(curve[:, -1].mean()) for name, curve in coverage.items()},
        },
        {name: (BATCH * np.arange(1, updates + 1), curve) for name, curve in coverage.items()},
        across="evaluations",
        up="coverage",
    )


CLAIMS = (
    Claim(
        name="stax-finds-rewards-in-frames",
        statement="Within 40,000 evaluations STAX, which sees frames, makes a point enter all four "
        "areas and stay there at least 0.8 times as long as SERENE, which is told where the point "
        "ends; with an autoencoder that is not trained it reaches no more places.",
        methods=("STAX", "SERENE"),
        paper="paolo2023discovering",
        where="the abstract: no descriptor is made by hand; here four areas of a square",
        scales={
            "smoke": {"searches": 2, "updates": 6, "hidden_sizes": (8,), "num_steps": 2},
            "small": {"searches": 3, "updates": 200},
        },
        experiment=_rewards,
        learned="The areas are half as wide as those that point-reach has by default, as in "
        "serene-climbs-to-every-reward; that all are entered says little, since uniformly drawn "
        "solutions do that, too: how long the point stays says more.",
    ),
)
