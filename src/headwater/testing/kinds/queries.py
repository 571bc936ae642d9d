"""Evaluations of black boxes, and solutions with the measures of an archive."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import MeasuredQueries, Queries, TaskQueries
from headwater.testing.kinds.kind import ROWS, Kind, kinds_of, repeated_rows

_AT_ONCE = 4


@kinds_of(SearchSpace, Queries)
def _kinds() -> list[Kind]:
    low, high = (-5.0, 1.0), (10.0, 15.0)
    candidates = [[0.1 * i, (0.7 * i) % 1.0] for i in range(9)]
    problems = {
        "queries in a box": SearchSpace(low, high, capacity=20),
        "queries of candidates": SearchSpace.of_candidates(candidates, capacity=20),
        "queries of whole numbers": SearchSpace(
            (0.0,) * 3, (3.0,) * 3, whole=(True,) * 3, capacity=20
        ),
        "queries at two fidelities": SearchSpace(low, high, costs=(0.1, 1.0), capacity=20),
    }
    return [
        Kind(
            name,
            problem,
            lambda key, p=problem: _queries(key, p),
            False,
            _HARD,
            last_resort=bool(problem.whole),
        )
        for name, problem in problems.items()
    ]


@kinds_of(MeasuredSpace, MeasuredQueries)
def _kinds_of_measured_queries() -> list[Kind]:
    space = MeasuredSpace(
        SearchSpace((-5.0, 1.0), (10.0, 15.0), capacity=80), (-1.0, 0.0), (1.0, 2.0), 6
    )
    return [
        Kind(
            "measured queries",
            space,
            lambda key: _measured_queries(key, space),
            False,
            _HARD_MEASURED,
        )
    ]


@kinds_of(SearchSpace, TaskQueries)
def _kinds_of_earlier_tasks() -> list[Kind]:
    spaces = {
        "earlier tasks in a box": SearchSpace((-5.0, 1.0), (10.0, 15.0), capacity=20),
        "earlier tasks on candidates": SearchSpace.of_candidates(
            [[0.1 * i, (0.7 * i) % 1.0] for i in range(9)], capacity=20
        ),
    }
    return [
        Kind(name, space, lambda key, s=space: _task_queries(key, s), False, _HARD_TASKS)
        for name, space in spaces.items()
    ]


def _task_queries(key, problem: SearchSpace) -> TaskQueries:
    """Evaluations of three hills, of which the last has fewer."""
    point_key, peak_key = jax.random.split(key)
    point = jax.random.uniform(point_key, (3, ROWS, problem.size))
    peak = jax.random.uniform(peak_key, (3, 1, problem.size))
    known = jnp.arange(ROWS)[None] < jnp.asarray([ROWS, ROWS, ROWS - 5])[:, None]
    value = jnp.where(known, -jnp.sum((point - peak) ** 2, axis=-1), 0.0)
    return TaskQueries(point, value, known)


_HARD_TASKS = {
    "all alike": lambda d: replace(d, value=jnp.zeros_like(d.value)),
    "large values": lambda d: replace(d, value=1e6 * d.value),
    "one point": lambda d: replace(d, point=jnp.zeros_like(d.point)),
    "one evaluation of each": lambda d: replace(d, known=d.known & (jnp.arange(ROWS)[None] < 1)),
}


def _queries(key, problem: SearchSpace) -> Queries:
    """Evaluations of a hill, with noise."""
    point_key, candidate_key, noise_key, fidelity_key = jax.random.split(key, 4)
    point = jax.random.uniform(point_key, (_AT_ONCE, problem.size))
    candidates = problem.unit_candidates
    if candidates is not None:
        point = candidates[jax.random.randint(candidate_key, (_AT_ONCE,), 0, len(candidates))]
    point = jnp.asarray(problem.rounded(point))
    noise = 0.1 * jax.random.normal(noise_key, (_AT_ONCE,))
    fidelity = jax.random.randint(fidelity_key, (_AT_ONCE,), 0, problem.fidelities, jnp.int32)
    cost = jnp.asarray(problem.costs, jnp.float32)[fidelity]
    return Queries(point, noise - jnp.sum((point - 0.3) ** 2, axis=1), fidelity, cost)


_HARD = {
    "all alike": lambda d: replace(d, value=jnp.zeros_like(d.value)),
    "large values": lambda d: replace(d, value=1e6 * d.value),
    "repeated rows": repeated_rows,
    "one point": lambda d: replace(d, point=jnp.zeros_like(d.point)),
}


def _measured_queries(key, problem: MeasuredSpace) -> MeasuredQueries:
    """Solutions whose measures follow from them, one of which failed, and frames of these."""
    point_key, noise_key, frame_key = jax.random.split(key, 3)
    point = jax.random.uniform(point_key, (ROWS, problem.size))
    value = 0.1 * jax.random.normal(noise_key, (ROWS,)) + jnp.sum(point, axis=1)
    measures = jnp.stack([2.0 * point[:, 0] - 1.0, 2.0 * point[:, 1] ** 2], axis=1)
    mixing = jax.random.normal(jax.random.key(0), (2, problem.frame_size))
    frame = jax.nn.sigmoid(measures @ mixing)
    frame = frame + 0.01 * jax.random.normal(frame_key, frame.shape)
    return MeasuredQueries(point, value.at[0].set(jnp.nan), measures, frame)


_HARD_MEASURED = {
    "all alike": lambda d: replace(d, value=jnp.zeros_like(d.value)),
    "all failed": lambda d: replace(d, value=jnp.full_like(d.value, jnp.nan)),
    "large values": lambda d: replace(d, value=1e6 * d.value),
    "repeated rows": lambda d: jax.tree.map(lambda x: jnp.broadcast_to(x[1:2], x.shape), d),
    "beyond the bounds": lambda d: replace(d, measures=100.0 * d.measures),
    "dark frames": lambda d: replace(d, frame=jnp.zeros_like(d.frame)),
}
