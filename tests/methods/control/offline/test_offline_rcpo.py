"""RCPO from a log against the price that the constraint needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from headwater.methods.control.offline.offline_rcpo import OfflineRCPO

from ..small_problems import COUNTS, arms
from .test_tscac import MAIN, learned, policy, with_others

TEMPERATURE = 0.5
# What pays of the first is bad for the second; of the third every arm brings the same.
OTHERS = np.asarray([[0.2, 0.9, 0.3, 1.4], [1.0, 1.0, 1.0, 1.0]])
SHARES = COUNTS / COUNTS.sum()


def of_price(price: float) -> np.ndarray:
    """The policy that clones logged arms by their advantage in the priced reward."""
    deviation = np.repeat(OTHERS[0], COUNTS).std()
    weight = COUNTS * np.exp((MAIN + price * OTHERS[0] / deviation) / TEMPERATURE)
    return weight / weight.sum()


@pytest.mark.oracle
def test_the_price_is_the_one_that_keeps_the_logs_level():
    problem, data = arms(COUNTS, MAIN)
    data = with_others(data, OTHERS[:, np.asarray(data.action)])
    missing = lambda price: (SHARES - of_price(price)) @ OTHERS[0]
    assert missing(0.0) > 0.05
    price = float(np.asarray(brentq(missing, 0.0, 10.0)))
    method = OfflineRCPO(
        advantage_temperature=TEMPERATURE,
        multiplier_learning_rate=0.01,
        max_weight=1e4,
        learning_rate=3e-3,
        polyak_rate=0.1,
        hidden_sizes=(16,),
    )
    state = learned(method, problem, data, updates=4_000)
    np.testing.assert_allclose(state.prices, [price, 0.0], atol=0.05)
    np.testing.assert_allclose(policy(method, state, jnp.ones(1), 4), of_price(price), atol=0.02)


def test_nothing_is_paid_for_what_comes_by_itself():
    problem, data = arms(COUNTS, MAIN)
    main = np.asarray(data.reward)
    method = OfflineRCPO(
        advantage_temperature=TEMPERATURE, multiplier_learning_rate=0.01, learning_rate=3e-3,
        polyak_rate=0.1, hidden_sizes=(16,),
    )  # fmt: skip
    state = learned(method, problem, with_others(data, np.stack([main, 2.0 * main])), updates=1_500)
    assert np.all(np.asarray(state.prices) < 0.02)
    jax.block_until_ready(state)
