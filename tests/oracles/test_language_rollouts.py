"""Methods that learn from their own or weighted texts, where every expectation is exact."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.tokens import TokenProblem
from headwater.environments.token_process import every_response
from headwater.evaluation.exact_tokens import log_policy
from headwater.methods.language.sft import SFT
from headwater.networks.token_table import PrefixTable


def learn(method, task, batches, *, key, updates):
    """The state after `updates`; `batches(i)` or one batch for all."""

    def step(state, i):
        return method.update(state, batches, key=jax.random.fold_in(key, i))

    return jax.jit(lambda: jax.lax.scan(step, method.init(task, key=key), jnp.arange(updates)))()


def test_sft_reaches_the_frequencies_of_what_it_is_shown(key):
    responses = every_response(vocabulary=3, new_tokens=2)
    task = TokenProblem(PrefixTable(3, 3, key=key))
    shown = np.asarray([0, 0, 0, 1, 4, 4, 8, 8])
    data = jax.tree.map(lambda x: x[0, shown], responses.data)
    state, _ = learn(SFT(learning_rate=0.1), task, data, key=key, updates=300)
    chances = np.exp(log_policy(state.network, responses))[0]
    frequencies = np.bincount(shown, minlength=9) / len(shown)
    np.testing.assert_allclose(chances, frequencies, atol=0.01)
