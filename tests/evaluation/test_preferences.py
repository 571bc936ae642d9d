"""Agreement with preferences, and games between policies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.method import Agent
from headwater.core.records import CompletionComparisons
from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import TablePreference, every_response
from headwater.evaluation.exact_tokens import log_policy
from headwater.evaluation.preferences import (
    best_response_value,
    duality_gap,
    explicit_accuracy,
    implicit_accuracy,
    mirror_step,
)
from headwater.methods.language.comparisons.dpo import DPO
from headwater.methods.language.comparisons.reward_model import RewardModel
from headwater.networks.token_table import PrefixTable


def _game(key, size=5):
    margin = jax.random.normal(key, (2, size, size))
    preference = jax.nn.sigmoid(margin - jnp.swapaxes(margin, 1, 2))
    reference = jax.nn.log_softmax(jax.random.normal(jax.random.fold_in(key, 1), (2, size)))
    return preference, reference


def test_no_policy_beats_the_best_response(key):
    preference, reference = _game(key)
    policy = jax.nn.log_softmax(jax.random.normal(key, (2, 5)))
    best = np.asarray(best_response_value(policy, reference, preference, 0.3))
    others = np.asarray(jax.random.dirichlet(key, jnp.ones(5), (500, 2)), np.float64)
    paid = np.einsum("nxy,xyz,xz->nx", others, preference, np.exp(policy))
    paid -= 0.3 * (others * (np.log(others) - np.asarray(reference))).sum(-1)
    assert (paid <= best + 1e-5).all() and (paid.max(0) > best - 0.1).all()


def test_rounds_of_mirror_descent_close_the_gap(key):
    preference, reference = _game(key)
    policy = reference
    gaps = []
    for _ in range(80):
        gaps.append(np.asarray(duality_gap(policy, reference, preference, 0.2)))
        policy = mirror_step(policy, reference, preference, 0.2, 0.6)
    assert (gaps[0] > 1e-3).all() and (gaps[-1] < 1e-5).all() and (gaps[-1] > -1e-5).all()


def test_the_step_is_the_optimum_of_the_squared_loss(key):
    """On all pairs in proportion to the iterate's probabilities, which is what INPO samples."""
    preference, reference = (x[0] for x in _game(key))
    policy = jax.nn.log_softmax(jax.random.normal(key, (5,)))
    probabilities, share = np.exp(np.asarray(policy, np.float64)), 0.2 / 0.6
    design, target, weight = [], [], []
    mixture = share * np.asarray(reference) + (1 - share) * np.asarray(policy)
    for i in range(5):
        for j in range(5):
            design.append(np.eye(5)[i] - np.eye(5)[j])
            mean = (2 * float(preference[i, j]) - 1) / 1.2
            target.append(mean + mixture[i] - mixture[j])
            weight.append(np.sqrt(probabilities[i] * probabilities[j]))
    weight = np.asarray(weight)
    logits = np.linalg.lstsq(np.asarray(design) * weight[:, None], target * weight)[0]
    step = mirror_step(policy[None], reference[None], preference[None], 0.2, 0.6)[0]
    np.testing.assert_allclose(step, np.asarray(jax.nn.log_softmax(jnp.asarray(logits))), atol=1e-4)


def test_a_preference_is_looked_up(key):
    preference, _ = _game(key, size=9)
    responses = every_response(3, 2, prompts=2).data
    judge = TablePreference(preference, 3)
    first, second = (jax.tree.map(lambda x, i=i: x[:, i], responses) for i in (5, 2))
    np.testing.assert_allclose(judge(first, second), preference[:, 5, 2])


def _pairs():
    responses = every_response(3, 2).data
    chosen, rejected = (
        jax.tree.map(lambda x, i=i: x[0, jnp.asarray(i)], responses) for i in ([0, 4], [8, 5])
    )
    return CompletionComparisons(chosen, rejected)


def test_accuracies(key):
    data, before = _pairs(), PrefixTable(3, 3, key=key)
    assert float(implicit_accuracy(before, before, data)) == 0.5
    after = PrefixTable(3, 3, key=jax.random.fold_in(key, 1))
    responses = every_response(3, 2)
    moved = np.asarray(log_policy(after, responses) - log_policy(before, responses))[0]
    accuracy = np.mean([moved[0] > moved[8], moved[4] > moved[5]])
    assert float(implicit_accuracy(after, before, data)) == accuracy
    method, task = RewardModel(learning_rate=0.1), TokenProblem(before)
    state = jax.jit(lambda: method.init(task, key=key))()
    assert float(explicit_accuracy(Agent(method, state), data)) == 0.5
    state = jax.jit(lambda state: method.update(state, data, key=key)[0])(state)
    assert float(explicit_accuracy(Agent(method, state), data)) == 1.0
    with pytest.raises(TypeError, match="DPO rates no responses"):
        explicit_accuracy(Agent(DPO(), state), data)
