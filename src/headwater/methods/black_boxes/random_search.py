"""Random search: evaluate anywhere, and recommend what looks best to a Gaussian process."""

from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, positive
from headwater.core.method import AbstractMethod, AbstractProposer, Info
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.parts.black_boxes import surrogate
from headwater.parts.black_boxes.gaussian_process import Kernel
from headwater.parts.black_boxes.surrogate import AbstractSurrogate, Surrogate


class RandomSearch(
    AbstractMethod[SearchSpace, Queries, Surrogate], AbstractProposer[Surrogate], AbstractSurrogate
):
    """Evaluates points drawn uniformly: the baseline that everything else has to beat.

    What it recommends is found as the others find it, so that only the choice of points differs.

    **Arguments:**

    - `kernel`, `hyperparameters`, `length_scale`, `signal_scale`, `noise_scale`, `fit_steps`: see
      `parts/black_boxes/surrogate.py`.

    **Reference:** Bergstra and Bengio (2012), Journal of Machine Learning Research 13.

    **Differences from the paper:** the points are of the unit cube on which the methods beside it
    search, and what is recommended has the best mean of a Gaussian process, not the best value.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info("bergstra2012random", summary="evaluate anywhere: the baseline")

    kernel: Kernel = choice("matern52")
    hyperparameters: Literal["likelihood", "given"] = choice("likelihood")
    length_scale: float = positive(0.3)
    signal_scale: float = positive(1.0)
    noise_scale: float = positive(0.03)
    fit_steps: int = integer(30)

    def init(self, problem: SearchSpace, *, key: PRNGKeyArray) -> Surrogate:
        problem.require_one_fidelity(type(self).__name__)
        return surrogate.begin(self, problem)

    def update(self, state: Surrogate, data: Queries, *, key: PRNGKeyArray):
        state = surrogate.learn(self, state, data)
        return state, surrogate.metrics(state)

    def propose(self, state: Surrogate, *, key: PRNGKeyArray):
        return surrogate.random_points(state.space, 1, key=key)[0], jnp.asarray(0, jnp.int32)

    def expect(self, state: Surrogate, point: Float[Array, " component"], fidelity) -> Surrogate:
        return state

    def recommend(self, state: Surrogate, *, key: PRNGKeyArray) -> Float[Array, " component"]:
        return surrogate.recommend(self, state, key=key)
