"""How much of what can be reached the search for novelty reaches."""

import equinox as eqx
import jax
import numpy as np

from headwater.environments.black_boxes.point_reach import PointReach
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, ratio_of_means
from headwater.methods.quality_diversity.map_elites import MAPElites
from headwater.methods.quality_diversity.novelty_search import NoveltySearch
from headwater.parts.quality_diversity.archive import Archive
from headwater.runs.learn import learn
from headwater.sources.queries import LiveMeasuredQueries

_BATCH = 200


def _coverage(method, key, updates: int):
    """The share of 50 × 50 places in which the point was made to end."""
    box = PointReach()  # pyright: ignore[reportCallIssue]
    space = box.measured_space.with_capacity(_BATCH * updates)
    source = LiveMeasuredQueries(box, _BATCH)
    learned = learn(
        method,
        space,
        source,
        updates,
        evaluate=lambda agent: agent.archive().coverage(),
        every=updates // 10,
        key=key,
    )
    return learned.evaluations


def _at_random(key, updates: int):
    """The same of solutions drawn uniformly."""
    box = PointReach()  # pyright: ignore[reportCallIssue]
    space = box.measured_space

    def some(archive, key):
        points = jax.random.uniform(key, (_BATCH, space.size))
        found = jax.vmap(lambda x: box.measured(None, space.space.from_unit(x)))(points)
        return archive.insert(points, found.value, found.measures), None

    empty = Archive.grid(space.size, space.measure_low, space.measure_high, (50, 50))
    return jax.lax.scan(some, empty, jax.random.split(key, updates))[0].coverage()


def _reach(seed: int, *, searches: int, updates: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), searches)
    run = eqx.filter_jit(jax.vmap(_coverage, in_axes=(None, 0, None)))
    methods = {"novelty search": NoveltySearch(), "MAP-Elites": MAPElites()}
    curves = {n: np.asarray(run(m, keys, updates), np.float64) for n, m in methods.items()}
    anywhere = jax.jit(jax.vmap(_at_random, in_axes=(0, None)), static_argnums=1)(keys, updates)
    anywhere = np.asarray(anywhere, np.float64)
    novel, elites = (curves[name][:, -1] for name in methods)
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
        {name: (np.arange(curve.shape[1]) * _BATCH * (updates // 10), curve)
         for name, curve in curves.items()},
        across="evaluations",
        up="coverage",
    )  # fmt: skip


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
