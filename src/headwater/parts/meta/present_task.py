"""The task that is searched at present, by what was learned from earlier ones."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.parts.black_boxes.surrogate import random_points

_SAME = 1e-6
_ANYWHERE = 512
"""Points that are drawn where any in a box may be asked."""


class PresentTask(eqx.Module):
    """Its space and that of earlier tasks, and what was evaluated.

    **Arguments:** `learned_in`: the space of earlier tasks; the first `count` rows of `point`, of
    the unit cube of `space`, and of `value` are there.
    """

    space: SearchSpace
    learned_in: SearchSpace
    point: Float[Array, "room component"]
    value: Float[Array, " room"]
    count: Int[Array, ""]

    @classmethod
    def of(cls, space: SearchSpace, learned_in: SearchSpace | None = None) -> "PresentTask":
        """Before any evaluation. Earlier tasks had the same space unless it is said."""
        before = dataclasses.replace(space, candidates=None) if learned_in is None else learned_in
        none = jnp.zeros((space.capacity, space.size)), jnp.zeros(space.capacity)
        return cls(space, before, *none, jnp.zeros((), jnp.int32))

    @property
    def known(self) -> Bool[Array, " room"]:
        """Which rows there are."""
        return jnp.arange(len(self.value)) < self.count

    def with_queries(self, data: Queries) -> "PresentTask":
        """With further evaluations, as far as they are finite and there is room."""
        good, room = jnp.isfinite(data.value), len(self.value)
        rows = jnp.where(good, self.count + jnp.cumsum(good.astype(jnp.int32)) - 1, room)
        return dataclasses.replace(
            self,
            point=self.point.at[rows].set(data.point, mode="drop"),
            value=self.value.at[rows].set(data.value, mode="drop"),
            count=jnp.minimum(self.count + jnp.sum(good, dtype=jnp.int32), room),
        )

    def candidates(self, *, key: PRNGKeyArray) -> Float[Array, "candidate component"]:
        """All there are, or some drawn anywhere in the box."""
        listed = self.space.unit_candidates
        return random_points(self.space, _ANYWHERE, key=key) if listed is None else listed

    def evaluated(self, points: Float[Array, "point component"]) -> Bool[Array, " point"]:
        """Which of these points were evaluated."""
        same = jnp.all(jnp.abs(points[:, None] - self.point[None]) <= _SAME, axis=-1)
        return jnp.any(same & self.known[None], axis=1)

    def best(self) -> Float[Array, " component"]:
        """The point of the best value so far."""
        return self.point[jnp.argmax(jnp.where(self.known, self.value, -jnp.inf))]

    def as_learned(
        self, points: Float[Array, "point component"]
    ) -> Float[Array, "point component"]:
        """These points in the unit cube of earlier tasks, where they may lie outside."""
        return jnp.asarray(self.learned_in.to_unit(self.space.from_unit(points)))
