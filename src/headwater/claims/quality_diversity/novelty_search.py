"""How much of what can be reached the search for novelty reaches."""

import jax
import numpy as np

from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, ratio_of_means
from headwater.evidence.quality_diversity.point_searches import BATCH, at_random, searched
from headwater.methods.quality_diversity.map_elites import MAPElites
from headwater.methods.quality_diversity.novelty_search import NoveltySearch


def _reach(seed: int, *, searches: int, updates: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), searches)
    methods = {"novelty search": NoveltySearch(), "MAP-Elites": MAPElites()}
    found = {name: searched(method, keys, updates) for name, method in methods.items()}
    found["uniform solutions"] = at_random(keys, updates)
    curves = {name: np.asarray(x.coverage, np.float64) for name, x in found.items()}
    novel, elites, anywhere = (curve[:, -1] for curve in curves.values())
    return Finding(
        (
            Criterion("coverage of novelty search", mean_of(novel), at_least=0.9),
            Criterion(
                "coverage of novelty search over that of uniform solutions",
                ratio_of_means(novel, anywhere),
                at_least=1.6,
            ),
        ),
        {"uniform solutions": float(anywhere.mean()), "MAP-Elites": float(elites.mean())},
        {name: (BATCH * np.arange(1, updates + 1), curve) for name, curve in curves.items()},
        across="evaluations",
        up="coverage",
    )


CLAIMS = (
    Claim(
        name="novelty-search-reaches-what-chance-does-not",
        statement="Within 20,000 evaluations novelty search makes a point end in at least 90 % of "
        "2,500 places, and in at least 1.6 times as many as uniformly drawn solutions.",
        methods=("NoveltySearch", "MAPElites"),
        paper="lehman2011abandoning",
        where="the claim that novelty alone covers the space of behaviours; here a point in a "
        "square, moved by a network of 48 weights, in place of mazes",
        scales={
            "smoke": {"searches": 2, "updates": 10},
            "small": {"searches": 10, "updates": 100},
        },
        experiment=_reach,
    ),
)
