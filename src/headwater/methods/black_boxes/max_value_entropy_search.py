"""Max-value entropy search: evaluate where most is learned of how high the maximum is."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, positive
from headwater.core.method import AbstractMethod, AbstractProposer, Info
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.parts.black_boxes import surrogate
from headwater.parts.black_boxes.gaussian_process import Kernel, Posterior, root_of
from headwater.parts.black_boxes.surrogate import AbstractSurrogate, Surrogate

_END, _NODES = 8.0, 61
"""Of the integral over the noise: as exact as 1e-6, since all that is integrated is smooth."""


class MaxValueEntropySearch(
    AbstractMethod[SearchSpace, Queries, Surrogate], AbstractProposer[Surrogate], AbstractSurrogate
):
    r"""Maximises the information that an evaluation at $x$ holds on the maximum $f^*$.

    Given $f^*$ the function at $x$ is taken for a normal number cut off above it. Without noise the
    information is then the mean over draws of $f^*$ of $\gamma \varphi(\gamma) / (2 \Phi(\gamma)) -
    \log \Phi(\gamma)$ with $\gamma = (f^* - \mu(x)) / \sigma(x)$. Draws of $f^*$ are maxima of
    joint draws of the posterior at points where the maximum may be.

    **Arguments:**

    - `num_draws`: of the maximum.
    - `initial_points`: evaluations at random before the first proposal.
    - `kernel`, `hyperparameters`, `length_scale`, `signal_scale`, `noise_scale`, `fit_steps`: see
      `parts/black_boxes/surrogate.py`.

    **Reference:** Wang and Jegelka (2017), arXiv:1703.01968.

    **Differences from the paper:** joint draws at (at most) 128 points in place of random features
    or the Gumbel approximation; and the information is that of an evaluation with its noise, which
    is integrated as in Takeno et al. (2020), arXiv:1901.08275. The paper's formula is of the value
    without noise, and asks again and again at the best point, whose value is the maximum.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "wang2017max", summary="evaluate where most is learned of how high the maximum is"
    )

    num_draws: int = integer(64)
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
    method: MaxValueEntropySearch, state: Surrogate, belief: Posterior, points: Array, *, key
) -> Float[Array, " point"]:
    draw_key, point_key = jax.random.split(key)
    where = surrogate.promising(state, belief, key=point_key)
    highest = maxima(belief, where, method.num_draws, key=draw_key)
    return information(*belief.moments(points), jnp.sqrt(belief.noise), highest)


def maxima(
    belief: Posterior, where: Float[Array, "point component"], draws: int, *, key: PRNGKeyArray
) -> Float[Array, " draw"]:
    """The highest value of each joint draw of the posterior at these points."""
    root, _ = root_of(belief.joint(where, where))
    normal = jax.random.normal(key, (where.shape[0], draws), jnp.float32).astype(root.dtype)
    return jnp.max(belief.moments(where)[0][:, None] + root @ normal, axis=0)


def information(
    mean: Float[Array, " point"],
    deviation: Float[Array, " point"],
    noise: Float[Array, ""],
    highest: Float[Array, " draw"],
) -> Float[Array, " point"]:
    """What an evaluation says of the maximum, in nats, as a mean over draws of it.

    With z the evaluation and u the function there, both of unit variance and with correlation r, it
    is r² γ φ(γ) / 2Φ(γ) − log Φ(γ) + E[log w(z)] given u < γ, where w(z) = P(u < γ | z). The last
    part is nothing without noise.

    **Arguments:** `noise`: standard deviation of an evaluation.
    """
    gamma = (highest[None, :] - mean[:, None]) / deviation[:, None]
    correlation = (deviation / jnp.sqrt(deviation**2 + noise**2))[:, None]
    # What is left of u once z is known: not a difference of ones, which a small noise would drown.
    rest = (noise / jnp.sqrt(deviation**2 + noise**2))[:, None]
    norm = jax.scipy.stats.norm
    below = norm.logcdf(gamma)
    sure = 0.5 * correlation**2 * gamma * jnp.exp(norm.logpdf(gamma) - below) - below

    # Over z where noise is large and over t = (γ - r z) / rest where it is small: smooth in both.
    def over_z(z):
        log_share = norm.logcdf((gamma - correlation * z) / jnp.maximum(rest, 1e-9))
        return jnp.exp(norm.logpdf(z) + log_share - below) * log_share

    def over_t(t):
        log_share = norm.logcdf(t)
        z = (gamma - rest * t) / correlation
        density = jnp.exp(norm.logpdf(z) + log_share - below) * rest / correlation
        return density * log_share

    def integral(function):
        nodes = jnp.linspace(-_END, _END, _NODES, dtype=gamma.dtype)
        added = jax.lax.fori_loop(
            0, _NODES, lambda i, total: total + function(nodes[i]), jnp.zeros_like(gamma)
        )
        return added * (2.0 * _END / (_NODES - 1))

    unsure = jnp.where(correlation < rest, integral(over_z), integral(over_t))
    return jnp.mean(sure + unsure, axis=1)
