"""Expected improvement: evaluate where the best value so far is expected to be exceeded by most."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, positive
from headwater.core.method import AbstractMethod, AbstractProposer, Info
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.ops.expected_improvement import improvement
from headwater.ops.linear_algebra import triangular_solve
from headwater.parts.black_boxes import surrogate
from headwater.parts.black_boxes.gaussian_process import (
    Kernel,
    Posterior,
    covariance,
    prior_variance,
    root_of,
)
from headwater.parts.black_boxes.surrogate import AbstractSurrogate, Surrogate

Incumbent = Literal["best_observed", "best_mean", "posterior_draws"]


class ExpectedImprovement(
    AbstractMethod[SearchSpace, Queries, Surrogate], AbstractProposer[Surrogate], AbstractSurrogate
):
    r"""Maximises $E[(f(x) - f^*)^+] = (\mu - f^*) \Phi(z) + \sigma \varphi(z)$.

    $\mu$ and $\sigma$ are of a Gaussian process and $z = (\mu - f^*) / \sigma$ (Jones et al.,
    1998). Without noise $f^*$ is the best value so far; with noise that is the luckiest one, and
    `incumbent` says what else there is. `posterior_draws` draws the function at the points that
    were evaluated, conditions on the draw as if it had been seen without noise, and takes the mean
    of the improvements over the draws: noisy EI (Letham et al., 2019).

    **Arguments:**

    - `incumbent`: $f^*$: the best value observed, the best mean at a point that was evaluated, or
      the best of each draw of the posterior.
    - `num_draws`: draws of the posterior.
    - `initial_points`: evaluations at random before the first proposal.
    - `kernel`, `hyperparameters`, `length_scale`, `signal_scale`, `noise_scale`, `fit_steps`: see
      `parts/black_boxes/surrogate.py`.

    **Reference:** Frazier (2018), arXiv:1807.02811, sections 3 and 4.1, with Jones, Schonlau and
    Welch (1998) and, for the draws, Letham, Karrer, Ottoni and Bakshy (2019), arXiv:1706.07094.

    **Differences from the paper:** the draws are pseudo-random and not quasi-random, and new with
    every proposal.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "frazier2018tutorial",
        summary="evaluate where the best value is expected to be exceeded by most",
    )

    incumbent: Incumbent = choice("best_observed")
    num_draws: int = integer(32)
    kernel: Kernel = choice("matern52")
    hyperparameters: Literal["likelihood", "given"] = choice("likelihood")
    length_scale: float = positive(0.3)
    signal_scale: float = positive(1.0)
    noise_scale: float = positive(0.03)
    fit_steps: int = integer(30)
    initial_points: int = integer(5)

    def init(self, problem: SearchSpace, *, key: PRNGKeyArray) -> Surrogate:
        problem.require_one_fidelity(type(self).__name__)
        return surrogate.begin(self, problem)

    def update(self, state: Surrogate, data: Queries, *, key: PRNGKeyArray):
        state = surrogate.learn(self, state, data)
        return state, surrogate.metrics(state)

    def propose(self, state: Surrogate, *, key: PRNGKeyArray):
        point = surrogate.propose(self, state, _acquisition, self.initial_points, key=key)
        return point, jnp.asarray(0, jnp.int32)

    def expect(self, state: Surrogate, point: Float[Array, " component"], fidelity) -> Surrogate:
        return surrogate.expect(self, state, point, fidelity)

    def recommend(self, state: Surrogate, *, key: PRNGKeyArray) -> Float[Array, " component"]:
        return surrogate.recommend(self, state, key=key)


def _acquisition(
    method: ExpectedImprovement, state: Surrogate, belief: Posterior, points: Array, *, key
) -> Float[Array, " point"]:
    if method.incumbent == "posterior_draws":
        return noisy_improvement(belief, points, method.num_draws, key=key)
    values = belief.data.values
    if method.incumbent == "best_mean":
        values = belief.moments(belief.data.points)[0]
    best = jnp.max(jnp.where(belief.data.known, values, -jnp.inf))
    return improvement(*belief.moments(points), best)


def noisy_improvement(
    belief: Posterior, points: Float[Array, "point component"], draws: int, *, key: PRNGKeyArray
) -> Float[Array, " point"]:
    """The mean over draws of the posterior at the known points of the improvement on their best.

    A draw is one of the prior, moved by what the values say of it (Matheron's rule). Points that
    are the same, or nearly, make its covariance singular: then both the draw and what is
    conditioned on it have the jitter of the root as their noise.
    """
    data, given = belief.data, belief.hyperparameters
    known, size = data.known, data.values.shape[0]
    both = known[:, None] & known[None, :]
    inner = covariance(belief.kernel, given, data.points, data.levels, data.points, data.levels)
    inner = jnp.where(both, inner, jnp.eye(size))
    root, _ = root_of(inner)
    function_key, noise_key = jax.random.split(key)
    normal = jax.random.normal(function_key, (size, draws), jnp.float32)
    function = root @ normal.astype(inner.dtype)
    noise = jnp.exp(given.log_noise)[data.levels][:, None]
    noise = noise * jax.random.normal(noise_key, (size, draws), jnp.float32)
    residual = jnp.where(known[:, None], data.values[:, None] - function - noise, 0.0)
    moved = belief.inverse_root.T @ (belief.inverse_root @ residual)
    drawn = function + jnp.where(both, inner, 0.0) @ moved
    drawn = jnp.where(known[:, None], drawn, 0.0)
    best = jnp.max(jnp.where(known[:, None], drawn, -jnp.inf), axis=0)
    weights = triangular_solve(root, triangular_solve(root, drawn), transposed=True)
    cross = belief.cross(points)
    mean = cross @ weights
    seen = triangular_solve(root, cross.T)
    prior = prior_variance(given)
    variance = jnp.maximum(prior - jnp.sum(seen**2, axis=0), 1e-14 * prior)
    deviation = jnp.sqrt(variance)[:, None]
    return jnp.mean(improvement(mean, deviation, best[None, :]), axis=1)
