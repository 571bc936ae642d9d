"""Posterior sampling against SciPy's distributions and on a small process."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from headwater.methods.tabular.online.posterior_sampling import PosteriorSampling

from ..finite_problems import (
    expect_best_policy,
)
from ..finite_twin import (
    ACTIONS,
    HORIZON,
    SIZES,
    STATES,
    begin,
    episodes,
    tally,
)

METHOD = PosteriorSampling(concentration=0.7, reward_concentration=1.5)


DATA = episodes(12)


KEYS = jax.random.split(jax.random.key(4), 1500)


@eqx.filter_jit
def draws(state, data):
    """What many keys make of the same data."""
    data = jax.tree.map(jnp.asarray, data)
    return jax.vmap(lambda k: METHOD.update(state, data, key=k)[0])(KEYS)


@pytest.fixture(scope="module")
def states():
    return draws(begin(METHOD), DATA)


def by_hand(random):
    """Action values of one process drawn from the posterior."""
    counts = tally(DATA)
    value, action_value = np.zeros(STATES), np.empty(SIZES)
    for h in reversed(range(HORIZON)):
        for s in range(STATES):
            for a in range(ACTIONS):
                earned = counts.reward[h, s, a]
                missed = counts.following[h, s, a].sum() - earned
                reward = random.beta(1.5 + earned, 1.5 + missed)
                row = random.dirichlet(0.7 + counts.following[h, s, a])
                action_value[h, s, a] = reward + row @ value
        value = action_value[h].max(axis=-1)
    return action_value


@pytest.mark.parity
def test_sampled_values_have_the_distribution_of_the_posterior(states):
    found = np.asarray(states.action_value)
    random = np.random.default_rng(0)
    expected = np.stack([by_hand(random) for _ in range(1500)])
    for at in np.ndindex(SIZES):
        assert stats.ks_2samp(found[:, *at], expected[:, *at]).pvalue > 1e-4, at
    last = tally(DATA)
    at = (HORIZON - 1, 0, 0)
    earned, visits = last.reward[at], last.following[at].sum()
    exact = stats.beta(1.5 + earned, 1.5 + visits - earned)
    assert stats.kstest(found[:, *at], exact.cdf).pvalue > 1e-4


@pytest.mark.parity
def test_the_policy_that_is_judged_is_best_in_the_posterior_mean(states):
    state = jax.tree.map(lambda x: x[0], states)
    counts = tally(DATA)
    visits = counts.following.sum(-1)
    reward = (1.5 + counts.reward) / (3.0 + visits)
    rows = (0.7 + counts.following) / (0.7 * STATES + visits)[..., None]
    value, policy = np.zeros(STATES), np.empty(SIZES)
    for h in reversed(range(HORIZON)):
        action_value = reward[h] + rows[h] @ value
        value, policy[h] = action_value.max(-1), np.eye(ACTIONS)[action_value.argmax(-1)]
    np.testing.assert_array_equal(METHOD.policy(state, explore=False), policy)


@pytest.mark.oracle
def test_the_best_policy_is_found():
    expect_best_policy(PosteriorSampling(), optimistic=False)
