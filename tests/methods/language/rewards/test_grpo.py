"""GRPO against NumPy and TRL, and against exact gradients."""

import dataclasses
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import every_response
from headwater.evaluation.exact_tokens import expected, log_policy
from headwater.methods.language.rewards.grpo import GRPO
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.tokens import Average, token_log_probabilities

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
@pytest.mark.parametrize("average", ["token", "sequence", "constant"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_grpo_loss(average, scale, ratio, key):
    corrected = scale != "batch"
    task, data, other = problem(), some_texts(3, 4), PrefixTable(VOCABULARY, CONTEXT)
    method = GRPO(
        kl_weight=0.3,
        clip_range=0.1,
        upper_clip_range=0.3,
        loss_aggregation=average,
        scale_rewards=scale,
        importance_sampling_level=ratio,
        max_completion_length=7,
        kl_bias_correction=corrected,
    )
    state = eqx.tree_at(lambda tuned: tuned.frozen, method.init(task, key=key), other)
    _, metrics = update(method, state, data, key)

    own, reference = log_probabilities(task.network, data), log_probabilities(other, data)
    mask, reward = np.asarray(data.response), np.asarray(data.reward, np.float64)
    advantage = reward - reward.mean(axis=1, keepdims=True)
    if scale == "group":
        advantage = advantage / (reward.std(axis=1, keepdims=True, ddof=1) + 1e-4)
    if scale == "batch":
        advantage = advantage / (reward.std(ddof=1) + 1e-4)
    change = (own - np.asarray(data.log_probability)) * mask
    if ratio == "sequence":
        change = change.sum(-1, keepdims=True) / mask.sum(-1, keepdims=True) * np.ones(mask.shape)
    loss = clipped(np.exp(change), advantage[..., None] * np.ones(mask.shape), 0.1, 0.3)
    divergence = np.exp(reference - own) - (reference - own) - 1.0
    loss = (loss + 0.3 * divergence * (np.exp(change) if corrected else 1.0)) * mask
    if average == "token":
        value = loss.sum() / mask.sum()
    elif average == "sequence":
        value = (loss.sum(-1) / mask.sum(-1)).mean()
    else:
        value = loss.sum(-1).mean() / 7
    assert float(metrics["loss"]) == pytest.approx(value, rel=1e-4)


@pytest.mark.parity
def test_epochs_stop_at_the_clip(key):
    """Many large steps on one batch: ratios leave the range and then nothing more is gained."""
    task, data = problem(), some_texts(3, 4)
    data = eqx.tree_at(lambda d: d.log_probability, data, None)
    method = GRPO(num_epochs=1, learning_rate=0.3)
    _, once = update(method, method.init(task, key=key), data, key)
    many = GRPO(num_epochs=8, learning_rate=0.3)
    _, often = update(many, many.init(task, key=key), data, key)
    assert float(once["clipped"]) == 0.0 and float(often["clipped"]) > 0.1
    assert float(once["sampler_gap"]) < 1e-6 and float(often["sampler_gap"]) < 1e-6


_READ_BY_TRL = ("top_entropy_quantile", "off_policy_mask_threshold", "use_vllm")
"""Settings that TRL's loss reads of the trainer, beside those that are varied."""
AVERAGES: dict[str, Average] = {"dapo": "token", "grpo": "sequence", "dr_grpo": "constant"}


@pytest.mark.parity
@pytest.mark.parametrize("loss_type", list(AVERAGES))
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_grpo_has_the_loss_of_trl(loss_type, ratio, key):
    """What is not said here is as in TRL's unmodified `GRPOConfig`."""
    pytest.importorskip("trl")
    torch = pytest.importorskip("torch")
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

    task, grouped, other = problem(), some_texts(3, 4), PrefixTable(VOCABULARY, CONTEXT)
    method = GRPO(
        kl_weight=0.3,
        clip_range=0.1,
        upper_clip_range=0.3,
        loss_aggregation=AVERAGES[loss_type],
        importance_sampling_level=ratio,
        max_completion_length=7,
    )
    state = eqx.tree_at(lambda tuned: tuned.frozen, method.init(task, key=key), other)
    _, metrics = update(method, state, grouped, key)

    data = jax.tree.map(lambda x: x.reshape(12, *x.shape[2:]), grouped)
    mask = torch.tensor(np.asarray(data.response[:, 1:])).long()
    tokens = torch.tensor(np.asarray(data.tokens)).long()
    own = in_torch(torch, task.network, data)
    reward = torch.tensor(np.asarray(grouped.reward))
    advantage = reward - reward.mean(1, keepdim=True)
    usual = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}
    trainer = trainer_of(
        (own, torch.zeros_like(own), None),
        **{
            "args": SimpleNamespace(**usual),
            **{name: usual[name] for name in _READ_BY_TRL},
            "beta": 0.3,
            "loss_type": loss_type,
            "importance_sampling_level": ratio,
            "max_completion_length": 7,
        },
    )
    inputs = {
        "prompt_ids": tokens[:, :1],
        "prompt_mask": torch.ones_like(tokens[:, :1]),
        "completion_ids": tokens[:, 1:],
        "completion_mask": mask,
        "advantages": (advantage / (reward.std(1, keepdim=True) + 1e-4)).reshape(-1),
        "old_per_token_logps": torch.tensor(np.asarray(data.log_probability[:, 1:])),
        "ref_per_token_logps": in_torch(torch, other, data),
        "num_items_in_batch": mask.sum(),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.oracle
def test_grpo_without_scales_follows_the_policy_gradient_on_average(key):
    task, reference, reward = task_with_reward(key)
    method = GRPO(
        scale_rewards="none",
        loss_aggregation="constant",
        max_completion_length=1,
        max_gradient_norm=1e9,
    )
    found, _ = expected_gradient(method, method.init(task, key=key), reward, key=key)
    # Its baseline holds the response itself, which takes one part in two away.
    exact = 0.5 * exact_gradient(task.network, reference, reward, 0.0)
    np.testing.assert_allclose(found, -exact, atol=2e-6)


@pytest.mark.oracle
def test_the_divergence_of_grpo_is_from_the_reference_unless_its_correction_is_off(key):
    """Its gradient is of KL(π‖reference); with k3 alone of KL(reference‖π).

    Corrected, it is so in later epochs too: an earlier policy wrote the texts.
    """
    policy, reference, earlier = (
        PrefixTable(3, 2, key=k) for k in (key, jax.random.key(5), jax.random.key(6))
    )
    responses = every_response(vocabulary=3, new_tokens=1)
    other = log_policy(reference, responses)

    def gradient(estimator, corrected, writer):
        method = GRPO(
            kl_weight=1.0,
            kl_estimator=estimator,
            kl_bias_correction=corrected,
            max_gradient_norm=1e9,
        )
        state = with_reference(method.init(TokenProblem(policy), key=key), reference)
        chances = token_log_probabilities(writer, responses.data)
        texts = dataclasses.replace(
            responses.data, reward=jnp.zeros((1, 3)), log_probability=chances
        )

        def one(index):
            data = jax.tree.map(lambda x: x[:, jnp.stack([index, index])], texts)
            moved, _ = method.update(state, data, key=key)
            return 10.0 * optax.tree.get(moved.optimiser, "mu").table

        gradients = jax.jit(jax.vmap(one))(jnp.arange(3))
        return jnp.tensordot(jnp.exp(jnp.sum(chances[0], axis=-1)), gradients, axes=1)

    def reverse(network):
        own = log_policy(network, responses)
        return expected(own, own - other)[0]

    def forward(network):
        return expected(other, other - log_policy(network, responses))[0]

    for estimator, corrected, writer, objective in (
        ("k3", True, earlier, reverse),
        ("surrogate", True, earlier, reverse),
        ("surrogate", False, policy, reverse),
        ("k3", False, policy, forward),
    ):
        exact = eqx.filter_grad(objective)(policy).table
        np.testing.assert_allclose(gradient(estimator, corrected, writer), exact, atol=2e-6)


def test_groups_and_rewards_are_asked_for_in_words(key):
    expect_groups_and_rewards_asked_for(GRPO(), key)
