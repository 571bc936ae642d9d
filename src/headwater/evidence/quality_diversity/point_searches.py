"""Searches of the point in a square that claims compare: where it was made to end, and to stay."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.environments.black_boxes.measured_box import AbstractMeasuredBox
from headwater.environments.black_boxes.point_reach import GOALS, PointReach
from headwater.parts.quality_diversity.archive import Archive
from headwater.runs.learn import learn
from headwater.sources.queries import LiveMeasuredQueries

BATCH = 200
"""Evaluations of an update."""
RADIUS = 0.05
"""Half of the side of the areas: uniform solutions seldom stay in one that is so small."""
LONGEST = np.asarray([51.0 - math.ceil((max(map(abs, x)) - RADIUS) / 0.05) for x in GOALS])
"""Steps that can count in each area: of 50, without those on the straight way to its edge."""
POINT = PointReach(radius=RADIUS)  # pyright: ignore[reportCallIssue]
"""The task."""


class Reached(NamedTuple):
    """What a search reached, after each update.

    **Arguments:** `coverage`: the share of 50 × 50 places in which the point was made to end;
    `stayed`: the most steps that counted in each area.
    """

    coverage: Float[Array, " update"]
    stayed: Float[Array, "update area"]


@eqx.filter_jit
def searched(method, keys, updates: int, box: AbstractMeasuredBox = POINT) -> Reached:
    """What a method reached with each key, which is the first axis.

    **Arguments:** `box`: what the method is told, in place of the point's end.
    """
    space = box.measured_space.with_capacity(BATCH * updates)
    source = LiveMeasuredQueries(box, BATCH)

    def one(key):
        looked = learn(
            method,
            space,
            source,
            updates,
            measure=lambda agent, data: _looked(data.point),
            every=1,
            key=key,
        ).sums
        return _together({name: looked[name] for name in ("ended", "stayed")})

    return jax.vmap(one)(keys)


def at_random(keys, updates: int) -> Reached:
    """The same of solutions drawn uniformly."""

    def batch(carry, key):
        return carry, _looked(jax.random.uniform(key, (BATCH, POINT.space.size)))

    def one(key):
        return _together(jax.lax.scan(batch, None, jax.random.split(key, updates))[1])

    return jax.jit(jax.vmap(one))(keys)


def elitist(keys, updates: int, mutation_scale: float) -> Reached:
    """The same of evolution: each of the 100 of most steps has two children in each generation."""

    def generation(parents, key):
        step = mutation_scale * jax.random.normal(key, (BATCH, parents.shape[1]))
        children = jnp.clip(jnp.tile(parents, (2, 1)) + step, 0.0, 1.0)
        both = jnp.concatenate([parents, children])
        best = jax.lax.top_k(jnp.max(_walked(both)[1], axis=1), len(parents))[1]
        return both[best], _looked(children)

    def one(key):
        first, rest = jax.random.split(key)
        start = jax.random.uniform(first, (BATCH // 2, POINT.space.size))
        return _together(jax.lax.scan(generation, start, jax.random.split(rest, updates))[1])

    return jax.jit(jax.vmap(one))(keys)


def _walked(points):
    return jax.vmap(lambda x: POINT.walk(POINT.space.from_unit(x)))(points)


def _looked(points):
    """Where a batch of points ended, and the steps that counted."""
    place, stayed = _walked(points)
    grid = Archive.grid(1, (-1.0, -1.0), (1.0, 1.0), (50, 50))
    ended = jnp.zeros(grid.places).at[grid.place_of(place)].set(1.0)
    return {"ended": ended, "stayed": jnp.max(stayed, axis=0)}


def _together(looked) -> Reached:
    ended = jax.lax.cummax(looked["ended"], axis=0)
    return Reached(jnp.mean(ended, axis=1), jax.lax.cummax(looked["stayed"], axis=0))
