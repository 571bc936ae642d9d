"""DPO against NumPy and TRL, and on tables where the best policy is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.tokens import TokenProblem
from headwater.evaluation.exact_tokens import best_log_policy, log_policy
from headwater.methods.language.comparisons.dpo import DPO
from headwater.networks.token_table import PrefixTable

from ..exact_texts import RESPONSES, bradley_terry_comparisons, compared, learn, total_variation
from ..text_twin import DATA, length, log_sigmoid, moved, ratios, response_log_probability
from ..trl_losses import expect_loss_of_dpo_trainer


@pytest.mark.parity
def test_dpo_with_all_its_terms(key):
    method = DPO(beta=0.3, rejected_weight=0.4, cloning_weight=0.7, label_smoothing=0.2)
    task, network, state = moved(method)
    _, metrics = method.update(state, DATA, key=key)
    margin = 0.3 * ratios(network, task.network, DATA.chosen)
    margin -= 0.3 * 0.4 * ratios(network, task.network, DATA.rejected)
    loss = -(0.8 * log_sigmoid(margin) + 0.2 * log_sigmoid(-margin)).mean()
    cloned = -response_log_probability(network, DATA.chosen).sum() / length(DATA.chosen).sum()
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(metrics["chosen_negative_log_probability"]) == pytest.approx(cloned, rel=1e-5)
    chosen = ratios(network, task.network, DATA.chosen).mean()
    assert float(metrics["chosen_log_ratio"]) == pytest.approx(chosen, rel=1e-4)


@pytest.mark.parity
def test_it_has_the_loss_of_trl(key):
    expect_loss_of_dpo_trainer(DPO(beta=0.3), "sigmoid", key)


@pytest.mark.oracle
def test_dpo_reaches_the_tilted_reference(key):
    worth = np.asarray([0, 1, 2, 2, 1, 0, 0, 1, 2])
    data = bradley_terry_comparisons(worth)
    task = TokenProblem(PrefixTable(3, 3, key=key))
    method = DPO(beta=0.5, learning_rate=0.03, decay_updates=600.0)
    state, _ = learn(method, task, data, key=key, updates=600)
    reference = log_policy(task.network, RESPONSES)
    best = best_log_policy(reference, jnp.asarray(worth * np.log(2.0))[None], 0.5)
    assert total_variation(best, reference) > 0.3
    assert total_variation(log_policy(state.network, RESPONSES), best) < 1e-4


@pytest.mark.oracle
def test_dpo_begins_with_half_the_gradient_of_the_margin(key):
    """At the reference all weights are σ(0): the gradient is -β/2 that of the margin's mean."""
    task = TokenProblem(PrefixTable(3, 3, key=key))
    data = compared([(0, 4), (8, 1), (2, 0)])
    method = DPO(beta=0.3, learning_rate=1.0)

    def margin(network):
        probabilities = log_policy(network, RESPONSES)[0]
        return jnp.mean(
            jnp.stack(
                [
                    probabilities[0] - probabilities[4],
                    probabilities[8] - probabilities[1],
                    probabilities[2] - probabilities[0],
                ]
            )
        )

    gradient = jax.jit(jax.grad(margin))(task.network).table
    _, metrics = jax.jit(lambda: method.update(method.init(task, key=key), data, key=key))()
    expected = 0.15 * np.linalg.norm(gradient)
    assert float(metrics["gradient_norm"]) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(np.log(2.0), rel=1e-6)
