"""Methods that learn from compared texts, on tables where the best policy is known."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import CompletionComparisons, Completions
from headwater.core.tokens import TokenProblem
from headwater.environments.token_process import every_response
from headwater.evaluation.exact_tokens import best_log_policy, log_policy
from headwater.methods.language.dpo import DPO
from headwater.methods.language.ipo import IPO
from headwater.networks.token_table import PrefixTable

RESPONSES = every_response(vocabulary=3, new_tokens=2)


def learn(method, task, data, *, key, updates):
    """The state after `updates` on the same batch."""

    def step(state, i):
        return method.update(state, data, key=jax.random.fold_in(key, i))[0], None

    return jax.jit(lambda: jax.lax.scan(step, method.init(task, key=key), jnp.arange(updates)))()[0]


def compared(pairs) -> CompletionComparisons:
    """Comparisons of responses by their numbers, `(better, worse)`."""
    better, worse = np.asarray(pairs).T
    return CompletionComparisons(chosen=responses(better), rejected=responses(worse))


def responses(rows) -> Completions:
    """By their numbers."""
    return jax.tree.map(lambda x: x[0, rows], RESPONSES.data)


def bradley_terry_comparisons(worth) -> CompletionComparisons:
    """All pairs, in the proportions of Bradley and Terry for rewards `worth · log 2`."""
    pairs = []
    for i, j in itertools.combinations(range(len(worth)), 2):
        wins = 30 * 2 ** worth[i] / (2 ** worth[i] + 2 ** worth[j])
        assert wins == int(wins)
        pairs += [(i, j)] * int(wins) + [(j, i)] * (30 - int(wins))
    return compared(pairs)


def total_variation(first, second) -> float:
    return 0.5 * float(jnp.max(jnp.sum(jnp.abs(jnp.exp(first) - jnp.exp(second)), axis=-1)))


def test_dpo_reaches_the_tilted_reference(key):
    worth = np.asarray([0, 1, 2, 2, 1, 0, 0, 1, 2])
    data = bradley_terry_comparisons(worth)
    task = TokenProblem(PrefixTable(3, 3, key=key))
    method = DPO(divergence_weight=0.5, learning_rate=0.03, decay_updates=600.0)
    state = learn(method, task, data, key=key, updates=600)
    reference = log_policy(task.network, RESPONSES)
    best = best_log_policy(reference, jnp.asarray(worth * np.log(2.0))[None], 0.5)
    assert total_variation(best, reference) > 0.3
    assert total_variation(log_policy(state.network, RESPONSES), best) < 1e-4


def test_dpo_begins_with_half_the_gradient_of_the_margin(key):
    """At the reference all weights are σ(0): the gradient is -β/2 that of the margin's mean."""
    task = TokenProblem(PrefixTable(3, 3, key=key))
    data = compared([(0, 4), (8, 1), (2, 0)])
    method = DPO(divergence_weight=0.3, learning_rate=1.0)

    def margin(network):
        chances = log_policy(network, RESPONSES)[0]
        return jnp.mean(
            jnp.stack([chances[0] - chances[4], chances[8] - chances[1], chances[2] - chances[0]])
        )

    gradient = jax.jit(jax.grad(margin))(task.network).table
    _, metrics = jax.jit(lambda: method.update(method.init(task, key=key), data, key=key))()
    expected = 0.15 * np.linalg.norm(gradient)
    assert float(metrics["gradient_norm"]) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(np.log(2.0), rel=1e-6)


def test_ipo_spreads_certain_winners_by_known_gaps(key):
    """Three responses in a known order: neighbours end 1/(3τ) apart, from any reference."""
    task = TokenProblem(PrefixTable(3, 3, key=key))
    data = compared([(0, 4), (4, 8), (0, 8)])
    method = IPO(
        divergence_weight=0.25, normalise_lengths=False, learning_rate=0.05, decay_updates=400.0
    )
    state = learn(method, task, data, key=key, updates=400)
    ratio = log_policy(state.network, RESPONSES) - log_policy(task.network, RESPONSES)
    gaps = [float(ratio[0, i] - ratio[0, j]) for i, j in ((0, 4), (4, 8))]
    assert gaps == pytest.approx([4 / 3, 4 / 3], abs=1e-3)
    method = dataclasses.replace(method, normalise_lengths=True)
    state = learn(method, task, data, key=key, updates=400)
    ratio = log_policy(state.network, RESPONSES) - log_policy(task.network, RESPONSES)
    # Responses have two tokens.
    assert float(ratio[0, 0] - ratio[0, 8]) == pytest.approx(2 * 8 / 3, abs=1e-2)
