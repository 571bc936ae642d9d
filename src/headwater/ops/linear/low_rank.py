"""Learning transitions that factor, `P[t](s'|s, a) = feature(s, a) · measure[t](s')`, from counts.

The features are common to all tasks and the measures are each task's own, so the likelihood is
maximised over all tasks together. Both rows of features and measures are distributions. All
functions here are about one step of an episode; `jax.vmap` takes all steps at once.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.fields import check_choice
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.records import Episodes
from headwater.ops.linear.elliptical import covariance, elliptical_bonus
from headwater.ops.tabular.counts import Counts, count, count_at
from headwater.ops.tabular.planning import occupancy, optimal_values

Oracle = Literal["mixture", "softmax"]
"""Features are one of `rank` kinds (`fit_mixture`), or mixtures of them (`fit_softmax`)."""


class Factors(eqx.Module):
    """Transitions of one step, or of all steps along a leading axis.

    **Arguments:** `feature`: common to all tasks; `measure`: each task's own.
    """

    feature: Float[Array, "*step state action rank"]
    measure: Float[Array, "*step task rank state"]


def require_rank(rank: int, problem: FiniteProblem, method: str) -> None:
    """Raises `SpecificationError` if `rank` features are none, or more than can be told apart."""
    pairs = problem.states * problem.actions
    if not 1 <= rank <= pairs:
        raise SpecificationError(
            f"{method}: rank = {rank} does not fit a problem of {pairs} pairs of state and action: "
            f"it must be from 1 to {pairs}"
        )


def first_factors(rank: int, tasks: int, problem: FiniteProblem, *, key: PRNGKeyArray) -> Factors:
    """Kinds drawn at random and uniform measures, for all steps: before any data."""
    kind = jax.random.randint(key, problem.sizes, 0, rank)
    measure = jnp.full(
        (problem.horizon, tasks, rank, problem.states), 1.0 / problem.states, jnp.float32
    )
    return Factors(jax.nn.one_hot(kind, rank, dtype=jnp.float32), measure)


def transitions(factors: Factors) -> Float[Array, "task horizon state action state"]:
    """The model that the factors of all steps make."""
    return jnp.einsum("hsaf,htfn->thsan", factors.feature, factors.measure)


def fit_steps(
    following: Float[Array, "task horizon state action state"],
    previous: Factors,
    *,
    oracle: Oracle,
    smoothing: float | Float[Array, ""],
    restarts: int,
    key: PRNGKeyArray,
) -> Factors:
    """The likeliest factors of all steps, each step by itself.

    **Arguments:** `following`: how often each next state was seen; `previous`: factors to start one
    of the searches from; `oracle`: over which factors; `smoothing`: added to the count of every
    next state where a measure is estimated; `restarts`: searches from random starts; `key`.
    """
    check_choice(oracle, Oracle, "oracle")
    fit = fit_mixture if oracle == "mixture" else fit_softmax
    keys = jax.random.split(key, following.shape[1])

    def one(following, previous, key):
        return fit(following, previous, smoothing=smoothing, restarts=restarts, key=key)

    return jax.vmap(one, in_axes=(1, 0, 0))(following, previous, keys)


def fit_mixture(
    following: Float[Array, "task state action state"],
    previous: Factors,
    *,
    smoothing: float | Float[Array, ""],
    restarts: int,
    soft_steps: int = 20,
    hard_steps: int = 20,
    key: PRNGKeyArray,
) -> Factors:
    """The likeliest one-hot features: pairs of state and action are sorted into `rank` kinds.

    Expectation maximisation for a mixture of multinomials, whose observations are the pairs with
    their counts in all tasks; first with uncertain kinds, then with the likeliest. Starts are those
    of k-means++. A pair that was never tried gets a kind at random, anew at every call: it has to
    look unknown now and then, or nothing would ever lead to it.

    **Arguments:** as for `fit_steps`; `soft_steps`, `hard_steps`: of expectation maximisation.
    """
    tasks, states, actions, _ = following.shape
    rank, pairs = previous.feature.shape[-1], states * actions
    rows = jnp.moveaxis(following, 0, 2).reshape(pairs, tasks, states)
    weight = jnp.sum(rows, axis=(1, 2))
    # All random numbers at once: every draw of its own would be compiled on its own.
    uniform = jax.random.uniform(key, (restarts * rank + 1, pairs), minval=1e-12)
    starts = jax.vmap(lambda drawn: _scattered_kinds(row_distances(rows), weight, drawn))(
        uniform[1:].reshape(restarts, rank, pairs)
    )
    responsibilities = jnp.concatenate(
        [jax.nn.one_hot(starts, rank), previous.feature.reshape(1, pairs, rank)]
    )

    def step(responsibilities, is_soft):
        soft, scores = expect(rows, *maximise(rows, responsibilities, smoothing))
        hard = jax.nn.one_hot(jnp.argmax(scores, axis=-1), rank)
        return jnp.where(is_soft, soft, hard), None

    def search(responsibilities):
        responsibilities = jax.lax.scan(
            step, responsibilities, jnp.arange(soft_steps + hard_steps) < soft_steps
        )[0]
        measure, share = maximise(rows, responsibilities, smoothing)
        responsibilities, scores = expect(rows, measure, share)
        kind = jnp.argmax(scores, axis=-1)
        return kind, measure, jnp.sum(jnp.max(scores, axis=-1))

    kinds, measures, likelihood = jax.vmap(search)(responsibilities)
    best = jnp.argmax(likelihood)
    kind = jnp.where(weight > 0.0, kinds[best], jnp.floor(uniform[0] * rank).astype(jnp.int32))
    feature = jax.nn.one_hot(kind, rank).reshape(states, actions, rank)
    return Factors(feature, jnp.moveaxis(measures[best], 0, 1))


def fit_softmax(
    following: Float[Array, "task state action state"],
    previous: Factors,
    *,
    smoothing: float | Float[Array, ""],
    restarts: int,
    steps: int = 400,
    learning_rate: float = 0.1,
    key: PRNGKeyArray,
) -> Factors:
    """The likeliest features that are distributions over kinds, by Adam on softmax factors.

    Every pair of state and action is a mixture of kinds here. Smoothing enters as a uniform share
    of the measures, of the weight that it would have beside an average kind's counts. A pair that
    was never tried gets a kind at random.

    **Arguments:** as for `fit_steps`; `steps`, `learning_rate`: of Adam.
    """
    tasks, states, actions, _ = following.shape
    rank = previous.feature.shape[-1]
    rows = jnp.moveaxis(following, 0, 2).reshape(states * actions, tasks, states)
    weight = jnp.sum(rows, axis=(1, 2))
    total = jnp.maximum(jnp.sum(weight), 1.0)
    added = smoothing * states * rank * tasks
    share = added / (total + added)
    feature_key, measure_key, tie_key = jax.random.split(key, 3)
    earlier = (
        jnp.log(previous.feature.reshape(1, states * actions, rank) + 1e-2),
        jnp.log(jnp.moveaxis(previous.measure, 0, 1)[None] + 1e-6),
    )
    drawn = (
        jax.random.normal(feature_key, (restarts, states * actions, rank)),
        jax.random.normal(measure_key, (restarts, rank, tasks, states)),
    )
    first = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), drawn, earlier)
    optimiser = optax.adam(learning_rate)

    def factors(parameters):
        feature, measure = (jax.nn.softmax(x, axis=-1) for x in parameters)
        return feature, (1.0 - share) * measure + share / states

    def loss(parameters):
        feature, measure = factors(parameters)
        model = (feature @ measure.reshape(rank, -1)).reshape(rows.shape)
        return -jnp.sum(rows * jnp.log(model)) / total

    def search(parameters):
        def step(carry, _):
            parameters, memory = carry
            change, memory = optimiser.update(jax.grad(loss)(parameters), memory)
            return (optax.apply_updates(parameters, change), memory), None

        start = parameters, optimiser.init(parameters)
        parameters = jax.lax.scan(step, start, length=steps)[0][0]
        return parameters, loss(parameters)

    found, losses = jax.vmap(search)(first)
    feature, measure = factors(jax.tree.map(lambda x: x[jnp.argmin(losses)], found))
    random = jax.nn.one_hot(jax.random.randint(tie_key, (states * actions,), 0, rank), rank)
    feature = jnp.where(weight[:, None] > 0.0, feature, random)
    return Factors(feature.reshape(states, actions, rank), jnp.moveaxis(measure, 0, 1))


def log_likelihoods(
    rows: Float[Array, "pair task state"], measure: Float[Array, "rank task state"]
) -> Float[Array, "pair rank"]:
    """Log-likelihood of the counts of every pair under every kind."""
    rank = measure.shape[0]
    return rows.reshape(rows.shape[0], -1) @ jnp.log(measure).reshape(rank, -1).T


def maximise(
    rows: Float[Array, "pair task state"],
    responsibilities: Float[Array, "pair rank"],
    smoothing: float | Float[Array, ""],
) -> tuple[Float[Array, "rank task state"], Float[Array, " rank"]]:
    """Measures and shares of the kinds, given the responsibilities of each pair to be of each kind.

    `smoothing` is added to the count of every next state, and of every kind.
    """
    times = (responsibilities.T @ rows.reshape(rows.shape[0], -1)).reshape(
        -1, *rows.shape[1:]
    ) + smoothing
    tried = jnp.sum(rows, axis=(1, 2)) > 0.0
    pairs = jnp.sum(jnp.where(tried[:, None], responsibilities, 0.0), axis=0) + smoothing
    return times / jnp.sum(times, axis=-1, keepdims=True), pairs / jnp.sum(pairs)


def expect(
    rows: Float[Array, "pair task state"],
    measure: Float[Array, "rank task state"],
    share: Float[Array, " rank"],
) -> tuple[Float[Array, "pair rank"], Float[Array, "pair rank"]]:
    """Chances of each pair to be of each kind, and the log-likelihoods that they come from.

    The log-likelihood of the pairs whose kinds are not known is the sum over tried pairs of
    `logsumexp(log_likelihoods + log(share))`; with the logarithms of what smoothing added, it never
    decreases from one step of expectation maximisation to the next.
    """
    scores = log_likelihoods(rows, measure)
    return jax.nn.softmax(scores + jnp.log(share)[None], axis=-1), scores


def row_distances(rows: Float[Array, "pair task state"]) -> Float[Array, "pair pair"]:
    """Squared Hellinger distances between the frequencies of pairs, in the tasks that know both.

    Tasks weigh as the geometric mean of the two numbers of visits. Pairs that no task has in common
    are as far from each other as can be: one.
    """
    roots = jnp.sqrt(rows).reshape(rows.shape[0], -1)
    visits = jnp.sqrt(jnp.sum(rows, axis=-1))
    together = visits @ visits.T
    alike = roots @ roots.T
    return 1.0 - jnp.where(together > 0.0, alike / jnp.where(together > 0.0, together, 1.0), 0.0)


def _scattered_kinds(
    distance: Float[Array, "pair pair"],
    weight: Float[Array, " pair"],
    uniform: Float[Array, "rank pair"],
) -> Int[Array, " pair"]:
    """The nearest of `rank` pairs, each drawn by weight and distance to those drawn before it."""
    # The largest of logarithms with Gumbel noise is a draw; where nothing was seen, of anything.
    noise = -jnp.log(-jnp.log(uniform))
    weights = jnp.log(weight + 1e-12)

    def another(nearest, noise):
        centre = jnp.argmax(weights + jnp.log(jnp.maximum(nearest, 1e-6)) + noise)
        return jnp.minimum(nearest, distance[centre]), distance[centre]

    to_centres = jax.lax.scan(another, jnp.ones_like(weight), noise)[1]
    return jnp.argmin(to_centres, axis=0)


# Exploring --------------------------------------------------------------------------------------


def exploring_policies(
    policy: Float[Array, "horizon state action"], *, episodes: int
) -> Float[Array, "episodes target horizon state action"]:
    """For each step, its target, a policy that follows `policy` up to two steps before it.

    The action of the step before and all later ones are uniform.
    """
    horizon, _, actions = policy.shape
    step, target = jnp.arange(horizon)[None], jnp.arange(horizon)[:, None]
    follows: Bool[Array, "target horizon"] = step < target - 1
    each = jnp.where(follows[:, :, None, None], policy[None], 1.0 / actions)
    return jnp.broadcast_to(each[None], (episodes, *each.shape))


def count_targets(
    counts: Counts, data: Episodes, problem: FiniteProblem, *, back: int = 0
) -> Counts:
    """Adds of each episode the one step that it was played for.

    Episodes that do not have the axes of `exploring_policies` were not played for a step: all of
    their steps are added.

    **Arguments:** `back`: add the step this many before the target instead, where there is one.
    """
    horizon = data.action.shape[-1]
    if data.action.ndim != 3 or data.action.shape[1] != horizon:
        return count(counts, data, problem)
    target = jnp.arange(back, horizon)
    step = target - back
    state, action = data.state[:, target, step], data.action[:, target, step]
    reward, following = data.reward[:, target, step], data.state[:, target, step + 1]
    steps = jnp.broadcast_to(step, action.shape)
    return count_at(counts, steps, state, action, reward, following, problem)


def task_bonuses(
    feature: Float[Array, "horizon state action rank"],
    visits: Int[Array, "task horizon state action"],
    scale: float | Float[Array, ""],
    ridge: float | Float[Array, ""],
    *,
    highest: float = 1.0,
) -> Float[Array, "task horizon state action"]:
    """Elliptical bonuses of each task and step.

    **Arguments:** `feature`; `visits`: how often each pair of state and action was seen; `scale`,
    `ridge`: of the bonus and of the covariance; `highest`: what no bonus exceeds.
    """

    def one(feature, visits):
        matrix = covariance(feature, visits.astype(feature.dtype), ridge=ridge)
        return elliptical_bonus(feature, matrix, scale=scale, highest=highest)

    return jax.vmap(jax.vmap(one), in_axes=(None, 0))(feature, visits)


def plan_jointly(
    transition: Float[Array, "task horizon state action state"],
    bonus: Float[Array, "task horizon state action"],
    initial: Float[Array, "task state"],
    *,
    rounds: int,
) -> tuple[Float[Array, "task horizon state action"], Float[Array, " round"]]:
    r"""Policies of large pseudo-cumulative value, and its value after each round.

    The value $\sum_{h < H} \sqrt{\sum_t (E_{P^t, \pi^t} b^t_h)^2}$ is convex in how often the
    policies visit what they visit. A round linearises it there, which gives each task and step the
    weight $E b / \sqrt{\sum_t (E b)^2}$, and plans every task for its weighted bonus: no round
    lowers the value. The last step's bonus does not count, since nothing follows it.
    """
    tasks, horizon = bonus.shape[:2]
    counted = bonus.at[:, -1].set(0.0)
    first = jnp.full((tasks, horizon), 1.0 / jnp.sqrt(tasks))

    def plan(transition, reward, initial):
        process = FiniteProcess(transition, reward, initial)
        policy = optimal_values(process).policy
        return policy, occupancy(process, policy)

    def one(carry, _):
        weight, best, policies = carry
        found, visited = jax.vmap(plan)(transition, weight[:, :, None, None] * counted, initial)
        expected = jnp.sum(visited * counted, axis=(2, 3))
        length = jnp.sqrt(jnp.sum(jnp.square(expected), axis=0))
        value = jnp.sum(length)
        # Rounding could undo what the argument promises.
        better = value > best
        policies = jnp.where(better, found, policies)
        weight = expected / jnp.maximum(length, 1e-12)[None]
        return (weight, jnp.maximum(value, best), policies), value

    start = first, jnp.full((), -1.0, jnp.float32), jnp.zeros_like(bonus)
    (_, _, policies), values = jax.lax.scan(one, start, length=rounds)
    return policies, values
