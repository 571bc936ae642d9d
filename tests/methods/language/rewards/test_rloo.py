"""RLOO against NumPy and TRL, and against the exact policy gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.language.rewards.rloo import RLOO
from headwater.networks.token_table import PrefixTable

from ..exact_texts import (
    exact_gradient,
    expect_groups_and_rewards_asked_for,
    expected_gradient,
    task_with_reward,
    with_reference,
)
from ..text_twin import (
    CONTEXT,
    VOCABULARY,
    clipped,
    log_probabilities,
    problem,
    some_texts,
    update,
)
from ..trl_losses import in_torch, trainer_of


@pytest.mark.parity
@pytest.mark.parametrize("normalised", [True, False])
def test_rloo_loss(normalised, key):
    task, data, other = problem(), some_texts(3, 4), PrefixTable(VOCABULARY, CONTEXT)
    # Close to the policy, so that not all ratios are clipped.
    own = log_probabilities(task.network, data)
    old = own + 0.1 * np.asarray(data.log_probability)
    data = eqx.tree_at(lambda d: d.log_probability, data, jnp.asarray(old, jnp.float32))
    method = RLOO(kl_weight=0.3, clip_range=0.1, normalise_advantages=normalised)
    state = eqx.tree_at(lambda tuned: tuned.frozen, method.init(task, key=key), other)
    _, metrics = update(method, state, data, key)

    before, after = old.sum(-1), own.sum(-1)
    price = before - log_probabilities(other, data).sum(-1)
    reward = np.asarray(data.reward, np.float64) - 0.3 * price
    advantage = np.zeros(reward.shape)
    for prompt, sample in np.ndindex(3, 4):
        others = np.delete(reward[prompt], sample)
        advantage[prompt, sample] = reward[prompt, sample] - others.mean()
    if normalised:
        advantage = (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-4)
    loss = clipped(np.exp(after - before), advantage, 0.1, 0.2).mean()
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-4)
    assert float(metrics["divergence"]) == pytest.approx(price.mean(), rel=1e-4)
    gap = np.abs(own - old).sum() / np.asarray(data.response).sum()
    assert float(metrics["sampler_gap"]) == pytest.approx(gap, rel=1e-3)


@pytest.mark.parity
def test_rloo_has_the_loss_of_trl(key):
    pytest.importorskip("trl")
    torch = pytest.importorskip("torch")
    from trl import RLOOTrainer  # pyright: ignore[reportMissingImports]

    task, grouped = problem(), some_texts(3, 4)
    method = RLOO(kl_weight=0.0, clip_range=0.1, upper_clip_range=0.3)
    _, metrics = update(method, method.init(task, key=key), grouped, key)
    data = jax.tree.map(lambda x: x.reshape(12, *x.shape[2:]), grouped)
    tokens = torch.tensor(np.asarray(data.tokens)).long()
    own = in_torch(torch, task.network, data)
    reward = torch.tensor(np.asarray(grouped.reward))
    baseline = (reward.sum(1, keepdim=True) - reward) / 3
    inputs = {
        "prompt_ids": tokens[:, :1],
        "prompt_mask": torch.ones_like(tokens[:, :1]),
        "completion_ids": tokens[:, 1:],
        "completion_mask": torch.tensor(np.asarray(data.response[:, 1:])).long(),
        "advantages": (reward - baseline).reshape(-1),
        "old_logps": torch.tensor(np.asarray(data.log_probability)).sum(-1),
    }
    trainer = trainer_of((own, torch.zeros_like(own), None))
    loss = RLOOTrainer._compute_loss(trainer, None, inputs)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("place", ["reward", "loss"])
@pytest.mark.parametrize("with_log_probabilities", [True, False])
def test_rloo_follows_the_policy_gradient_on_average(place, with_log_probabilities, key):
    task, reference, reward = task_with_reward(key)
    method = RLOO(kl_weight=0.3, kl_in=place, max_gradient_norm=1e9)
    state = with_reference(method.init(task, key=key), reference)
    found, metrics = expected_gradient(
        method, state, reward, key=key, with_log_probabilities=with_log_probabilities
    )
    exact = exact_gradient(task.network, reference, reward, 0.3)
    np.testing.assert_allclose(found, -exact, atol=2e-6)
    assert float(jnp.max(metrics["sampler_gap"])) < 1e-6


def test_groups_and_rewards_are_asked_for_in_words(key):
    expect_groups_and_rewards_asked_for(RLOO(), key)
