"""Expected improvement against its formula in NumPy, and its draws against plain conditioning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.problems.search_space import SearchSpace
from headwater.environments.black_boxes.black_box import BlackBox
from headwater.evaluation.black_boxes.recommended import simple_regret
from headwater.methods.black_boxes.expected_improvement import (
    ExpectedImprovement,
    noisy_improvement,
)
from headwater.ops.expected_improvement import improvement
from headwater.parts.black_boxes import surrogate
from headwater.parts.black_boxes.gaussian_process import double_precision
from headwater.runs.learn import learn
from headwater.sources.queries import LiveQueries

from .beliefs import GIVEN, GRID, NOISE, kernel, posterior, proposed, recommended, seen, taught


def plain(mean, deviation, best):
    z = (mean - best) / deviation
    return (mean - best) * norm.cdf(z) + deviation * norm.pdf(z)


@pytest.mark.parity
@pytest.mark.parametrize("incumbent", ["best_observed", "best_mean"])
def test_it_proposes_where_the_formula_is_highest(incumbent):
    points, values = seen()
    method = ExpectedImprovement(incumbent=incumbent, **GIVEN)
    state = taught(method, points, values)
    mean, covariance = posterior(points, values)
    at = [int(np.flatnonzero(point == GRID)[0]) for point in points]
    best = values.max() if incumbent == "best_observed" else mean[at].max()
    expected = plain(mean, np.sqrt(np.diag(covariance)), best)
    with double_precision():
        belief = surrogate.posterior(method, state)
        where = jnp.asarray(GRID, jnp.float64)[:, None]
        found = improvement(*belief.moments(where), jnp.asarray(best, jnp.float64))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
    assert proposed(method, state)[0] == GRID[np.argmax(expected)]
    assert recommended(method, state)[0] == GRID[np.argmax(mean)]


@pytest.mark.parity
def test_noisy_improvement_is_the_mean_over_draws_of_the_posterior():
    """Each draw is conditioned on without noise, as plain algebra has it."""
    points, values = seen(4)
    method = ExpectedImprovement(**GIVEN)
    state = taught(method, points, values)
    draw = np.random.default_rng(0)
    exact = points.astype(float)
    prior = kernel(exact, exact)
    inverse = np.linalg.inv(prior + NOISE**2 * np.eye(4))
    after = prior - prior @ inverse @ prior
    drawn = draw.multivariate_normal(prior @ inverse @ values, after, size=20_000)
    weights = np.linalg.solve(prior, kernel(exact, GRID.astype(float)))
    deviation = np.sqrt(
        np.maximum(1.0 - np.sum(weights * kernel(exact, GRID.astype(float)), 0), 1e-14)
    )
    each = plain(drawn @ weights, deviation[None, :], drawn.max(axis=1)[:, None])
    expected, error = each.mean(0), each.std(0) / np.sqrt(len(each))
    with double_precision():
        where = jnp.asarray(GRID, jnp.float64)[:, None]
        belief = surrogate.posterior(method, state)
        found = noisy_improvement(belief, where, 4_000, key=jax.random.key(1))
    np.testing.assert_array_less(np.abs(np.asarray(found) - expected), 14.0 * error + 1e-6)


@pytest.mark.oracle
def test_it_finds_the_top_of_a_hill():

    space = SearchSpace((-5.0, 0.0), (10.0, 15.0), capacity=20)
    hill = BlackBox(lambda x: -0.05 * jnp.sum((x - 4.0) ** 2), space, maximum=0.0)
    method = ExpectedImprovement(fit_steps=15, num_draws=8)

    @jax.jit
    def found(key):
        state = learn(method, space, LiveQueries(hill), 20, key=key).state
        return state.count, simple_regret(hill, Agent(method, state), key=key)

    count, regret = found(jax.random.key(0))
    assert count == 20
    # Of twenty points at random the best falls short by about a quarter.
    assert float(regret) < 0.01


def test_it_says_what_it_needs():
    with pytest.raises(SpecificationError, match="ExpectedImprovement evaluates at one fidelity"):
        several = SearchSpace((0.0,), (1.0,), costs=(0.1, 1.0))
        ExpectedImprovement().init(several, key=jax.random.key(0))
