"""Energy allocation: evaluations of a quadratic function, spread by its curvature."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, positive, probability
from headwater.core.method import AbstractMethod, AbstractProposer, Info
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.ops.linear_algebra import solve, symmetric_eigen

_AT_CENTRE = 0.1
"""Share of the exploring evaluations that are at the centre itself, which tell its value."""
_GOLDEN = np.uint32(2_654_435_769)
"""The golden ratio's fraction, times 2³²."""
_FLATTEST = 1e-3
"""Least curvature that is believed in, as a share of the largest."""


class EnergyAllocationState(eqx.Module):
    """A fit in the box from -1 to 1; `hessian` is that of the function's negative."""

    space: SearchSpace
    products: Float[Array, "term term"]
    moments: Float[Array, " term"]
    weights: Float[Array, " term"]
    hessian: Float[Array, "component component"]
    curvature: Float[Array, " component"]
    directions: Float[Array, "component component"]
    centre: Float[Array, " component"]
    residuals: Float[Array, ""]
    count: Float[Array, ""]
    asked: UInt32[Array, ""]


class EnergyAllocation(
    AbstractMethod[SearchSpace, Queries, EnergyAllocationState],
    AbstractProposer[EnergyAllocationState],
):
    r"""Evaluates in pairs along the directions of curvature, less often where the curve is steep.

    The function is $c - \frac12 (x - x_0)^\top A (x - x_0)$ and noise. With $n_i$ evaluations a
    step $r$ to both sides along the eigenvector $i$ of $A$ its maximum is missed by
    $\sum_i 1 / (2 \lambda_i n_i r^2)$, and least where $n_i \propto \lambda_i^{-1/2}$. An unknown
    $A$ is fitted with $x_0$, to all evaluations; a share that falls as $t^{-1/3}$ is in random
    directions. They lie around the fitted maximum, where an error of $A$ does little; those with a
    given $A$ lie around the middle of the box.

    **Arguments:**

    - `hessian`: estimated, or given: `curvature` times the identity, or what the state holds.
    - `curvature`: of every component, in the box from -1 to 1: a prior where it is estimated.
    - `curvature_power`: $p$ of $n_i \propto \lambda_i^{-p}$.
    - `step_length`: $r$ in that box; the maximum is sought within $1 - r$ of its middle.
    - `random_evaluations`: so many evaluations are all in random directions.
    - `residual_clip`: how far from its prediction a value may count, in mean absolute residuals.
    - `ridge`: added to the diagonal of the least squares.

    **Reference:** Yu, Wang, Huang, Lei and Lee (2023), arXiv:2306.12383.

    **Differences from the paper:** how an unknown Hessian is learned is not taken from it.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "yu2023sample", summary="evaluations of a quadratic function, spread by its curvature"
    )

    hessian: Literal["estimated", "given"] = choice("estimated")
    curvature: float = positive(1.0)
    curvature_power: float = non_negative(0.5)
    step_length: float = probability(0.5)
    random_evaluations: float = positive(300.0)
    residual_clip: float = positive(10.0)
    ridge: float = positive(1e-3)

    def init(self, problem: SearchSpace, *, key: PRNGKeyArray) -> EnergyAllocationState:
        problem.require_one_fidelity("EnergyAllocation")
        if problem.candidates is not None:
            raise SpecificationError(
                "EnergyAllocation chooses points around the maximum freely, and here are "
                "candidates: give a box"
            )
        size = problem.size
        terms = self._terms(jnp.zeros((1, size))).shape[1]
        state = EnergyAllocationState(
            problem,
            jnp.zeros((terms, terms)),
            jnp.zeros(terms),
            jnp.zeros(terms),
            self.curvature * jnp.eye(size),
            jnp.full(size, self.curvature),
            jnp.eye(size),
            jnp.zeros(size),
            jnp.zeros(()),
            jnp.zeros(()),
            jnp.zeros((), jnp.uint32),
        )
        return self._fitted(state)

    def update(self, state: EnergyAllocationState, data: Queries, *, key: PRNGKeyArray):
        point = 2.0 * data.point - 1.0
        good = jnp.isfinite(data.value)
        value = jnp.where(good, data.value, 0.0)
        if self.hessian == "given":
            value = value + 0.5 * jnp.einsum("ri,ij,rj->r", point, state.hessian, point)
        terms = jnp.where(good[:, None], self._terms(point), 0.0)
        predicted = terms @ state.weights
        residual = value - predicted
        bound = self.residual_clip * state.residuals / jnp.maximum(state.count, 1.0)
        # Before there are enough evaluations residuals say nothing of the noise.
        known = state.count >= 2.0 * terms.shape[1]
        taken = predicted + jnp.where(known, jnp.clip(residual, -bound, bound), residual)
        exactly = jax.lax.Precision.HIGHEST
        state = EnergyAllocationState(
            state.space,
            state.products + jnp.matmul(terms.T, terms, precision=exactly),
            state.moments + jnp.matmul(terms.T, taken, precision=exactly),
            state.weights,
            state.hessian,
            state.curvature,
            state.directions,
            state.centre,
            state.residuals + jnp.sum(jnp.where(good, jnp.abs(residual), 0.0)),
            state.count + jnp.sum(good),
            state.asked,
        )
        state = self._fitted(state)
        metrics = {
            "residual": state.residuals / jnp.maximum(state.count, 1.0),
            "largest_curvature": state.curvature[-1],
            "smallest_curvature": state.curvature[0],
        }
        return state, metrics

    def propose(self, state: EnergyAllocationState, *, key: PRNGKeyArray):
        which_key, anywhere_key = jax.random.split(key)
        # Multiples of the golden ratio are spread evenly: so are directions and their signs.
        drawn = (state.asked * _GOLDEN).astype(jnp.float32) / 2.0**32
        shares = jnp.cumsum(state.curvature**-self.curvature_power)
        chosen = jnp.sum(shares < jnp.abs(2.0 * drawn - 1.0) * shares[-1])
        direction = jnp.sign(drawn - 0.5) * state.directions[:, chosen]
        middle = jnp.zeros_like(state.centre)
        if self.hessian == "estimated":
            middle = state.centre
            explores, at_centre = jax.random.uniform(which_key, (2,))
            anywhere = jax.random.normal(anywhere_key, state.centre.shape)
            anywhere = anywhere / jnp.linalg.norm(anywhere)
            anywhere = jnp.where(at_centre < _AT_CENTRE, 0.0, anywhere)
            share = jnp.cbrt(self.random_evaluations / jnp.maximum(state.count, 1.0))
            direction = jnp.where(explores < share, anywhere, direction)
        point = 0.5 * (middle + self.step_length * direction) + 0.5
        return state.space.rounded(jnp.clip(point, 0.0, 1.0)), jnp.asarray(0, jnp.int32)

    def expect(self, state: EnergyAllocationState, point, fidelity) -> EnergyAllocationState:
        return eqx.tree_at(lambda s: s.asked, state, state.asked + 1)

    def recommend(
        self, state: EnergyAllocationState, *, key: PRNGKeyArray
    ) -> Float[Array, " component"]:
        return state.space.rounded(0.5 * state.centre + 0.5)

    def _terms(self, point: Float[Array, "row component"]) -> Float[Array, "row term"]:
        """One, the components, and, if the Hessian is estimated, their products."""
        parts = [jnp.ones((point.shape[0], 1)), point]
        if self.hessian == "estimated":
            first, second = np.triu_indices(point.shape[1])
            parts.append(point[:, first] * point[:, second])
        return jnp.concatenate(parts, axis=1)

    def _fitted(self, state: EnergyAllocationState) -> EnergyAllocationState:
        """With the quadratic function that fits best, and its maximum."""
        size, terms = state.centre.shape[0], state.moments.shape[0]
        first, second = np.triu_indices(size)
        prior, hessian = jnp.zeros(terms), state.hessian
        if self.hessian == "estimated":
            prior = prior.at[1 + size :].set(jnp.where(first == second, -0.5 * self.curvature, 0.0))
        ridge = jnp.eye(terms) * self.ridge
        weights = solve(state.products + ridge, state.moments + self.ridge * prior)
        if self.hessian == "estimated":
            half = jnp.zeros((size, size)).at[first, second].set(-weights[1 + size :])
            hessian = half + half.T
        curvature, directions = symmetric_eigen(hessian)
        curvature = jnp.maximum(curvature, _FLATTEST * jnp.maximum(curvature[-1], 1e-12))
        centre = directions @ ((directions.T @ weights[1 : 1 + size]) / curvature)
        length = jnp.maximum(jnp.linalg.norm(centre), 1e-12)
        centre = centre * jnp.minimum(1.0, (1.0 - self.step_length) / length)
        return EnergyAllocationState(
            state.space, state.products, state.moments, weights, hessian, curvature, directions,
            centre, state.residuals, state.count, state.count.astype(jnp.uint32),
        )  # fmt: skip
