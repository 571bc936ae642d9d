"""The knowledge gradient: evaluate where the best expected value is expected to rise by most."""

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
from headwater.parts.black_boxes.gaussian_process import Kernel, Posterior
from headwater.parts.black_boxes.surrogate import AbstractSurrogate, Surrogate

_Lines = Float[Array, " line"]


class KnowledgeGradient(
    AbstractMethod[SearchSpace, Queries, Surrogate], AbstractProposer[Surrogate], AbstractSurrogate
):
    r"""Maximises $E[\max_j \mu_{n+1}(x_j)] - \max_j \mu_n(x_j)$ over where to evaluate next.

    After an evaluation at $x$ the mean at $x_j$ is $\mu_n(x_j) + \tilde\sigma_j(x) Z$ with a
    standard normal $Z$ and $\tilde\sigma_j(x) = \mathrm{Cov}(x_j, x) / \sqrt{\mathrm{Var}(x) +
    \sigma^2}$: lines, whose highest one has an exact mean. It looks at what is learned of all
    points and not only of the one that is evaluated, and so needs no incumbent under noise.

    **Arguments:**

    - `expectation`: the exact mean, or that over `num_draws` draws of $Z$, the same for all points.
    - `num_draws`: where it is sampled.
    - `initial_points`: evaluations at random before the first proposal.
    - `kernel`, `hyperparameters`, `length_scale`, `signal_scale`, `noise_scale`, `fit_steps`: see
      `parts/black_boxes/surrogate.py`.

    **Reference:** Frazier (2018), arXiv:1807.02811, section 4.2, with Frazier, Powell and Dayanik
    (2009).

    **Differences from the paper:** in a box, and where there are many candidates, the maxima are
    over the 128 points of the highest mean and deviation and the point itself.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "frazier2018tutorial",
        summary="evaluate where the best expected value is expected to rise by most",
        parents=("ExpectedImprovement",),
    )

    expectation: Literal["exact", "sampled"] = choice("exact")
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
    method: KnowledgeGradient, state: Surrogate, belief: Posterior, points: Array, *, key
) -> Float[Array, " point"]:
    draw_key, line_key = jax.random.split(key)
    lines = surrogate.promising(state, belief, key=line_key)
    draws = None
    if method.expectation == "sampled":
        normal = jax.random.normal(draw_key, (method.num_draws,), jnp.float32)
        draws = normal.astype(points.dtype)
    return knowledge_gradient(belief, points, lines, draws)


def knowledge_gradient(
    belief: Posterior,
    points: Float[Array, "point component"],
    lines: Float[Array, "line component"],
    draws: Float[Array, " draw"] | None = None,
) -> Float[Array, " point"]:
    """By how much the best expected value rises, in expectation, with an evaluation at each point.

    **Arguments:** `lines`: the points among which the best is sought, beside the one itself;
    `draws`: of a standard normal number, for a mean over them and not the exact one.
    """
    mean, deviation = belief.moments(points)
    level, _ = belief.moments(lines)
    spread = jnp.sqrt(deviation**2 + belief.noise)
    slopes = belief.joint(lines, points).T / spread[:, None]
    own = deviation**2 / spread

    def one(given):
        mean, own, slopes = given
        heights = jnp.concatenate([level, mean[None]])
        slopes = jnp.concatenate([slopes, own[None]])
        now = jnp.max(heights)
        if draws is None:
            return mean_of_highest(heights - now, slopes)
        return jnp.mean(jnp.max(heights[:, None] + slopes[:, None] * draws[None, :], 0)) - now

    return jax.lax.map(one, (mean, own, slopes), batch_size=64)


def mean_of_highest(heights: _Lines, slopes: _Lines) -> Float[Array, ""]:
    """E[max_j (a_j + b_j Z)] of a standard normal Z, exact.

    Line j is the highest between the last crossing with a flatter line that is above it before, and
    the first with a steeper one; of lines that are the same, the first counts.
    """
    above = heights[:, None] - heights[None, :]
    steeper = slopes[None, :] - slopes[:, None]
    crossing = above / jnp.where(steeper == 0.0, 1.0, steeper)
    first = jnp.max(jnp.where(steeper < 0.0, crossing, -jnp.inf), axis=1)
    last = jnp.min(jnp.where(steeper > 0.0, crossing, jnp.inf), axis=1)
    order = jnp.arange(heights.shape[0])
    earlier = (above == 0.0) & (order[None, :] < order[:, None])
    hidden = jnp.any((steeper == 0.0) & ((above < 0.0) | earlier), axis=1)
    shown = (first < last) & ~hidden
    norm = jax.scipy.stats.norm
    share = norm.cdf(last) - norm.cdf(first)
    gain = norm.pdf(first) - norm.pdf(last)
    return jnp.sum(jnp.where(shown, heights * share + slopes * gain, 0.0))
