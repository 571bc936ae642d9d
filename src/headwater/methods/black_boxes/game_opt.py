"""GameOpt: evaluate where no single component would rather change."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractProposer, Info
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.parts.black_boxes import surrogate
from headwater.parts.black_boxes.gaussian_process import SAME, Kernel, Posterior, in_double
from headwater.parts.black_boxes.surrogate import AbstractSurrogate, Surrogate

_LEAST_GAIN = 1e-9
"""A change that raises the bound by less is none: rounding does as much."""
_MOST_MOVES = 1_000
_MOST_CHANGES = 10_000


class GameOpt(
    AbstractMethod[SearchSpace, Queries, Surrogate], AbstractProposer[Surrogate], AbstractSurrogate
):
    r"""Maximises $\mu(x) + c \, \sigma(x)$ over combinations that are too many to list.

    Each component is a player, all of them with this bound as their payoff. From several starts
    the single change that raises it most is made again and again until none does: that is a Nash
    equilibrium of the game. The equilibrium of the highest bound that was not evaluated yet comes
    next; where all of them were, the best single change of one.

    A component is a whole number, whose values are taken for names: with `kernel="hamming"` how far
    apart two of them are says nothing.

    **Arguments:**

    - `bonus_scale`: $c = \sqrt{\beta}$.
    - `maximiser`: `equilibria`, or for comparison `neighbours`, the single changes of the best
      point so far, or `pool`, points drawn at random.
    - `num_restarts`: half of them are the best points so far, others random (all, in the paper).
    - `pool_size`: points of the pool.
    - `initial_points`: evaluations at random before the first proposal.
    - `kernel`, `hyperparameters`, `length_scale`, `signal_scale`, `noise_scale`, `fit_steps`: see
      `parts/black_boxes/surrogate.py`.

    **Reference:** Bal, Sessa, Mutný and Krause (2025), arXiv:2409.18582.

    **Differences from the paper:** equilibria are found by best responses alone, not by Hedge, and
    with one component a player. Of a batch each point is chosen after those before it were taken to
    bring their means; the authors' code takes the best single changes of all equilibria together.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "bal2025optimistic",
        summary="evaluate where no single component would rather change",
        parents=("GPUCB",),
    )

    bonus_scale: float = non_negative(2.0)
    maximiser: Literal["equilibria", "neighbours", "pool"] = choice("equilibria")
    num_restarts: int = integer(8)
    pool_size: int = integer(500)
    kernel: Kernel = choice("hamming")
    hyperparameters: Literal["likelihood", "given"] = choice("likelihood")
    length_scale: float = positive(0.7)
    signal_scale: float = positive(1.0)
    noise_scale: float = positive(0.03)
    fit_steps: int = integer(30)
    initial_points: int = integer(5)

    def init(self, problem: SearchSpace, *, key: PRNGKeyArray) -> Surrogate:
        problem.require_one_fidelity("GameOpt")
        if problem.candidates is not None or not (problem.whole and all(problem.whole)):
            raise SpecificationError(
                "GameOpt plays a game of components with finitely many values each: make all "
                "components whole numbers, and give no candidates"
            )
        changes = sum(_sizes(problem))
        if changes > _MOST_CHANGES:
            raise SpecificationError(
                f"GameOpt tries all values of each component: {changes:,} are more than "
                f"{_MOST_CHANGES:,}"
            )
        return surrogate.begin(self, problem)

    def update(self, state: Surrogate, data: Queries, *, key: PRNGKeyArray):
        state = surrogate.learn(self, state, data)
        return state, surrogate.metrics(state)

    def propose(self, state: Surrogate, *, key: PRNGKeyArray):
        random_key, search_key = jax.random.split(key)
        found = jnp.where(
            state.count < self.initial_points,
            surrogate.random_points(state.space, 1, key=random_key)[0],
            _proposed(self, state, search_key),
        )
        return found, jnp.asarray(0, jnp.int32)

    def expect(self, state: Surrogate, point: Float[Array, " component"], fidelity) -> Surrogate:
        return surrogate.expect(self, state, point, fidelity)

    def recommend(self, state: Surrogate, *, key: PRNGKeyArray) -> Float[Array, " component"]:
        return _recommended(self, state, key)


@in_double
def gain(method: GameOpt, state: Surrogate, point: Float[Array, " component"]) -> Array:
    """By how much the best single change of `point` raises the bound: 0 at an equilibrium."""
    belief, bonus = surrogate.posterior(method, state), method.bonus_scale
    changed = _bound(belief, single_changes(state.space, point.astype(jnp.float64)), bonus)
    return jnp.max(changed) - _bound(belief, point[None].astype(jnp.float64), bonus)[0]


def single_changes(
    space: SearchSpace, point: Float[Array, " component"]
) -> Float[Array, "change component"]:
    """All points that differ from `point` in one component at most, in the unit cube."""
    sizes = _sizes(space)
    component = np.repeat(np.arange(len(sizes)), sizes)
    value = np.concatenate([np.arange(size) / max(size - 1, 1) for size in sizes])
    same = np.arange(len(sizes))[None, :] != component[:, None]
    return jnp.where(same, point[None, :], jnp.asarray(value, point.dtype)[:, None])


@in_double
def _proposed(method: GameOpt, state: Surrogate, key: PRNGKeyArray):
    belief, bonus = surrogate.posterior(method, state), method.bonus_scale
    if method.maximiser == "pool":
        points = surrogate.random_points(state.space, method.pool_size, key=key)
    elif method.maximiser == "neighbours":
        points = single_changes(state.space, _best_known(state, 1)[0])
    else:
        points = _equilibria(method, state, belief, bonus, key)
    points = points.astype(jnp.float64)
    bound, new = _bound(belief, points, bonus), ~_evaluated(state, points)
    # Of the best one where all were evaluated.
    near = single_changes(state.space, surrogate.highest(points, bound))
    near_bound = jnp.where(_evaluated(state, near), -jnp.inf, _bound(belief, near, bonus))
    found = surrogate.highest(points, jnp.where(new, bound, -jnp.inf))
    return jnp.where(jnp.any(new), found, surrogate.highest(near, near_bound))


@in_double
def _recommended(method: GameOpt, state: Surrogate, key: PRNGKeyArray):
    belief = surrogate.posterior(method, state)
    points = _equilibria(method, state, belief, 0.0, key)
    return surrogate.highest(points, belief.moments(points)[0])


def _equilibria(
    method: GameOpt, state: Surrogate, belief: Posterior, bonus, key: PRNGKeyArray
) -> Float[Array, "start component"]:
    """Where best responses end, from each start."""
    known = min(max(method.num_restarts // 2, 1), state.space.capacity)
    random = surrogate.random_points(state.space, method.num_restarts, key=key)
    place = jnp.arange(method.num_restarts, dtype=jnp.int32)[:, None]
    best = random.at[:known].set(_best_known(state, known))
    begin = jnp.where(place < jnp.minimum(known, state.count), best, random)

    def improved(given):
        points, _, moves = given
        changed = jax.vmap(lambda point: single_changes(state.space, point))(points)
        bound = _bound(belief, changed.reshape(-1, state.space.size), bonus)
        bound = bound.reshape(changed.shape[:2])
        better = jnp.max(bound, axis=1) > _bound(belief, points, bonus) + _LEAST_GAIN
        best = jax.vmap(surrogate.highest)(changed, bound)
        return jnp.where(better[:, None], best, points), jnp.any(better), moves + 1

    first = begin.astype(jnp.float64), jnp.asarray(True), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(lambda x: x[1] & (x[2] < _MOST_MOVES), improved, first)[0]


def _best_known(state: Surrogate, count: int) -> Float[Array, "count component"]:
    """The points of the highest values so far; where there are fewer, any rows of the table."""
    value = jnp.where(_known(state), state.value, -jnp.inf)
    return state.point[jax.lax.top_k(value, count)[1]]


def _evaluated(state: Surrogate, points: Float[Array, "point component"]) -> Bool[Array, " point"]:
    same = jnp.all(jnp.abs(points[:, None, :] - state.point[None, :, :]) <= SAME, axis=2)
    return jnp.any(same & _known(state)[None, :], axis=1)


def _known(state: Surrogate) -> Bool[Array, " room"]:
    return jnp.arange(state.value.shape[0], dtype=jnp.int32) < state.count


def _bound(belief: Posterior, points: Float[Array, "point component"], bonus) -> Array:
    mean, deviation = belief.moments(points)
    return mean + bonus * deviation


def _sizes(space: SearchSpace) -> list[int]:
    """How many values each component has."""
    return [round(high - low) + 1 for low, high in zip(space.low, space.high)]
