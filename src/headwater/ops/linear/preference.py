"""Preferences between two trajectories: the Bradley–Terry likelihood of a linear reward.

A reward is `⟨weights, φ⟩`. A feature map of a finite process is an array `[step, state, action,
feature]`, and a trajectory's features are the sum over its steps. Of two trajectories the first is
preferred with probability `sigmoid(reward(first) - reward(second))`, so that everything depends on
`difference`, the first's features less the second's.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.records import EpisodeComparisons, Episodes
from headwater.ops.linear.elliptical import elliptical_norm
from headwater.ops.linear_algebra import cholesky, cholesky_solve, symmetric_eigen
from headwater.ops.tabular.planning import occupancy, optimal_values

FeatureMap = Float[Array, "horizon state action feature"]


def feature_map(problem: FiniteProblem) -> FeatureMap:
    """The problem's features; if it has none, one for each step, state and action."""
    if problem.features is not None:
        return problem.features
    size = problem.horizon * problem.states * problem.actions
    return jnp.eye(size).reshape(*problem.sizes, size)


def step_features(problem: FiniteProblem) -> FeatureMap:
    """The problem's features; if it has none, one for each state and action, in every step."""
    if problem.features is not None:
        return problem.features
    size = problem.states * problem.actions
    one_hot = jnp.eye(size).reshape(problem.states, problem.actions, size)
    return jnp.broadcast_to(one_hot, (problem.horizon, *one_hot.shape))


def one_block_each_step(features: FeatureMap) -> Float[Array, "horizon state action block"]:
    """The features of the steps one beside the other, so that every step has weights of its own.

    A step's features come to stand in its own block of `horizon * feature`, zeros elsewhere.
    """
    horizon, states, actions, size = features.shape
    own = jnp.eye(horizon)[:, None, None, :, None] * features[:, :, :, None, :]
    return own.reshape(horizon, states, actions, horizon * size)


def trajectory_features(episodes: Episodes, features: FeatureMap) -> Float[Array, "*batch feature"]:
    """Sum over the steps of each episode. Raises `SpecificationError` if horizons differ."""
    if episodes.action.shape[-1] != features.shape[0]:
        raise SpecificationError(
            f"episodes have {episodes.action.shape[-1]} steps, but the features are for "
            f"{features.shape[0]}"
        )
    step = jnp.broadcast_to(jnp.arange(features.shape[0]), episodes.action.shape)
    return jnp.sum(features[step, episodes.state[..., :-1], episodes.action], axis=-2)


def expected_features(
    process: FiniteProcess, policy: Float[Array, "horizon state action"], features: FeatureMap
) -> Float[Array, " feature"]:
    """Expected features of an episode of `policy`, exact."""
    return jnp.einsum("hsa,hsaf->f", occupancy(process, policy), features)


def difference_of(
    data: EpisodeComparisons, features: FeatureMap
) -> tuple[Float[Array, "row feature"], Bool[Array, " row"]]:
    """What every comparison compares, and whether its first episode was preferred; one by row."""
    difference = trajectory_features(data.first, features)
    difference -= trajectory_features(data.second, features)
    preferred = jnp.asarray(data.first_preferred).reshape(-1)
    return difference.reshape(-1, features.shape[-1]), preferred


def expected_disagreement(
    difference: Float[Array, "row feature"],
    precision: Float[Array, "feature feature"],
    scale: float | Float[Array, ""],
) -> Float[Array, " row"]:
    r"""By how much two rewards, drawn at random, disagree about a comparison on average.

    $E|\langle\Delta, \theta - \theta'\rangle| = (2/\sqrt\pi)\,\sigma\,\|\Delta\|_{\Lambda^{-1}}$
    for two independent draws from $N(\hat\theta, \sigma^2 \Lambda^{-1})$.

    **Arguments:** `difference`: Δ; `precision`: Λ, positive definite; `scale`: σ.
    """
    return 2.0 / jnp.sqrt(jnp.pi) * scale * elliptical_norm(difference, precision)


# Likelihood -------------------------------------------------------------------------------------


def log_likelihood(
    weights: Float[Array, " feature"],
    difference: Float[Array, "row feature"],
    first_preferred: Bool[Array, " row"],
    queried: Float[Array, " row"] | None = None,
) -> Float[Array, ""]:
    """Of all comparisons, added up. `queried`: how much each counts; one if left out."""
    margin = jnp.where(first_preferred, 1.0, -1.0) * (difference @ weights)
    each = jax.nn.log_sigmoid(margin)
    return jnp.sum(each if queried is None else queried * each)


def score(
    weights: Float[Array, " feature"],
    difference: Float[Array, "row feature"],
    first_preferred: Bool[Array, " row"],
    queried: Float[Array, " row"] | None = None,
) -> Float[Array, " feature"]:
    """Gradient of `log_likelihood` with respect to the weights."""
    surprise = first_preferred.astype(difference.dtype) - jax.nn.sigmoid(difference @ weights)
    return (surprise if queried is None else queried * surprise) @ difference


def information(
    weights: Float[Array, " feature"],
    difference: Float[Array, "row feature"],
    queried: Float[Array, " row"] | None = None,
) -> Float[Array, "feature feature"]:
    """Minus the Hessian of `log_likelihood`, which does not depend on the answers."""
    chance = jax.nn.sigmoid(difference @ weights)
    curvature = chance * (1.0 - chance)
    each = curvature if queried is None else queried * curvature
    return (difference * each[:, None]).T @ difference


def most_likely(
    difference: Float[Array, "row feature"],
    first_preferred: Bool[Array, " row"],
    queried: Float[Array, " row"] | None = None,
    *,
    ridge: float | Float[Array, ""],
    norm_bound: float | Float[Array, ""] | None = None,
    start: Float[Array, " feature"] | None = None,
    steps: int = 20,
) -> Float[Array, " feature"]:
    """The weights that make the comparisons most likely, by Newton's method.

    Maximises the log-likelihood less `ridge / 2` times the squared norm. With a bound, every step
    maximises the second-order model over the ball exactly; a step is shortened by halves to the
    length that is best. Both are concave, so that the maximum is the only one.

    **Arguments:** `queried`: how much each row counts; `ridge`: above zero, since separable
    comparisons have no maximum otherwise; `norm_bound`: largest Euclidean norm of the weights;
    `start`: inside of the bound, zero if left out; `steps`: Newton's, with few needed after a warm
    start.
    """
    size = difference.shape[-1]
    lengths = 0.5 ** jnp.arange(12.0)

    def objective(weights):
        penalty = 0.5 * ridge * jnp.sum(jnp.square(weights))
        return log_likelihood(weights, difference, first_preferred, queried) - penalty

    def one(_, weights):
        hessian = information(weights, difference, queried)
        slope = hessian @ weights + score(weights, difference, first_preferred, queried)
        target = _highest_in_ball(hessian + ridge * jnp.eye(size), slope, norm_bound)
        tried = weights[None] + lengths[:, None] * (target - weights)[None]
        values = jax.vmap(objective)(tried)
        best = jnp.argmax(values)
        return jnp.where(values[best] >= objective(weights), tried[best], weights)

    return jax.lax.fori_loop(0, steps, one, jnp.zeros(size) if start is None else start)


def _highest_in_ball(
    hessian: Float[Array, "feature feature"],
    slope: Float[Array, " feature"],
    norm_bound: float | Float[Array, ""] | None,
) -> Float[Array, " feature"]:
    """The maximum of `⟨slope, x⟩ - xᵀ hessian x / 2` over the ball, exact."""
    if norm_bound is None:
        return cholesky_solve(cholesky(hessian), slope)
    values, vectors = symmetric_eigen(hessian)
    along = vectors.T @ slope

    def norm(multiplier):
        return jnp.linalg.norm(along / (values + multiplier))

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        outside = norm(middle) > norm_bound
        return jnp.where(outside, middle, low), jnp.where(outside, high, middle)

    # The norm falls with the multiplier and is below the bound at |slope| / bound.
    bracket = jnp.zeros(()), jnp.linalg.norm(slope) / norm_bound
    multiplier = jax.lax.fori_loop(0, 40, halve, bracket)[1]
    multiplier = jnp.where(norm(0.0) <= norm_bound, 0.0, multiplier)
    return vectors @ (along / (values + multiplier))


# Design -----------------------------------------------------------------------------------------

_ASCENTS = 8
"""Steps of the search for a pair; it stands still after about four."""


def informative_pairs(
    model: FiniteProcess,
    features: FeatureMap,
    count: int,
    *,
    ridge: float | Float[Array, ""],
    restarts: int,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "pair 2 horizon state action"], Float[Array, ""]]:
    r"""Pairs of policies whose expected features differ where least is known, one after the other.

    Each maximises $\|\Delta\|_{\Sigma^{-1}}$, the difference of expected features, and then
    $\Delta\Delta^\top$ is added to $\Sigma$. That is a convex function, so that what is found is a
    local maximum: from several directions $w$ come the best and the worst policy for the reward
    $\langle w, \phi\rangle$, planned exactly, then $w = \Sigma^{-1}\Delta$, and so on; no such
    step lowers the norm.

    **Arguments:** `model`: its rewards do not matter; `count`: pairs; `ridge`: of the first Σ, a
    multiple of the identity; `restarts`: directions from which each pair is sought; `key`: what
    they are drawn from, those in which little is known more often.

    **Returns:** the pairs, and the norm of the last.
    """

    def apart(direction):
        best, worst = (
            optimal_values(FiniteProcess(model.transition, reward, model.initial)).policy
            for reward in (features @ direction, -(features @ direction))
        )
        gap = expected_features(model, best, features)
        return jnp.stack([best, worst]), gap - expected_features(model, worst, features)

    def one(inverse, key):
        def climb(direction):
            direction = jax.lax.fori_loop(
                0, _ASCENTS, lambda _, direction: inverse @ apart(direction)[1], direction
            )
            return apart(direction)

        root = cholesky(inverse)
        pairs, gaps = jax.vmap(climb)(jax.random.normal(key, (restarts, size)) @ root.T)
        lengths = jnp.einsum("rf,fg,rg->r", gaps, inverse, gaps)
        best = jnp.argmax(lengths)
        towards = inverse @ gaps[best]
        inverse -= jnp.outer(towards, towards) / (1.0 + lengths[best])
        return inverse, (pairs[best], jnp.sqrt(jnp.maximum(lengths[best], 0.0)))

    size = features.shape[-1]
    keys = jax.random.split(key, count)
    pairs, lengths = jax.lax.scan(one, jnp.eye(size) / ridge, keys)[1]
    return pairs, lengths[-1]


# Remembered answers -----------------------------------------------------------------------------


class Answers(eqx.Module):
    """Comparisons that a judge was asked about, up to as many as there is room for.

    **Arguments:** `difference`, `first_preferred`: zero beyond `count`.
    """

    difference: Float[Array, "room feature"]
    first_preferred: Bool[Array, " room"]
    count: Int[Array, ""]

    @property
    def queried(self) -> Float[Array, " room"]:
        """One for rows that are filled, zero for the others."""
        return (jnp.arange(self.first_preferred.shape[0]) < self.count).astype(jnp.float32)


def no_answers(room: int, features: int) -> Answers:
    """Before anything was asked. Raises `SpecificationError` for room for fewer than one."""
    if room < 1:
        raise SpecificationError(f"query_budget = {room} must be at least one")
    return Answers(jnp.zeros((room, features)), jnp.zeros(room, bool), jnp.zeros((), jnp.int32))


def add_answers(
    answers: Answers,
    difference: Float[Array, "row feature"],
    first_preferred: Bool[Array, " row"],
    ask: Bool[Array, " row"],
) -> Answers:
    """Adds the rows where `ask`, in their order, as long as there is room."""
    room = answers.first_preferred.shape[0]
    place = answers.count + jnp.cumsum(ask) - 1
    # Rows that are not asked about, or find no room, go beyond the end and are dropped there.
    place = jnp.where(ask, place, room)
    return Answers(
        answers.difference.at[place].set(difference, mode="drop"),
        answers.first_preferred.at[place].set(first_preferred, mode="drop"),
        jnp.minimum(answers.count + jnp.sum(ask, dtype=jnp.int32), room),
    )
