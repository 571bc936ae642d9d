"""What stored responses are worth beside what a policy would have written."""

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import DataError
from headwater.core.records import Completions
from headwater.core.tokens import position_mask
from headwater.networks.token_table import PrefixTable
from headwater.texts.completion_advantages import advantages, prompt_values


def texts(prompts, rewards=None) -> Completions:
    tokens = jnp.stack([jnp.asarray(prompts, jnp.int32), jnp.zeros(len(prompts), jnp.int32)], 1)
    one = jnp.ones(len(prompts), jnp.int32)
    reward = None if rewards is None else jnp.asarray(rewards)
    return Completions(tokens, position_mask(one, 2 * one, 2), reward)


@pytest.mark.parametrize("repeats", [1, 20])
def test_values_of_prompts_are_their_mean_rewards(repeats):
    """With fewer rows than hidden states, and with more."""
    network = PrefixTable(3, 2)
    own = texts([0, 0, 1] * repeats, [1.0, 2.0, 5.0] * repeats)
    found = prompt_values(network, own, texts([1, 0, 2]), ridge=1e-4)
    # Nothing is known of the third: it has the mean of all.
    np.testing.assert_allclose(found, [5.0, 1.5, 8.0 / 3.0], rtol=3e-3)


def test_values_stay_within_the_rewards_and_shrink_to_their_mean():
    network = PrefixTable(3, 2)
    found = prompt_values(network, texts([0, 1], [0.0, 1.0]), texts([0, 1]), ridge=0.5)
    # Each deviation of 1/2 is halved by a penalty of one.
    np.testing.assert_allclose(found, [0.25, 0.75], rtol=1e-5)


def test_rows_count_by_their_advantage():
    data, weights = advantages(texts([0, 1, 2], [1.0, 2.0, 3.0]), jnp.asarray([0.5, 2.5, 3.0]))
    assert data.reward is not None
    np.testing.assert_allclose(data.reward, jnp.asarray([0.5, -0.5, 0.0]))
    np.testing.assert_allclose(weights, [0.5, 0.0, 0.0])


def test_rewards_are_needed():
    with pytest.raises(DataError, match="these responses have none"):
        prompt_values(PrefixTable(3, 2), texts([0]), texts([0]))
    with pytest.raises(DataError, match="these texts have none"):
        advantages(texts([0]), jnp.zeros(1))
