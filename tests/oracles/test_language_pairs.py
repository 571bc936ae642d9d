"""Methods that learn from compared texts, on tables where the best policy is known."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.method import Agent
from headwater.core.records import ComparisonsAndCompletions, CompletionComparisons, Completions
from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import (
    TablePreference,
    TableReward,
    every_response,
)
from headwater.evaluation.exact_tokens import best_log_policy, divergence, log_policy
from headwater.evaluation.preferences import duality_gap
from headwater.evidence.language_training import trained
from headwater.methods.language.comparisons.dpo import DPO
from headwater.methods.language.comparisons.hypo import HyPO
from headwater.methods.language.comparisons.ipo import IPO
from headwater.methods.language.comparisons.reward_model import RewardModel
from headwater.methods.language.rewards.inpo import INPO
from headwater.methods.language.rewards.sharpening import RLHFSharpening
from headwater.methods.language.texts.sft import SFT
from headwater.networks.token_table import LogLinearResponses, PrefixTable
from headwater.ops.language.generation import generate
from headwater.sources.completion_pairs import BestOfN, JudgedPairs
from headwater.sources.completions import Written

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


def test_a_reward_model_finds_bradley_and_terrys_rewards(key):
    """A table's last states are all different, so that any reward can be fitted."""
    worth = np.asarray([0, 1, 2, 2, 1, 0, 0, 1, 2])
    task = TokenProblem(PrefixTable(3, 3, key=key))
    method = RewardModel(learning_rate=0.05, decay_updates=300.0, centring_weight=1e-4)
    state = learn(method, task, bradley_terry_comparisons(worth), key=key, updates=300)
    rewards = np.asarray(method.rate(state, responses(np.arange(9))))
    expected = (worth - worth.mean()) * np.log(2.0)
    assert rewards - rewards.mean() == pytest.approx(expected, abs=5e-3)
    assert abs(rewards.mean()) < 0.01


def test_sharpening_reaches_a_power_of_the_reference(key):
    task = TokenProblem(PrefixTable(3, 3, key=key))
    method = RLHFSharpening(divergence_weight=0.5, learning_rate=0.1, decay_updates=600.0)
    state = learn(method, task, RESPONSES.data, key=key, updates=600)
    best = jax.nn.log_softmax(3.0 * log_policy(task.network, RESPONSES), axis=-1)
    assert total_variation(best, log_policy(task.network, RESPONSES)) > 0.2
    assert total_variation(log_policy(state.network, RESPONSES), best) < 1e-3


def test_hypos_samples_have_the_gradient_of_the_divergence(key):
    """On average over many fresh texts, where DPO's loss is switched off."""
    task = TokenProblem(PrefixTable(3, 3, key=key))
    other = PrefixTable(3, 3, key=jax.random.fold_in(key, 1))
    reference = log_policy(task.network, RESPONSES)
    # Descending by exactly the gradient, so that it can be read off the weights' change.
    method = HyPO(divergence_weight=0.0, online_divergence_weight=1.0)

    def norm(key):
        state = eqx.tree_at(lambda s: s.network, method.init(task, key=key), other)
        own = generate(other, RESPONSES.prompts, 2, key=key, samples=20_000)
        data = ComparisonsAndCompletions(compared([(0, 1)]), own)
        return method.update(state, data, key=key)[1]

    metrics = jax.jit(norm)(key)

    def exact(network):
        return jnp.sum(divergence(log_policy(network, RESPONSES), reference))

    gradient = jax.jit(jax.grad(exact))(other)
    assert float(metrics["gradient_norm"]) == pytest.approx(
        float(jnp.linalg.norm(gradient.table)), rel=0.05
    )
    assert float(metrics["divergence"]) == pytest.approx(float(exact(other)), rel=0.05)


def test_inpo_on_sampled_pairs_closes_the_gap(key):
    """Preferences that go round in circles, for which a reward has no answer."""
    margin = 2.0 * jnp.asarray([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
    preference = jax.nn.sigmoid(margin)[None]
    network = LogLinearResponses(jnp.eye(3), jnp.asarray([1.5, 0.0, 0.0]))
    one_token = every_response(3, 1)
    reference = log_policy(network, one_token)
    method = INPO(
        divergence_weight=0.1, iterate_weight=0.6, updates_per_round=40, learning_rate=0.05
    )
    written = Written(one_token.prompts, rows=128, samples=2, new_tokens=1)
    source = JudgedPairs(written, TablePreference(preference, 3))
    state = jax.jit(lambda: trained(method, TokenProblem(network), source, 1000, key=key))()
    gaps = [
        float(duality_gap(log_policy(one, one_token), reference, preference, 0.1)[0])
        for one in (network, state.iterate)
    ]
    assert gaps[0] > 0.1 and gaps[1] < 0.01


def test_the_best_of_several_by_own_probability_or_by_reward(key):
    network = PrefixTable(3, 3, key=key)
    values = jax.random.normal(key, (1, 9))
    agent = Agent(SFT(), SFT().init(TokenProblem(network), key=key))
    for reward in (None, TableReward(values, 3)):
        written = Written(RESPONSES.prompts, reward, network, rows=5, samples=6, new_tokens=2)
        _, every = written.draw(written.init(key=key), agent, key=key)
        _, best = BestOfN(written).draw(written.init(key=key), agent, key=key)
        worth = log_policy(network, RESPONSES)[0] if reward is None else values[0]
        numbers = np.asarray(every.tokens[..., 1] * 3 + every.tokens[..., 2])
        expected = np.asarray(worth)[numbers].max(axis=1)
        found = np.asarray(best.tokens[..., 1] * 3 + best.tokens[..., 2])
        np.testing.assert_allclose(np.asarray(worth)[found], expected, rtol=1e-5)
