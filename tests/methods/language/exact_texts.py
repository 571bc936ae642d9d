"""Texts that are few enough for exact expectations, and learning on all of them."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import CompletionComparisons, Completions
from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import (
    every_response,
)
from headwater.evaluation.exact_tokens import expected, log_policy
from headwater.networks.token_table import PrefixTable

RESPONSES = every_response(vocabulary=3, new_tokens=2)


def learn(method, task, data, *, key, updates, options=None):
    """The state and the metrics after `updates` on the same batch."""

    def step(state, i):
        return method.update(state, data, key=jax.random.fold_in(key, i))

    def run():
        return jax.lax.scan(step, method.init(task, key=key), jnp.arange(updates))

    return jax.jit(run, compiler_options=options)()


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


_TOKENS, _MASK = RESPONSES.data.tokens, RESPONSES.data.response


def with_reference(state, reference):
    """The same state, with another network to stay close to."""
    return eqx.tree_at(lambda tuned: tuned.frozen, state, reference)


def expected_gradient(method, state, reward, *, key, with_log_probabilities=True):
    """Of an update's loss, over all pairs of responses to one prompt under the current policy.

    It is read off the first moment of Adam, a tenth of the gradient after one step.
    """
    probabilities = log_policy(state.network, RESPONSES)[0]
    first, second = (x.ravel() for x in np.meshgrid(np.arange(9), np.arange(9)))
    pairs = np.stack([first, second], axis=1)[:, None]
    tokens, response = (jnp.asarray(x)[0][pairs] for x in (_TOKENS, _MASK))
    own = jax.nn.log_softmax(state.network.logits(tokens[..., :-1]), axis=-1)
    own = jnp.take_along_axis(own, tokens[..., 1:, None], axis=-1)[..., 0]
    own = jnp.concatenate([jnp.zeros_like(own[..., :1]), own], axis=-1)
    data = Completions(tokens, response, reward[pairs], own if with_log_probabilities else None)

    def gradient(data):
        moved, metrics = method.update(state, data, key=key)
        return 10.0 * optax.tree.get(moved.optimiser, "mu").table, metrics

    gradients, metrics = jax.jit(jax.vmap(gradient))(data)
    weights = jnp.exp(probabilities[pairs[:, 0, 0]] + probabilities[pairs[:, 0, 1]])
    return jnp.tensordot(weights, gradients, axes=1), metrics


def task_with_reward(key):
    """A random policy, another one as its reference, and random rewards."""
    keys = jax.random.split(key, 3)
    policy, reference = PrefixTable(3, 3, key=keys[0]), PrefixTable(3, 3, key=keys[1])
    return TokenProblem(policy), reference, jax.random.normal(keys[2], (9,))


def exact_gradient(network, reference, reward, weight):
    """Of the expected reward less `weight` times the divergence from the reference."""
    other = log_policy(reference, RESPONSES)

    def objective(network):
        own = log_policy(network, RESPONSES)
        return expected(own, reward[None] - weight * (own - other))[0]

    return eqx.filter_grad(objective)(network).table


def expect_groups_and_rewards_asked_for(method, key):
    """Fails unless `method` says that it needs rewards, and several texts for each prompt."""
    data = jax.tree.map(lambda x: x[0], RESPONSES.data)
    state = method.init(TokenProblem(PrefixTable(3, 3)), key=key)
    with pytest.raises(SpecificationError, match="give their source a reward"):
        method.update(state, data, key=key)
    data = Completions(data.tokens, data.response, jnp.zeros(9))
    with pytest.raises(SpecificationError, match=r"\[prompt, sample\].*\[9\]"):
        method.update(state, data, key=key)
