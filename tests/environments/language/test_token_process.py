"""Processes whose responses can all be listed."""

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.language.token_process import TableReward, every_response


def test_every_response_is_listed_once_in_the_order_of_counting():
    responses = every_response(vocabulary=3, new_tokens=2, prompts=2)
    tokens = np.asarray(responses.data.tokens)
    assert tokens.shape == (2, 9, 3)
    np.testing.assert_array_equal(tokens[1, :, 0], np.ones(9))
    np.testing.assert_array_equal(tokens[0, :, 1] * 3 + tokens[0, :, 2], np.arange(9))
    assert not np.any(responses.data.response[..., 0]) and np.all(responses.data.response[..., 1:])
    np.testing.assert_array_equal(responses.prompts.tokens, [[0], [1]])
    np.testing.assert_array_equal(responses.prompts.length, [1, 1])


def test_rewards_are_looked_up():
    responses = every_response(vocabulary=3, new_tokens=2, prompts=2)
    values = jnp.arange(18, dtype=jnp.float32).reshape(2, 9)
    np.testing.assert_array_equal(TableReward(values, 3)(responses.data), values)


def test_too_much_is_refused():
    with pytest.raises(SpecificationError, match="1000000 responses to each of 1 prompts"):
        every_response(vocabulary=10, new_tokens=6)
    with pytest.raises(SpecificationError, match="there can be 2 prompts, not 3"):
        every_response(vocabulary=2, new_tokens=2, prompts=3)
