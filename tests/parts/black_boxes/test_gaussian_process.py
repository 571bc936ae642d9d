"""Gaussian processes against plain linear algebra in NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from headwater.core.errors import SpecificationError
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.methods.black_boxes.gp_ucb import GPUCB
from headwater.parts.black_boxes import surrogate
from headwater.parts.black_boxes.gaussian_process import (
    Evaluations,
    Hyperparameters,
    condition,
    covariance,
    double_precision,
    fit,
    in_double,
    root_of,
)


def matern(distance):
    scaled = np.sqrt(5.0) * distance
    return (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled)


def plain_covariance(one, other, length, signal):
    apart = np.linalg.norm((one[:, None] - other[None]) / length, axis=-1)
    return signal**2 * matern(apart)


def table(rows=12, room=17, levels=1, seed=0):
    """A table with some rows that are not known and hold nonsense."""
    draw = np.random.default_rng(seed)
    points, values = draw.uniform(size=(room, 2)), draw.normal(size=room)
    level = draw.integers(levels, size=room).astype(np.int32)
    return Evaluations(*map(jnp.asarray, (points, level, values, np.arange(room) < rows)))


def one_level(length=(0.4, 0.7), signal=1.3, noise=0.1):
    return Hyperparameters(
        jnp.log(jnp.asarray([length])), jnp.log(jnp.asarray([signal])),
        jnp.log(jnp.asarray([noise])), jnp.zeros(0),
    )  # fmt: skip


@pytest.fixture
def double():
    with double_precision():
        yield


def test_the_posterior_is_that_of_plain_algebra(double):
    data, given = table(), one_level()
    belief = condition("matern52", given, data)
    asked = jnp.asarray(np.random.default_rng(1).uniform(size=(5, 2)))
    mean, deviation = belief.moments(asked)
    assert mean.dtype == np.float64 and belief.jitter == 0.0
    points, values = np.asarray(data.points)[:12], np.asarray(data.values)[:12]
    length = np.array([0.4, 0.7])
    inverse = np.linalg.inv(plain_covariance(points, points, length, 1.3) + 0.01 * np.eye(12))
    cross = plain_covariance(np.asarray(asked), points, length, 1.3)
    np.testing.assert_allclose(mean, cross @ inverse @ values, rtol=1e-10, atol=1e-12)
    prior = plain_covariance(np.asarray(asked), np.asarray(asked), length, 1.3)
    after = prior - cross @ inverse @ cross.T
    np.testing.assert_allclose(deviation**2, np.diag(after), rtol=1e-9)
    np.testing.assert_allclose(belief.joint(asked, asked), after, rtol=1e-8, atol=1e-10)


def test_the_fit_climbs_the_likelihood_that_scipy_knows(double):
    draw = np.random.default_rng(2)
    points = draw.uniform(size=(30, 1))
    true = plain_covariance(points, points, 0.2, 1.0) + 0.05**2 * np.eye(30)
    values = np.linalg.cholesky(true) @ draw.normal(size=30)
    data = Evaluations(
        jnp.asarray(points), jnp.zeros(30, jnp.int32), jnp.asarray(values), jnp.ones(30, bool)
    )
    start = one_level((1.0,), 1.0, 0.3)
    wide = jax.tree.map(lambda x: jnp.full_like(x, 100.0), start)

    def likelihood(given):
        length, signal, noise = (
            float(jnp.exp(x).ravel()[0])
            for x in (given.log_length, given.log_signal, given.log_noise)
        )
        matrix = plain_covariance(points, points, length, signal) + noise**2 * np.eye(30)
        return multivariate_normal(np.zeros(30), matrix).logpdf(values)

    found = fit("matern52", [start], wide, data, 200)
    best = likelihood(found)
    assert best > likelihood(one_level((0.2,), 1.0, 0.05)) > likelihood(start)
    # Nothing near is better: it is a maximum.
    for leaf in range(3):
        for change in (-0.1, 0.1):
            leaves, tree = jax.tree.flatten(found)
            leaves[leaf] = leaves[leaf] + change
            assert likelihood(jax.tree.unflatten(tree, leaves)) < best + 1e-3


def test_fidelities_are_an_autoregression(double):
    given = Hyperparameters(
        jnp.log(jnp.asarray([[0.4], [0.3], [0.2]])), jnp.log(jnp.asarray([1.0, 0.5, 0.2])),
        jnp.zeros(3), jnp.asarray([2.0, -1.5]),
    )  # fmt: skip
    draw = np.random.default_rng(3)
    points, levels = draw.uniform(size=(7, 1)), draw.integers(3, size=7).astype(np.int32)
    # f0 = d0, f1 = 2 f0 + d1, f2 = -1.5 f1 + d2, each written in the independent parts.
    parts = np.array([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [-3.0, -1.5, 1.0]])[levels]
    each = [plain_covariance(points, points, n, s) for n, s in ((0.4, 1.0), (0.3, 0.5), (0.2, 0.2))]
    expected = sum(np.outer(parts[:, i], parts[:, i]) * each[i] for i in range(3))
    where = jnp.asarray(points), jnp.asarray(levels)
    np.testing.assert_allclose(
        covariance("matern52", given, *where, *where), expected, rtol=1e-10, atol=1e-12
    )


def test_jitter_is_none_where_none_is_needed_and_reported_where_it_is(double):
    good = jnp.asarray(np.diag([1.0, 1e-6]))
    root, jitter = root_of(good)
    assert jitter == 0.0
    np.testing.assert_allclose(root @ root.T, good, rtol=1e-12)
    root, jitter = root_of(jnp.ones((40, 40)))
    assert jitter >= 1e-10 and bool(jnp.all(jnp.isfinite(root)))
    np.testing.assert_allclose(root @ root.T, jnp.ones((40, 40)) + float(jitter) * jnp.eye(40))


def test_a_method_reports_the_jitter_of_a_singular_matrix():
    """The same point twice, and values that are exact."""
    space = SearchSpace((0.0,), (1.0,), capacity=6)
    method = GPUCB(hyperparameters="given", noise_scale=1e-12)
    state = method.init(space, key=jax.random.key(0))
    half = jnp.full((2, 1), 0.5)
    twice = Queries(half, jnp.ones(2), jnp.zeros(2, jnp.int32), jnp.ones(2))
    _, metrics = method.update(state, twice, key=jax.random.key(0))
    assert metrics["jitter"] >= 1e-10
    apart = Queries(jnp.asarray([[0.2], [0.7]]), *jax.tree.leaves(twice)[1:])
    _, metrics = method.update(state, apart, key=jax.random.key(0))
    assert metrics["jitter"] == 0.0


def test_it_interpolates_where_single_precision_cannot():
    """Forty exact values of a smooth function: in single precision the matrix is singular."""
    points = np.linspace(0.0, 1.0, 40, dtype=np.float32)[:, None]
    values = np.sin(6.0 * points[:, 0])
    apart = (points - points.T).astype(np.float32) / np.float32(0.3)
    single = np.exp(-0.5 * apart**2) + np.float32(1e-8) * np.eye(40, dtype=np.float32)
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(single)
    method = GPUCB(hyperparameters="given", kernel="squared_exponential", noise_scale=1e-4)
    state = method.init(SearchSpace((0.0,), (1.0,), capacity=40), key=jax.random.key(0))
    data = Queries(jnp.asarray(points), jnp.asarray(values), jnp.zeros(40, jnp.int32), jnp.ones(40))
    state = surrogate.learn(method, state, data)
    asked = jnp.linspace(0.01, 0.99, 23)[:, None]
    with double_precision():
        belief = surrogate.posterior(method, state)
        mean, deviation = belief.moments(asked.astype(jnp.float64))
    assert state.jitter == 0.0
    np.testing.assert_allclose(mean, np.sin(6.0 * np.asarray(asked[:, 0])), atol=2e-4)
    assert np.max(np.asarray(deviation)) < 2e-4


def test_the_maximum_is_sought_at_points_that_differ():
    """Of a table that is nearly empty, the places that are free are no points."""
    space = SearchSpace((0.0, 0.0), (1.0, 1.0), capacity=200)
    method = GPUCB(hyperparameters="given", length_scale=0.5)
    state = method.init(space, key=jax.random.key(0))
    # The least that is known is known of the corner opposite to it, where free places are zeros.
    corner = Queries(jnp.ones((1, 2)), jnp.zeros(1), jnp.zeros(1, jnp.int32), jnp.ones(1))
    state = surrogate.added(state, corner)
    with double_precision():
        belief = surrogate.posterior(method, state)
        points = np.asarray(surrogate.promising(state, belief, key=jax.random.key(1)))
    assert len(np.unique(points, axis=0)) == len(points) == 128


def test_more_evaluations_than_exact_inference_takes_are_said_at_once():
    space = SearchSpace((0.0,), (1.0,), capacity=5_000)
    with pytest.raises(SpecificationError, match=r"takes at most 2,000: 5,000 are too many"):
        GPUCB().init(space, key=jax.random.key(0))


def test_it_stays_double_however_it_is_mapped():
    """`vmap` of a loop traces its body again: what is then computed in single differs visibly."""

    @in_double
    def lost(x):
        # In single precision the second term is lost.
        matrix = jnp.eye(2) * (1.0 + 1e-9 * x.astype(jnp.float64))
        return 1e9 * ((matrix @ matrix)[0, 0] - 1.0)

    def loop(x):
        def step(total, _):
            return total + lost(x), None

        return jax.lax.scan(step, jnp.zeros(()), length=2)[0]

    x = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(loop)))(x), 4.0 * x, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(loop)(x[0, 0]), 4.0, rtol=1e-5)
