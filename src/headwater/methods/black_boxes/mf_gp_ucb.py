"""MF-GP-UCB: find out cheaply where the function cannot be high, and evaluate it elsewhere."""

from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractProposer, Info
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.parts.black_boxes import surrogate
from headwater.parts.black_boxes.gaussian_process import Kernel, Posterior
from headwater.parts.black_boxes.surrogate import AbstractSurrogate, Surrogate


class MFGPUCB(
    AbstractMethod[SearchSpace, Queries, Surrogate], AbstractProposer[Surrogate], AbstractSurrogate
):
    r"""Maximises $\min_m \mu_m(x) + c \, \sigma_m(x) + \zeta_m$, where $|f_M - f_m| \le \zeta_m$.

    Each fidelity $m$ has a Gaussian process of its own and bounds the function from above; the
    least of the bounds counts. The point is evaluated at the cheapest fidelity of which enough is
    still unknown there, $c \, \sigma_m(x) \ge \gamma_m = \zeta_m \sqrt{\lambda_m / \lambda_{m+1}}$
    with the costs $\lambda$, else at the last. Where the fidelities differ by more than is said,
    the maximum may be ruled out; where $\zeta$ is large, the cheap ones say little. Recommended is
    the point of the highest expected value among those evaluated at the last fidelity.

    **Arguments:**

    - `fidelity_gap`: by how much a fidelity and the next differ at most, in the units of values:
      $\zeta_m = (M - m)$ times it.
    - `bonus_scale`: $c = \sqrt{\beta}$.
    - `initial_points`: evaluations at random at the cheapest fidelity before the first proposal;
      half of them again at each of the others.
    - `kernel`, `hyperparameters`, `length_scale`, `signal_scale`, `noise_scale`, `fit_steps`: see
      `parts/black_boxes/surrogate.py`.

    **Reference:** Kandasamy, Dasarathy, Oliva, Schneider and Póczos (2016), arXiv:1603.06288.

    **Differences from the paper:** $c$ does not grow with the number of evaluations, the gap is
    given and not enlarged when a fidelity is used for long, and the same gap holds between each
    fidelity and the next.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "kandasamy2016multifidelity",
        summary="rule out cheaply where the function cannot be high",
        parents=("GPUCB",),
    )

    fidelity_gap: float = non_negative(0.1)
    bonus_scale: float = non_negative(2.0)
    kernel: Kernel = choice("matern52")
    hyperparameters: Literal["likelihood", "given"] = choice("likelihood")
    length_scale: float = positive(0.3)
    signal_scale: float = positive(1.0)
    noise_scale: float = positive(0.03)
    fit_steps: int = integer(30)
    initial_points: int = integer(5)

    def init(self, problem: SearchSpace, *, key: PRNGKeyArray) -> Surrogate:
        problem.require_several_fidelities(type(self).__name__, "GPUCB")
        return surrogate.begin(self, problem, independent=True)

    def update(self, state: Surrogate, data: Queries, *, key: PRNGKeyArray):
        state = surrogate.learn(self, state, data)
        return state, surrogate.metrics(state)

    def propose(self, state: Surrogate, *, key: PRNGKeyArray):
        return surrogate.propose_with_fidelity(
            self, state, _acquisition, _level, self.initial_points, key=key
        )

    def expect(self, state: Surrogate, point: Float[Array, " component"], fidelity) -> Surrogate:
        return surrogate.expect(self, state, point, fidelity)

    def recommend(self, state: Surrogate, *, key: PRNGKeyArray) -> Float[Array, " component"]:
        return surrogate.recommend_evaluated(self, state, key=key)


def _acquisition(
    method: MFGPUCB, state: Surrogate, belief: Posterior, points: Array, *, key
) -> Float[Array, " point"]:
    shift, scale = surrogate.scaling(method, state)
    levels = state.space.fidelities
    bounds = []
    for level in range(levels):
        mean, deviation = belief.moments(points, level)
        gap = (levels - 1 - level) * method.fidelity_gap
        bounds.append(shift[level] + scale[level] * (mean + method.bonus_scale * deviation) + gap)
    return jnp.min(jnp.stack(bounds), axis=0)


def _level(
    method: MFGPUCB, state: Surrogate, belief: Posterior, points: Array
) -> Int[Array, " point"]:
    """The cheapest fidelity whose bound is still wide, else the last."""
    _, scale = surrogate.scaling(method, state)
    levels, costs = state.space.fidelities, state.space.costs
    found = jnp.full(points.shape[0], levels - 1, jnp.int32)
    for level in reversed(range(levels - 1)):
        _, deviation = belief.moments(points, level)
        gap = (levels - 1 - level) * method.fidelity_gap
        enough = gap * (costs[level] / costs[level + 1]) ** 0.5
        wide = method.bonus_scale * scale[level] * deviation >= enough
        found = jnp.where(wide, level, found)
    return found
