"""Sharpening against NumPy, and on tables where the best policy is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.tokens import TokenProblem
from headwater.evaluation.exact_tokens import log_policy
from headwater.methods.language.rewards.sharpening import RLHFSharpening
from headwater.networks.token_table import PrefixTable

from ..exact_texts import (
    RESPONSES,
    learn,
    total_variation,
)
from ..text_twin import (
    given_prompts,
    length,
    moved,
    ratios,
    response_log_probability,
    some_texts,
)


@pytest.mark.parity
@pytest.mark.parametrize("normalise", [False, True])
def test_sharpening_regresses_on_the_references_own_chances(normalise, key):
    method = RLHFSharpening(beta=0.3, normalise_lengths=normalise)
    task, network, state = moved(method)
    data = given_prompts(some_texts(2, 3, seed=9), jnp.asarray([[0], [1]]))
    _, metrics = method.update(state, data, key=key)
    reward = response_log_probability(task.network, data) / (length(data) if normalise else 1)
    left = 0.3 * ratios(network, task.network, data) - reward
    pairs = [(left[:, i] - left[:, j]) ** 2 for i, j in itertools.combinations(range(3), 2)]
    assert float(metrics["loss"]) == pytest.approx(np.mean(pairs), rel=1e-5)
    with pytest.raises(SpecificationError, match=r"two or more for each"):
        method.update(state, some_texts(6), key=key)


@pytest.mark.oracle
def test_sharpening_reaches_a_power_of_the_reference(key):
    task = TokenProblem(PrefixTable(3, 3, key=key))
    method = RLHFSharpening(beta=0.5, learning_rate=0.1, decay_updates=600.0)
    state, _ = learn(method, task, RESPONSES.data, key=key, updates=600)
    best = jax.nn.log_softmax(3.0 * log_policy(task.network, RESPONSES), axis=-1)
    assert total_variation(best, log_policy(task.network, RESPONSES)) > 0.2
    assert total_variation(log_policy(state.network, RESPONSES), best) < 1e-3
