"""Convex sets: projections onto them, onto the cones over them and onto the cones' polars."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class AbstractConvexSet(eqx.Module):
    """A closed convex set of vectors."""

    @abc.abstractmethod
    def project(self, point: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """The point of the set that is nearest to `point`."""

    @abc.abstractmethod
    def farthest(self, direction: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """A point of the set that lies farthest in `direction`; the set must be bounded there."""


class Orthotope(AbstractConvexSet):
    """A box: every coordinate within its own bounds, which may be infinite.

    **Arguments:** `low`, `high`.
    """

    low: Float[Array, " dimension"]
    high: Float[Array, " dimension"]

    def project(self, point: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        return jnp.clip(point, self.low, self.high)

    def farthest(self, direction: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        # A direction of zero asks for nothing, and must not touch a bound that may be infinite.
        inside = jnp.clip(jnp.zeros_like(self.low), self.low, self.high)
        side = jnp.where(direction < 0.0, self.low, self.high)
        return jnp.where(direction == 0.0, inside, side)


class Ball(AbstractConvexSet):
    """All points within a distance of a centre.

    **Arguments:** `centre`; `radius`: Euclidean.
    """

    centre: Float[Array, " dimension"]
    radius: Float[Array, ""]

    def project(self, point: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        away = point - self.centre
        return self.centre + into_ball(away, self.radius)

    def farthest(self, direction: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        length = jnp.linalg.norm(direction)
        return self.centre + self.radius * direction / jnp.maximum(length, 1e-12)


class Product(AbstractConvexSet):
    """The first coordinates in one set and the others in another.

    **Arguments:** `first`, `second`; `split`: how many coordinates are in `first`.
    """

    first: AbstractConvexSet
    second: AbstractConvexSet
    split: int = eqx.field(static=True)

    def project(self, point: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        head, tail = point[: self.split], point[self.split :]
        return jnp.concatenate([self.first.project(head), self.second.project(tail)])

    def farthest(self, direction: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        head, tail = direction[: self.split], direction[self.split :]
        return jnp.concatenate([self.first.farthest(head), self.second.farthest(tail)])


def distance(convex: AbstractConvexSet, point: Float[Array, " dimension"]) -> Float[Array, ""]:
    """Euclidean distance of `point` from the set; zero inside."""
    return jnp.linalg.norm(point - convex.project(point))


def into_ball(
    point: Float[Array, " dimension"], radius: float | Float[Array, ""]
) -> Float[Array, " dimension"]:
    """The point of the ball of `radius` around the origin that is nearest to `point`."""
    return point * jnp.minimum(radius / jnp.maximum(jnp.linalg.norm(point), 1e-12), 1.0)


def into_cone(
    convex: AbstractConvexSet,
    point: Float[Array, " lifted"],
    height: float | Float[Array, ""],
    *,
    steps: int = 40,
) -> Float[Array, " lifted"]:
    """The point nearest to `point` of the cone over the set, lifted by one coordinate.

    The cone is `{s (x, height): x in the set, s ≥ 0}`. For a scale `s` the nearest point is
    `s (x, height)` with `x = project(p / s)`. The squared distance is convex in `s`, with half of
    its slope `x · (s x - p) + height (s height - top)`, whose root bisection finds: to the last
    digits of single precision, which a search that compares distances would lose.

    **Arguments:** `height`: the last coordinate of the lifted set, above zero; `steps`: of the
    bisection.
    """
    base, top = point[:-1], point[-1]

    def halve(_, ends):
        low, high = ends
        scale = (low + high) / 2.0
        nearest = convex.project(base / scale)
        slope = jnp.dot(nearest, scale * nearest - base) + height * (scale * height - top)
        return jnp.where(slope > 0.0, low, scale), jnp.where(slope > 0.0, scale, high)

    # The projection is no longer than the point, and its last coordinate is s times the height.
    highest = jnp.maximum(jnp.linalg.norm(point) / height, 1e-12)
    low, high = jax.lax.fori_loop(0, steps, halve, (jnp.zeros_like(highest), highest))
    scale = (low + high) / 2.0
    return scale * jnp.append(convex.project(base / scale), height)


def into_polar(
    convex: AbstractConvexSet, point: Float[Array, " lifted"], height: float | Float[Array, ""]
) -> Float[Array, " lifted"]:
    """The point nearest to `point` of the polar of the cone of `into_cone` (Moreau, 1962).

    The polar holds the directions in which no point of the cone lies.
    """
    return point - into_cone(convex, point, height)


def into_unit_polar(
    convex: AbstractConvexSet, point: Float[Array, " lifted"], height: float | Float[Array, ""]
) -> Float[Array, " lifted"]:
    """The point nearest to `point` of the polar's part within the unit ball.

    For a cone and a ball around its tip, projecting onto the cone and then onto the ball is exact.
    """
    return into_ball(into_polar(convex, point, height), 1.0)


def within_budgets(
    least: float | Float[Array, ""],
    highest: float | Float[Array, ""],
    budgets: Float[Array, " constraint"],
) -> Orthotope:
    """Returns `(reward, costs…)` of at least `least` reward within the budgets.

    **Arguments:** `highest`: the largest reward and the largest saving that can be; it bounds the
    set, as `farthest` needs. Costs may be anything from `-highest` up to the budgets.
    """
    low = jnp.append(jnp.asarray(least, budgets.dtype), jnp.full_like(budgets, -highest))
    high = jnp.append(jnp.asarray(highest, budgets.dtype), budgets)
    return Orthotope(low, high)
