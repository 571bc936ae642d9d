"""How much a search reaches that is told nothing but frames of what solutions did."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.problems.measured_space import MeasuredSpace
from headwater.environments.black_boxes.measured_box import MeasuredBox
from headwater.evidence.claim import Claim, Criterion, Finding, ratio_of_means
from headwater.evidence.quality_diversity.point_searches import BATCH, POINT, searched
from headwater.methods.quality_diversity.novelty_search import NoveltySearch
from headwater.methods.quality_diversity.taxons import TAXONS

_FEATURES = 10


def _projected(key) -> MeasuredBox:
    """The task, whose measures are random linear features of the frame."""
    pixels = POINT.measured_space.frame_size
    weight = jax.random.normal(key, (pixels, _FEATURES)) / jnp.sqrt(1.0 * pixels)

    def measured(point):
        found = POINT.measured(None, point)
        return found.value, found.frame @ weight

    bounds = (-100.0,) * _FEATURES, (100.0,) * _FEATURES
    # `space` is a property of it, which the type checker takes for a field.
    space = MeasuredSpace(POINT.space, *bounds)
    return MeasuredBox(measured, space)  # pyright: ignore[reportCallIssue]


def _reach(seed: int, *, searches: int, updates: int, **networks: Any) -> Finding:
    projection_key, key = jax.random.split(jax.random.key(seed))
    keys = jax.random.split(key, searches)
    # A grid of ten measures would be large, and is not looked at.
    blind = searched(NoveltySearch(cells=1), keys, updates, _projected(projection_key))
    found = {
        "TAXONS": searched(TAXONS(**networks), keys, updates),
        "novelty search of ends": searched(NoveltySearch(), keys, updates),
        "novelty search of random features": blind,
    }
    curves = {name: np.asarray(x.coverage, np.float64) for name, x in found.items()}
    learned, told, random = (curve[:, -1] for curve in curves.values())
    return Finding(
        (
            Criterion(
                "coverage of TAXONS over that of novelty search of ends",
                ratio_of_means(learned, told),
                at_least=0.85,
            ),
            Criterion(
                "coverage of TAXONS over that of novelty search of random features",
                ratio_of_means(learned, random),
                at_least=1.0,
            ),
        ),
        {name: float(curve[:, -1].mean()) for name, curve in curves.items()},
        {name: (BATCH * np.arange(1, updates + 1), curve) for name, curve in curves.items()},
        across="evaluations",
        up="coverage",
    )


CLAIMS = (
    Claim(
        name="taxons-reaches-what-novelty-search-does",
        statement="Within 20,000 evaluations TAXONS, which sees frames, makes a point end in at "
        "least 0.85 times as many places as novelty search, which is told where it ends, and in "
        "at least as many as novelty search of ten random linear features of the frames.",
        methods=("TAXONS", "NoveltySearch"),
        paper="paolo2020unsupervised",
        where="the abstract: coverage close to that with a descriptor made by hand; here a point "
        "in a square",
        scales={
            "smoke": {"searches": 2, "updates": 6, "hidden_sizes": (8,), "num_steps": 2},
            "small": {"searches": 3, "updates": 100},
        },
        experiment=_reach,
    ),
)
