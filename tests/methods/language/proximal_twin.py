"""The losses of PPO and DR-PO in plain NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Completions
from headwater.methods.language.rewards.dr_po import DRPO
from headwater.networks.token_table import PrefixTable
from headwater.networks.value_head import WithValue

from .text_twin import (
    CONTEXT,
    VOCABULARY,
    clipped,
    log_probabilities,
    problem,
    some_texts,
    update,
)


def expect_proximal_losses(method, key):
    """The first step, with advantages and returns added up token by token."""
    task, data, other = problem(), some_texts(3, 4), PrefixTable(VOCABULARY, CONTEXT)
    own = log_probabilities(task.network, data)
    mask = np.asarray(data.response).copy()
    if method is DRPO:
        # The first token of longer responses was given.
        mask[..., 1] &= ~mask[..., 2]
    old = (own + 0.1 * np.asarray(data.log_probability)) * mask
    data = Completions(data.tokens, jnp.asarray(mask), data.reward, jnp.asarray(old, jnp.float32))
    settings = method(
        kl_weight=0.3,
        discount=0.9,
        gae_lambda=0.7,
        clip_range=0.1,
        value_clip_range=0.05,
        whiten_rewards=True,
        num_epochs=1,
    )
    state = settings.init(task, key=key)
    assert isinstance(state.network, WithValue)
    weights = jax.random.normal(key, state.network.weights.shape)
    state = eqx.tree_at(
        lambda s: (s.frozen, s.network.weights, s.network.bias),
        state,
        (other, weights, jnp.asarray(0.3)),
    )
    _, metrics = update(settings, state, data, key)

    tokens, reward = np.asarray(data.tokens), np.asarray(data.reward, np.float64)
    assert isinstance(task.network, PrefixTable)
    rows = np.asarray(task.network.rows(data.tokens))
    learned = mask.copy()
    if method is DRPO:
        learned[..., 1] = True
    values, earned = np.zeros(tokens.shape), np.zeros(tokens.shape)
    values[..., 1:] = np.asarray(weights)[rows[..., :-1]] + 0.3
    earned -= 0.3 * (old - log_probabilities(other, data)) * mask
    for row in np.ndindex(3, 4):
        earned[row][np.nonzero(mask[row])[0][-1]] += reward[row]
    # Scaled, with their mean left as it is.
    inside = earned[learned]
    earned = (earned - inside.mean()) / np.sqrt(inside.var(ddof=1) + 1e-8) + inside.mean()
    advantage = np.zeros(tokens.shape)
    for row in np.ndindex(3, 4):
        places = np.nonzero(learned[row])[0]
        for place in places:
            for weight, later in enumerate(range(place, places[-1] + 1)):
                after = values[row][later + 1] if later < places[-1] else 0.0
                surprise = earned[row][later] + 0.9 * after - values[row][later]
                advantage[row][place] += (0.9 * 0.7) ** weight * surprise
    # Nothing has moved yet, so that values are not clipped.
    value_loss = 0.5 * (advantage[learned] ** 2).mean()
    inside = advantage[mask]
    advantage = (advantage - inside.mean()) / np.sqrt(inside.var(ddof=1) + 1e-8)
    own = own * mask
    policy_loss = clipped(np.exp(own - old), advantage, 0.1, 0.1)[mask].mean()
    assert float(metrics["policy_loss"]) == pytest.approx(policy_loss, rel=1e-3)
    assert float(metrics["value_loss"]) == pytest.approx(value_loss, rel=1e-3)
