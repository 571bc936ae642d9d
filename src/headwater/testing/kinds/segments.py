"""Windows around an action, and segments that are compared or logged."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from headwater.core.records import (
    ActionWindows,
    ComparisonsAndSegments,
    SegmentComparisons,
    Segments,
)
from headwater.core.spaces import Spaces
from headwater.testing.kinds.kind import ROWS, Kind, kinds_of, repeated_rows
from headwater.testing.kinds.transitions import OBSERVATION, edge, problems, transitions


@kinds_of(Spaces, ActionWindows)
def _kinds_of_windows() -> list[Kind]:
    return [
        Kind(
            f"windows of {name}",
            problem,
            lambda key, d=problem.discrete: _action_windows(key, d),
            True,
            _HARD_WINDOWS,
        )
        for name, problem in problems().items()
    ]


@kinds_of(Spaces, SegmentComparisons)
def _kinds_of_compared_segments() -> list[Kind]:
    return [
        Kind(
            f"compared segments of {name}",
            problem,
            lambda key, d=problem.discrete: _compared_segments(key, d),
            True,
            _HARD_SEGMENTS,
        )
        for name, problem in problems().items()
    ]


@kinds_of(Spaces, ComparisonsAndSegments)
def _kinds_of_compared_and_logged_segments() -> list[Kind]:
    return [
        Kind(
            f"compared and logged segments of {name}",
            problem,
            lambda key, d=problem.discrete: _compared_and_logged_segments(key, d),
            True,
            {
                name: lambda d, change=change: replace(d, comparisons=change(d.comparisons))
                for name, change in _HARD_SEGMENTS.items()
            },
        )
        for name, problem in problems().items()
    ]


def _action_windows(key, discrete: bool) -> ActionWindows:
    window_key, action_key = jax.random.split(key)
    rows = transitions(action_key, (ROWS,), discrete)
    # Of three positions: one before, the one of the action, and one after.
    return ActionWindows(jax.random.normal(window_key, (ROWS, 3, OBSERVATION)), rows.action)


_HARD_WINDOWS = {
    "one action": lambda d: replace(d, action=jnp.zeros_like(d.action)),
    "nothing changes": lambda d: replace(d, observations=jnp.zeros_like(d.observations)),
    "repeated rows": repeated_rows,
    "actions at the edge": lambda d: replace(d, action=edge(d.action)),
}


def _segments(key, discrete: bool) -> Segments:
    """Segments of five steps."""
    rows = transitions(key, (5 * ROWS,), discrete)
    return Segments(*(x.reshape(ROWS, 5, *x.shape[1:]) for x in (rows.observation, rows.action)))


def _compared_segments(key, discrete: bool) -> SegmentComparisons:
    """Pairs of which a judge of the first component prefers one, or calls them equal."""
    first, second = (_segments(each, discrete) for each in jax.random.split(key))
    scores = [jnp.sum(found.observation[..., 0], axis=1) for found in (first, second)]
    preference = jnp.where(scores[0] > scores[1], 1.0, 0.0)
    return SegmentComparisons(first, second, preference.at[-2:].set(0.5))


def _compared_and_logged_segments(key, discrete: bool) -> ComparisonsAndSegments:
    pair_key, logged_key = jax.random.split(key)
    return ComparisonsAndSegments(
        _compared_segments(pair_key, discrete), _segments(logged_key, discrete)
    )


_HARD_SEGMENTS = {
    "the same twice": lambda d: replace(d, second=d.first),
    "all equal": lambda d: replace(d, preference=jnp.full_like(d.preference, 0.5)),
    "always the first": lambda d: replace(d, preference=jnp.ones_like(d.preference)),
    "repeated rows": repeated_rows,
    "actions at the edge": lambda d: replace(
        d, first=replace(d.first, action=edge(d.first.action))
    ),
}
