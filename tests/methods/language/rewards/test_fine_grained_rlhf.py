"""Rewards of parts against PPO, and against advantages that are added up by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from headwater.core.records import Completions
from headwater.methods.language.rewards.fine_grained_rlhf import FineGrainedRLHF
from headwater.methods.language.rewards.token_ppo import TokenPPO
from headwater.ops.language.tokens import token_log_probabilities
from headwater.parts.clipped_policy import last_tokens

from ..text_twin import problem, some_texts, update


@pytest.mark.equivalence
def test_a_reward_at_the_last_token_alone_is_ppo(key):
    task, data = problem(), some_texts(3, 4)
    assert data.reward is not None
    parts = jnp.where(last_tokens(data.response), data.reward[..., None], 0.0)
    fine = dataclasses.replace(data, token_reward=parts, reward=None)
    tables = []
    for cls, given in ((FineGrainedRLHF, fine), (TokenPPO, data)):
        method = cls(
            kl_weight=0.3,
            temperature=0.7,
            value_weight=0.5,
            learning_rate=0.1,
            warmup_updates=0.0,
            whiten_rewards=True,
        )
        state, metrics = update(method, method.init(task, key=key), given, key)
        tables.append([*jax.tree.leaves(state.network), *metrics.values()])
    for one, other in zip(*tables, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.oracle
def test_each_token_is_credited_with_what_comes_after_it(key):
    """With λ = 1, no value yet and no KL: the rewards from here on, and none of before."""
    task, texts = problem(), some_texts(3, 4)
    mask = np.asarray(texts.response)
    parts = np.asarray(jax.random.normal(key, mask.shape))
    method = FineGrainedRLHF(
        kl_weight=0.0,
        gae_lambda=1.0,
        temperature=1.0,
        learning_rate=0.0,
        num_epochs=1,
        whiten_rewards=False,
    )
    # What stands outside of responses is nobody's.
    data = Completions(texts.tokens, texts.response, token_reward=jnp.asarray(parts))
    state, metrics = update(method, method.init(task, key=key), data, key)
    later = np.flip(np.cumsum(np.flip(parts * mask, -1), -1), -1)
    inside = later[mask]
    assert float(metrics["value_loss"]) == pytest.approx(0.5 * (inside**2).mean(), rel=1e-5)
    advantage = (later - inside.mean()) / np.sqrt(inside.var(ddof=1) + 1e-8) * mask

    def loss(network):
        own = token_log_probabilities(network, texts)
        return -jnp.sum(own * jnp.asarray(advantage, jnp.float32)) / mask.sum()

    gradient = jax.grad(loss)(task.network)
    moments = optax.tree.get(state.optimiser, "mu").network.table
    norm = float(metrics["gradient_norm"])
    np.testing.assert_allclose(10.0 * moments * max(norm, 1.0), gradient.table, atol=1e-5)
    assert float(metrics["reward"]) == pytest.approx((parts * mask).sum(-1).mean(), rel=1e-5)
