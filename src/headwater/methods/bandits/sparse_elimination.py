"""Elimination of sparse weights, for rewards that are linear but for an error."""

import functools
import itertools
import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, positive
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.parts.bandits.linear_arms import inputs_of

_MOST_CANDIDATES = 500_000


class SparseEliminationState(eqx.Module):
    """How far rewards were from what each candidate predicts, at most, over the tolerance."""

    excess: Float[Array, " candidate"]


class SparseElimination(
    AbstractMethod[Arms, Pulls, SparseEliminationState],
    AbstractArmPolicy[SparseEliminationState],
):
    r"""Believes the most hopeful weights of a sparse net, until a reward contradicts them.

    The candidates are weights $\theta$ of which $s$ are not zero, on a grid of the ball of radius
    $B$. Of those that are left the one with the largest $\max_a \langle \theta, x_a \rangle$ is
    taken and its best arm pulled; candidates whose prediction for this arm differs from the reward
    by more than $\tau$ are deleted. Either the arm is as good as was hoped, and is pulled for
    ever, or at least this candidate goes. Let every reward be within $\varepsilon$ of
    $\langle \theta^*, x_a \rangle$, the features of length one at most, and the steps of the grid
    at most $\varepsilon / \sqrt s$: then with $\tau = 2 \varepsilon$ the candidate next to
    $\theta^*$ is never deleted, and the last arm is at most $3.5 \varepsilon$ worse than the best.
    If all candidates are contradicted, those that are least so are left.

    Rewards have no noise, or an arm is pulled in batches: within a batch the mean difference of
    all pulls of one arm is judged.

    **Arguments:**

    - `support_size`: $s$; the candidates grow as $d^s$ for $d$ features.
    - `grid_size`: numbers from $-B$ to $B$ that a weight may be.
    - `norm_bound`: $B$.
    - `tolerance`: $\tau$.
    - `candidates`: `sparse`, or `arms`: the features of the arms of the round themselves, for
      weights that may be dense, of which a net would be exponentially large.

    **Reference:** Dong and Yang (2023), arXiv:2303.16998.

    **Differences from the paper:** the procedure is a reconstruction from its bound on queries.
    """

    feed: ClassVar[Feed] = Feed.PULLS
    info: ClassVar[Info] = Info(
        "dong2023does", summary="elimination of sparse weights for nearly linear rewards"
    )

    support_size: int = integer(1)
    grid_size: int = integer(11, low=2)
    norm_bound: float = positive(1.0)
    tolerance: float = positive(0.4)
    candidates: Literal["sparse", "arms"] = choice("sparse")

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> SparseEliminationState:
        size = problem.require_features("SparseElimination") * (1 + problem.context_size)
        if self.candidates == "arms":
            return SparseEliminationState(jnp.zeros(problem.arms))
        if self.support_size > size:
            raise SpecificationError(
                f"SparseElimination.support_size = {self.support_size}: arms have only {size} "
                "features, those multiplied with the context among them"
            )
        count = math.comb(size, self.support_size) * self.grid_size**self.support_size
        if count > _MOST_CANDIDATES:
            raise SpecificationError(
                f"SparseElimination would keep {count:,} candidates, and more than "
                f"{_MOST_CANDIDATES:,} take too long: choose a smaller support_size or grid_size"
            )
        net = _net(size, self.support_size, self.grid_size)[0]
        return SparseEliminationState(jnp.zeros(len(net)))

    def update(self, state: SparseEliminationState, data: Pulls, *, key: PRNGKeyArray):
        inputs = jax.vmap(inputs_of)(data.context, data.features)
        own = jnp.take_along_axis(inputs, data.arm[:, None, None], axis=1)
        predicted = jax.vmap(self._predictions)(own, inputs)[:, 0]
        same = (data.arm[:, None] == data.arm[None, :]).astype(jnp.float32)
        errors = same @ (data.reward[:, None] - predicted) / jnp.sum(same, axis=1)[:, None]
        worst = jnp.max(jnp.abs(errors), axis=0) / self.tolerance
        state = SparseEliminationState(jnp.maximum(state.excess, worst))
        return state, {"candidates_left": jnp.sum(state.excess <= 1.0).astype(jnp.float32)}

    def probabilities(
        self, state: SparseEliminationState, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        inputs = inputs_of(context, features)
        predicted = self._predictions(inputs, inputs)
        left = state.excess <= jnp.maximum(1.0, jnp.min(state.excess))
        hopeful = jnp.argmax(jnp.where(left, jnp.max(predicted, axis=0), -jnp.inf))
        return jax.nn.one_hot(jnp.argmax(predicted[:, hopeful]), features.shape[0])

    def _predictions(
        self, inputs: Float[Array, "some size"], arms: Float[Array, "arm size"]
    ) -> Float[Array, "some candidate"]:
        """What each candidate predicts for each row of `inputs`, in a round with these `arms`."""
        if self.candidates == "arms":
            return self.norm_bound * inputs @ arms.T
        support, values = _net(inputs.shape[1], self.support_size, self.grid_size)
        terms = (inputs[:, places] * weights[None] for places, weights in zip(support.T, values.T))
        return self.norm_bound * sum(terms, jnp.zeros((inputs.shape[0], len(support))))


@functools.cache
def _net(size: int, support_size: int, grid_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and values `[candidate, support]` of weights that cover the unit ball's sparse ones.

    A point of the ball may round to one outside of it, by half a step in each of its numbers.
    """
    grid = np.linspace(-1.0, 1.0, grid_size, dtype=np.float32)
    values = np.asarray(list(itertools.product(grid, repeat=support_size)), np.float32)
    outside = math.sqrt(support_size) / (grid_size - 1)
    values = values[np.linalg.norm(values, axis=1) <= 1.0 + outside + 1e-6]
    support = np.asarray(list(itertools.combinations(range(size), support_size)), np.int32)
    return np.repeat(support, len(values), axis=0), np.tile(values, (len(support), 1))
