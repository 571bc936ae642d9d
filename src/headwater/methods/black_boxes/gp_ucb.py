"""GP-UCB: evaluate where the function could be highest."""

from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractProposer, Info
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.parts.black_boxes import surrogate
from headwater.parts.black_boxes.gaussian_process import Kernel, Posterior
from headwater.parts.black_boxes.surrogate import AbstractSurrogate, Surrogate


class GPUCB(
    AbstractMethod[SearchSpace, Queries, Surrogate], AbstractProposer[Surrogate], AbstractSurrogate
):
    r"""Maximises $\mu(x) + c \, \sigma(x)$ of a Gaussian process.

    **Arguments:**

    - `bonus_scale`: $c = \sqrt{\beta}$.
    - `initial_points`: evaluations at random before the first proposal.
    - `kernel`, `hyperparameters`, `length_scale`, `signal_scale`, `noise_scale`, `fit_steps`: see
      `parts/black_boxes/surrogate.py`.

    **Reference:** Srinivas, Krause, Kakade and Seeger (2010), arXiv:0912.3995.

    **Differences from the paper:** $c$ does not grow with the number of evaluations, as the proof
    has it grow much faster than is useful; no guarantee holds.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "srinivas2010gaussian", summary="evaluate where the function could be highest"
    )

    bonus_scale: float = non_negative(2.0)
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
    method: GPUCB, state: Surrogate, belief: Posterior, points: Array, *, key
) -> Float[Array, " point"]:
    mean, deviation = belief.moments(points)
    return mean + method.bonus_scale * deviation
