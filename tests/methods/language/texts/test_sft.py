"""Fine-tuning against NumPy and on frequencies that are known."""

import jax
import numpy as np
import pytest

from headwater.core.tokens import TokenProblem
from headwater.evaluation.exact_tokens import log_policy
from headwater.methods.language.texts.sft import SFT
from headwater.networks.token_table import PrefixTable

from ..exact_texts import RESPONSES, learn
from ..text_twin import log_probabilities, problem, some_texts, update


@pytest.mark.parity
def test_sft_averages_over_the_tokens_of_responses(key):
    task, data = problem(), some_texts(6)
    method = SFT()
    _, metrics = update(method, method.init(task, key=key), data, key)
    own = log_probabilities(task.network, data)
    tokens = np.asarray(data.response).sum()
    assert float(metrics["loss"]) == pytest.approx(-own.sum() / tokens, rel=1e-5)
    assert float(metrics["tokens"]) == tokens


@pytest.mark.oracle
def test_sft_reaches_the_frequencies_of_what_it_is_shown(key):
    task = TokenProblem(PrefixTable(3, 3, key=key))
    shown = np.asarray([0, 0, 0, 1, 4, 4, 8, 8])
    data = jax.tree.map(lambda x: x[0, shown], RESPONSES.data)
    state, _ = learn(SFT(learning_rate=0.1), task, data, key=key, updates=300)
    probabilities = np.exp(log_policy(state.network, RESPONSES))[0]
    frequencies = np.bincount(shown, minlength=9) / len(shown)
    np.testing.assert_allclose(probabilities, frequencies, atol=0.01)
