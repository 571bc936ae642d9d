"""Values of next tokens against every response, added up one by one."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.decoding.emulated_fine_tuning import Combined
from headwater.environments.language.token_process import every_response
from headwater.evaluation.exact_tokens import (
    action_values,
    best_log_policy,
    log_policy,
    network_of,
)
from headwater.networks.token_table import PrefixTable

RESPONSES = every_response(vocabulary=3, new_tokens=3, prompts=2)
VALUES = jax.random.normal(jax.random.key(1), (2, 27))
NETWORK = PrefixTable(3, 4, key=jax.random.key(0))


def _each_beginning():
    """Prompt, beginning, and the responses that go on from it with each token."""
    tokens = np.asarray(RESPONSES.data.tokens)
    for prompt in range(2):
        for place in range(3):
            for number in range(3**place):
                text = tokens[prompt, number * 3 ** (3 - place)][: 1 + place]
                begun = (tokens[prompt][:, : 1 + place] == text).all(1)
                yield prompt, text, [begun & (tokens[prompt][:, 1 + place] == a) for a in range(3)]


def test_values_of_a_policy_are_expectations_over_what_follows():
    policy = np.exp(np.asarray(log_policy(NETWORK, RESPONSES), np.float64))
    table = action_values(NETWORK, RESPONSES, VALUES)
    for prompt, text, following in _each_beginning():
        expected = [np.average(VALUES[prompt][f], weights=policy[prompt][f]) for f in following]
        found = table.logits(jnp.asarray(text))[-1]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_best_values_are_the_largest_of_what_follows():
    table = action_values(None, RESPONSES, VALUES)
    for prompt, text, following in _each_beginning():
        expected = [np.max(VALUES[prompt][f]) for f in following]
        np.testing.assert_allclose(table.logits(jnp.asarray(text))[-1], expected, rtol=1e-6)


def test_a_network_of_a_table_writes_it():
    reference = log_policy(NETWORK, RESPONSES)
    wanted = best_log_policy(reference, VALUES, 0.5)
    found = log_policy(network_of(wanted, RESPONSES), RESPONSES)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_tilting_towards_soft_values_is_the_best_policy():
    """Soft values at a temperature: the log of the mean of exp(reward / temperature)."""
    mean = action_values(NETWORK, RESPONSES, jnp.exp(VALUES / 0.5))
    soft = jax.tree.map(lambda x: jnp.log(jnp.where(x > 0, x, 1.0)), mean)
    tilted = log_policy(Combined([NETWORK, soft], jnp.ones(2)), RESPONSES)
    wanted = best_log_policy(log_policy(NETWORK, RESPONSES), VALUES, 0.5)
    np.testing.assert_allclose(tilted, wanted, atol=1e-4)
