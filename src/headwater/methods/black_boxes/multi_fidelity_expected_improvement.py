"""Expected improvement over fidelities: what is expected of an evaluation, for what it costs."""

from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, positive
from headwater.core.method import AbstractMethod, AbstractProposer, Info
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.ops.expected_improvement import improvement
from headwater.parts.black_boxes import surrogate
from headwater.parts.black_boxes.gaussian_process import Kernel, Posterior
from headwater.parts.black_boxes.surrogate import AbstractSurrogate, Surrogate


class MultiFidelityExpectedImprovement(
    AbstractMethod[SearchSpace, Queries, Surrogate], AbstractProposer[Surrogate], AbstractSurrogate
):
    r"""Maximises $EI_M(x) \, \alpha_1 \alpha_2 \, \lambda_M / \lambda_m$ over points and $m$.

    The fidelities are an autoregression $f_m = \rho f_{m-1} + \delta_m$ of Gaussian processes
    (co-kriging), so that cheap evaluations say something of the function itself. $EI_M$ is the
    expected improvement at the last fidelity on the best mean there of a point that was evaluated;
    $\alpha_1$ is the correlation of $f_m(x)$ and $f_M(x)$ after what was seen; $\alpha_2 = 1 - s /
    \sqrt{\sigma_m(x)^2 + s^2}$ with the noise $s$ is small where nothing is left to learn; and
    $\lambda$ are the costs.

    The metric `fidelity_correlation`, of the cheapest fidelity with the last before any evaluation
    but with the fitted hyperparameters, says whether cheap evaluations help: near 0 they do not.

    **Arguments:**

    - `initial_points`: evaluations at random at the cheapest fidelity before the first proposal;
      half of them again at each of the others.
    - `kernel`, `hyperparameters`, `length_scale`, `signal_scale`, `noise_scale`, `fit_steps`: see
      `parts/black_boxes/surrogate.py`.

    **Reference:** Huang, Allen, Notz and Miller (2006), Structural and Multidisciplinary
    Optimization 32(5), with the autoregression of Kennedy and O'Hagan (2000).

    **Differences from the paper:** the improvement is counted from the best mean, without a penalty
    for its deviation, and the slope of the autoregression is fitted and not 1.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "huang2006sequential",
        summary="evaluate where, and as exactly as, most improvement is expected for the cost",
        parents=("ExpectedImprovement",),
    )

    kernel: Kernel = choice("matern52")
    hyperparameters: Literal["likelihood", "given"] = choice("likelihood")
    length_scale: float = positive(0.3)
    signal_scale: float = positive(1.0)
    noise_scale: float = positive(0.03)
    fit_steps: int = integer(30)
    initial_points: int = integer(5)

    def init(self, problem: SearchSpace, *, key: PRNGKeyArray) -> Surrogate:
        problem.require_several_fidelities(type(self).__name__, "ExpectedImprovement")
        return surrogate.begin(self, problem)

    def update(self, state: Surrogate, data: Queries, *, key: PRNGKeyArray):
        state = surrogate.learn(self, state, data)
        related = surrogate.correlation(state)
        return state, {**surrogate.metrics(state), "fidelity_correlation": related}

    def propose(self, state: Surrogate, *, key: PRNGKeyArray):
        return surrogate.propose_with_fidelity(
            self, state, _acquisition, _level, self.initial_points, key=key
        )

    def expect(self, state: Surrogate, point: Float[Array, " component"], fidelity) -> Surrogate:
        return surrogate.expect(self, state, point, fidelity)

    def recommend(self, state: Surrogate, *, key: PRNGKeyArray) -> Float[Array, " component"]:
        return surrogate.recommend(self, state, key=key)


def _acquisition(
    method: MultiFidelityExpectedImprovement,
    state: Surrogate,
    belief: Posterior,
    points: Array,
    *,
    key,
) -> Float[Array, " point"]:
    known, _ = belief.moments(belief.data.points)
    best = jnp.max(jnp.where(belief.data.known, known, -jnp.inf))
    gain = improvement(*belief.moments(points), best)
    return gain * jnp.max(_worth(state, belief, points), axis=0)


def _level(
    method: MultiFidelityExpectedImprovement, state: Surrogate, belief: Posterior, points: Array
) -> Int[Array, " point"]:
    """The fidelity of the highest worth, the first of those."""
    worth = _worth(state, belief, points)
    top = worth == jnp.max(worth, axis=0)[None, :]
    # JAX lowers the argmax of numbers of 64 bits only where these are enabled everywhere.
    levels = jnp.arange(worth.shape[0], dtype=jnp.int32)[:, None]
    return jnp.min(jnp.where(top, levels, worth.shape[0]), axis=0)


def _worth(state: Surrogate, belief: Posterior, points: Array) -> Float[Array, "fidelity point"]:
    """α₁ α₂ λ_M / λ_m of each fidelity."""
    costs, noises = state.space.costs, jnp.exp(belief.hyperparameters.log_noise)
    _, last = belief.moments(points)
    found = []
    for level, cost in enumerate(costs):
        _, deviation = belief.moments(points, level)
        related = jnp.abs(belief.with_last(points, level)) / (deviation * last)
        unknown = 1.0 - noises[level] / jnp.sqrt(deviation**2 + noises[level] ** 2)
        found.append(jnp.minimum(related, 1.0) * unknown * costs[-1] / cost)
    return jnp.stack(found)
