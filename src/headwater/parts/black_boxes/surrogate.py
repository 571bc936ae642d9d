"""What is believed of a black box after some evaluations, and where an acquisition is highest.

State and what is returned are in single precision; the arithmetic between is in double.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.parts.black_boxes.gaussian_process import (
    MOST_OBSERVATIONS,
    Evaluations,
    Hyperparameters,
    Kernel,
    Posterior,
    condition,
    fit,
    in_double,
    prior_correlation,
)

Acquisition = Callable[..., Float[Array, " point"]]
"""What a further evaluation is worth at each point.

A function of the method, its state, the posterior, points `[point, component]` and `key=`. It
closes over no arrays, as it is computed `in_double`.
"""

Level = Callable[..., Int[Array, " point"]]
"""The fidelity to evaluate at: a function of the method, its state, the posterior and points."""

_WIDE, _LOCAL, _KEPT, _ROUNDS = 512, 32, 4, 6
"""Points tried anywhere; then, around each of so many of the best, points in each of the rounds."""
_FIRST_STEP, _SHRINKING = 0.1, 0.4
_LENGTH_SPREAD, _SIGNAL_SPREAD, _NOISE_SPREAD, _SLOPE_SPREAD = 1.0, 0.5, 2.0, 0.5
"""Standard deviations of the priors of logarithms, and of slopes around one."""
_LINES = 128


class AbstractSurrogate(eqx.Module):
    """Settings of the Gaussian process that methods share.

    **Arguments:** `kernel`; `hyperparameters`: the most probable ones, of values that are scaled to
    mean zero and standard deviation one, or those that are `given` for the values as they are;
    `length_scale`: in the unit cube, `signal_scale`, `noise_scale`: standard deviations of the
    function and of an evaluation; where hyperparameters are fitted these are the medians of their
    priors, and the length grows with the root of the number of components; `fit_steps`: of Adam,
    from each of two starts.
    """

    kernel: eqx.AbstractVar[Kernel]
    hyperparameters: eqx.AbstractVar[str]
    length_scale: eqx.AbstractVar[float]
    signal_scale: eqx.AbstractVar[float]
    noise_scale: eqx.AbstractVar[float]
    fit_steps: eqx.AbstractVar[int]


class Surrogate(eqx.Module):
    """The evaluations so far, in a table with room for all, and the fitted hyperparameters.

    **Arguments:** `independent`: of several fidelities, each says nothing of the others.
    """

    space: SearchSpace
    point: Float[Array, "room component"]
    value: Float[Array, " room"]
    fidelity: Int[Array, " room"]
    count: Int[Array, ""]
    fitted: Hyperparameters
    jitter: Float[Array, ""]
    independent: bool = eqx.field(static=True, default=False)


def begin(
    settings: AbstractSurrogate, problem: SearchSpace, *, independent: bool = False
) -> Surrogate:
    """Before any evaluation.

    **Arguments:** `independent`: a process for each fidelity by itself, and not an autoregression.

    Raises `SpecificationError` if there may be more than exact inference should take.
    """
    problem.require_room(type(settings).__name__, MOST_OBSERVATIONS)
    room = problem.capacity
    return Surrogate(
        problem,
        jnp.zeros((room, problem.size)),
        jnp.zeros(room),
        jnp.zeros(room, jnp.int32),
        jnp.zeros((), jnp.int32),
        _single(_prior(settings, problem, independent)[0][0]),
        jnp.zeros(()),
        independent,
    )


def learn(settings: AbstractSurrogate, state: Surrogate, data: Queries) -> Surrogate:
    """After the evaluations of a batch, as far as they are finite and there is room."""
    state = added(state, data)
    return eqx.tree_at(lambda s: (s.fitted, s.jitter), state, _fit(settings, state))


@in_double
def _fit(settings: AbstractSurrogate, state: Surrogate):
    table, fitted = evaluations(settings, state), _double(state.fitted)
    if settings.hyperparameters == "likelihood":
        starts, spread = _prior(settings, state.space, state.independent)
        fitted = fit(settings.kernel, starts, spread, table, settings.fit_steps)
    return fitted, condition(settings.kernel, fitted, table).jitter


def metrics(state: Surrogate) -> dict[str, Float[Array, ""]]:
    """What is logged of the process: jitter is a share of the diagonal, 0 where none was needed."""
    return {
        "jitter": state.jitter,
        "noise": jnp.exp(state.fitted.log_noise[-1]),
        "best_value": best_value(state),
        "room": (state.space.capacity - state.count).astype(jnp.float32),
    }


def correlation(state: Surrogate) -> Float[Array, ""]:
    """Of the function at the cheapest fidelity and at the last, as the hyperparameters have it."""
    return prior_correlation(state.fitted)


def added(state: Surrogate, data: Queries) -> Surrogate:
    """With further evaluations in the table; hyperparameters stay.

    Those whose value is not finite are left out, as are those that there is no room for.
    """
    good = jnp.isfinite(data.value)
    place = state.count + jnp.cumsum(good.astype(jnp.int32)) - 1
    rows = jnp.where(good, place, state.space.capacity)
    return eqx.tree_at(
        lambda s: (s.point, s.value, s.fidelity, s.count),
        state,
        (
            state.point.at[rows].set(data.point, mode="drop"),
            state.value.at[rows].set(data.value, mode="drop"),
            state.fidelity.at[rows].set(data.fidelity, mode="drop"),
            jnp.minimum(state.count + jnp.sum(good, dtype=jnp.int32), state.space.capacity),
        ),
    )


def best_value(state: Surrogate) -> Float[Array, ""]:
    """The highest value so far at the last fidelity, 0 before the first."""
    known = _known(state) & (state.fidelity == state.space.fidelities - 1)
    return jnp.where(jnp.any(known), jnp.max(jnp.where(known, state.value, -jnp.inf)), 0.0)


def evaluations(settings: AbstractSurrogate, state: Surrogate) -> Evaluations:
    """The table in double precision, with values scaled where hyperparameters are fitted."""
    shift, scale = scaling(settings, state)
    values = (state.value.astype(jnp.float64) - shift[state.fidelity]) / scale[state.fidelity]
    return Evaluations(state.point.astype(jnp.float64), state.fidelity, values, _known(state))


def scaling(
    settings: AbstractSurrogate, state: Surrogate
) -> tuple[Float[Array, " fidelity"], Float[Array, " fidelity"]]:
    """What is taken off the values at each fidelity, and what they are divided by.

    A fidelity of fewer than two different values has the numbers of all of them together.
    """
    levels = state.space.fidelities
    if settings.hyperparameters == "given":
        return jnp.zeros(levels, jnp.float64), jnp.ones(levels, jnp.float64)
    known = _known(state)[None, :]
    each = state.fidelity[None, :] == jnp.arange(levels, dtype=jnp.int32)[:, None]
    mean, deviation = _moments(state, (each & known).astype(jnp.float64))
    all_mean, all_deviation = _moments(state, known.astype(jnp.float64))
    told = deviation > 0.0
    deviation = jnp.where(told, deviation, all_deviation)
    return jnp.where(told, mean, all_mean), jnp.where(deviation > 0.0, deviation, 1.0)


def _moments(state: Surrogate, chosen: Float[Array, "lot point"]):
    """Mean and standard deviation of the values in each lot."""
    values, count = state.value.astype(jnp.float64), jnp.maximum(jnp.sum(chosen, axis=1), 1.0)
    mean = chosen @ values / count
    squares = jnp.sum(chosen * (values[None, :] - mean[:, None]) ** 2, axis=1)
    return mean, jnp.sqrt(squares / count)


def posterior(settings: AbstractSurrogate, state: Surrogate) -> Posterior:
    """What is believed, of values in the units of `evaluations`."""
    return condition(settings.kernel, _double(state.fitted), evaluations(settings, state))


def propose(
    settings: AbstractSurrogate,
    state: Surrogate,
    acquisition: Acquisition,
    initial_points: int,
    *,
    key: PRNGKeyArray,
) -> Float[Array, " component"]:
    """The point where `acquisition` is highest; random before `initial_points` evaluations."""
    random_key, acquisition_key, search_key = jax.random.split(key, 3)
    # Both, since what is `in_double` cannot be mapped in one branch of a `cond` that is mapped.
    return jnp.where(
        state.count < initial_points,
        random_points(state.space, 1, key=random_key)[0],
        _search(settings, state, acquisition, acquisition_key, search_key),
    )


def propose_with_fidelity(
    settings: AbstractSurrogate,
    state: Surrogate,
    acquisition: Acquisition,
    level: Level,
    initial_points: int,
    *,
    key: PRNGKeyArray,
) -> tuple[Float[Array, " component"], Int[Array, ""]]:
    """The point where `acquisition` is highest, and the fidelity that `level` says for it.

    Before that: `initial_points` at random at the cheapest fidelity, then the first half of them
    at each of the others, so that what the fidelities have in common can be told.
    """
    random_key, acquisition_key, search_key = jax.random.split(key, 3)
    rest = -(-initial_points // 2)
    later = jnp.maximum(state.count - initial_points, 0)
    again = jnp.minimum(later % rest, state.space.capacity - 1)
    first = state.count < initial_points
    begin = jnp.where(first, random_points(state.space, 1, key=random_key)[0], state.point[again])
    begin_level = jnp.where(first, 0, 1 + later // rest).astype(jnp.int32)
    found = _search(settings, state, acquisition, acquisition_key, search_key)
    found_level = _level_at(settings, state, level, found)
    beginning = state.count < initial_points + (state.space.fidelities - 1) * rest
    return (
        jnp.where(beginning, begin, found),
        jnp.where(beginning, begin_level, jnp.round(found_level).astype(jnp.int32)),
    )


@in_double
def _level_at(settings, state, level, point):
    belief = posterior(settings, state)
    return level(settings, state, belief, point[None].astype(jnp.float64))[0]


def recommend(
    settings: AbstractSurrogate, state: Surrogate, *, key: PRNGKeyArray
) -> Float[Array, " component"]:
    """The point of the highest expected value, whether it was evaluated or not."""
    return _search(settings, state, _expected, key, key)


def recommend_evaluated(
    settings: AbstractSurrogate, state: Surrogate, *, key: PRNGKeyArray
) -> Float[Array, " component"]:
    """The point of the highest expected value among those evaluated at the last fidelity.

    Before there is one: anywhere. For processes of each fidelity by itself, of which the last sees
    so few points, all near each other, that its mean is highest where nothing is known.
    """
    known = _known(state) & (state.fidelity == state.space.fidelities - 1)
    best = jnp.argmax(jnp.where(known, _expected_at_known(settings, state), -jnp.inf))
    anywhere = recommend(settings, state, key=key)
    return jnp.where(jnp.any(known), state.point[best].astype(anywhere.dtype), anywhere)


@in_double
def _expected_at_known(settings, state):
    return posterior(settings, state).moments(state.point.astype(jnp.float64))[0]


@in_double
def _search(settings, state, acquisition, acquisition_key, search_key):
    belief = posterior(settings, state)

    def score(points):
        return acquisition(settings, state, belief, points, key=acquisition_key)

    return maximiser(state, score, key=search_key)


def _expected(settings, state, belief: Posterior, points, *, key):
    return belief.moments(points)[0]


def expect(
    settings: AbstractSurrogate, state: Surrogate, point: Float[Array, " component"], fidelity
) -> Surrogate:
    """The state as if `point` had brought its expected value."""
    fidelity = jnp.asarray(fidelity, jnp.int32)
    value = _value_there(settings, state, point, fidelity)
    return added(state, Queries(point[None], value[None], fidelity[None], jnp.zeros(1)))


@in_double
def _value_there(settings, state, point, fidelity):
    shift, scale = scaling(settings, state)
    belief, where = posterior(settings, state), point[None].astype(jnp.float64)
    each = [belief.moments(where, level)[0][0] for level in range(state.space.fidelities)]
    return shift[fidelity] + scale[fidelity] * jnp.stack(each)[fidelity]


def random_points(
    space: SearchSpace, count: int, *, key: PRNGKeyArray
) -> Float[Array, "count component"]:
    """Points of the space, uniformly."""
    candidates = space.unit_candidates
    if candidates is None:
        return jnp.asarray(space.rounded(jax.random.uniform(key, (count, space.size), jnp.float32)))
    return candidates[jax.random.randint(key, (count,), 0, candidates.shape[0], jnp.int32)]


def maximiser(
    state: Surrogate,
    score: Callable[[Float[Array, "point component"]], Float[Array, " point"]],
    *,
    key: PRNGKeyArray,
) -> Float[Array, " component"]:
    """The point of the space whose score is highest, as far as a search finds it.

    All candidates where there are some; otherwise points anywhere and the known ones, then rounds
    of ever closer points around the best.
    """
    space = state.space
    candidates = space.unit_candidates
    if candidates is not None:
        points = candidates.astype(jnp.float64)
        return highest(points, score(points))
    wide_key, *round_keys = jax.random.split(key, 1 + _ROUNDS)
    steps = _FIRST_STEP * _SHRINKING ** jnp.arange(_ROUNDS, dtype=jnp.float64)
    pool = _anywhere(state, key=wide_key).astype(jnp.float64)

    def best_of(points):
        return points[jax.lax.top_k(score(points), _KEPT)[1]]

    def closer(best, given):
        key, size = given
        size_key, mask_key = jax.random.split(key)
        shape = (_KEPT, _LOCAL, space.size)
        step = size * jax.random.normal(size_key, shape, jnp.float32)
        # Half of the points change in half of their components only.
        all_of_it = (jnp.arange(_LOCAL) % 2 == 0)[None, :, None]
        moved = (jax.random.uniform(mask_key, shape, jnp.float32) < 0.5) | all_of_it
        near = jnp.clip(best[:, None, :] + jnp.where(moved, step, 0.0), 0.0, 1.0)
        return best_of(jnp.concatenate([best, space.rounded(near).reshape(-1, space.size)])), None

    return jax.lax.scan(closer, best_of(pool), (jnp.stack(round_keys), steps))[0][0]


def highest(
    points: Float[Array, "point component"], scores: Float[Array, " point"]
) -> Float[Array, " component"]:
    """The point of the highest score, the first of those."""
    # JAX lowers the argmax of numbers of 64 bits only where these are enabled everywhere.
    hit = (scores == jnp.max(scores)).astype(jnp.int32)
    return points[jax.lax.argmax(hit, 0, jnp.int32)]


def promising(
    state: Surrogate, belief: Posterior, *, key: PRNGKeyArray
) -> Float[Array, "line component"]:
    """A few points among which the maximum may well be: those of high mean and deviation."""
    points = state.space.unit_candidates
    if points is None:
        points = _anywhere(state, key=key)
    points = points.astype(jnp.float64)
    if points.shape[0] <= _LINES:
        return points
    mean, deviation = belief.moments(points)
    return points[jax.lax.top_k(mean + deviation, _LINES)[1]]


def _anywhere(state: Surrogate, *, key: PRNGKeyArray) -> Float[Array, "point component"]:
    """Random points of the space, of which the evaluated ones take the place of some."""
    points = random_points(state.space, _WIDE + state.space.capacity, key=key)
    first = jnp.where(_known(state)[:, None], state.point, points[: state.space.capacity])
    return jnp.concatenate([first, points[state.space.capacity :]])


def _known(state: Surrogate):
    return jnp.arange(state.value.shape[0], dtype=jnp.int32) < state.count


def _prior(
    settings: AbstractSurrogate, space: SearchSpace, independent: bool
) -> tuple[list[Hyperparameters], Hyperparameters]:
    """Where fitting starts, first of all in the middle of the prior, and the prior's spread."""
    levels, size = space.fidelities, space.size
    fitted = settings.hyperparameters == "likelihood"

    def log(number):
        return jnp.log(jnp.asarray(number, jnp.result_type(float)))

    length = log(settings.length_scale) + (0.5 * log(size) if fitted else 0.0)
    middle = Hyperparameters(
        jnp.broadcast_to(length, (levels, size)),
        jnp.broadcast_to(log(settings.signal_scale), (levels,)),
        jnp.broadcast_to(log(settings.noise_scale), (levels,)),
        jnp.full(levels - 1, 0.0 if independent else 1.0),
    )
    short = eqx.tree_at(lambda h: h.log_length, middle, middle.log_length - 1.5)
    spread = Hyperparameters(
        jnp.full((levels, size), _LENGTH_SPREAD),
        jnp.full(levels, _SIGNAL_SPREAD),
        jnp.full(levels, _NOISE_SPREAD),
        jnp.full(levels - 1, 0.0 if independent else _SLOPE_SPREAD),
    )
    return [middle, short], spread


def _double(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64), tree)


def _single(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)
