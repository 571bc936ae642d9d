"""Losses on texts against plain NumPy, and against TRL where it is installed."""

from collections import defaultdict
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem, position_mask
from headwater.methods.language.rewards.a_lol import ALoL
from headwater.methods.language.rewards.dr_po import DRPO
from headwater.methods.language.rewards.grpo import GRPO
from headwater.methods.language.rewards.ppo import PPO
from headwater.methods.language.rewards.rloo import RLOO
from headwater.methods.language.texts.sft import SFT
from headwater.networks.token_table import PrefixTable
from headwater.networks.value_head import WithValue
from headwater.ops.language.proximal import clipped_value_loss, minibatch_epochs
from headwater.ops.language.tokens import Average

VOCABULARY, CONTEXT = 3, 4


def problem(seed=0) -> TokenProblem:
    return TokenProblem(PrefixTable(VOCABULARY, CONTEXT, key=jax.random.key(seed)))


def some_texts(*shape: int, seed=0) -> Completions:
    """Random texts with responses of one to three tokens after prompts of one."""
    keys = jax.random.split(jax.random.key(seed), 4)
    tokens = jax.random.randint(keys[0], (*shape, CONTEXT), 0, VOCABULARY, jnp.int32)
    length = jax.random.randint(keys[1], shape, 1, CONTEXT, jnp.int32)
    response = position_mask(jnp.ones_like(length), 1 + length, CONTEXT)
    chance = jnp.where(response, -jax.random.exponential(keys[2], (*shape, CONTEXT)), 0.0)
    return Completions(tokens, response, jax.random.normal(keys[3], shape), chance)


def log_probabilities(network: AbstractTokenNetwork, data: Completions) -> np.ndarray:
    """Of every token of the responses, looked up one by one."""
    assert isinstance(network, PrefixTable)
    table = np.asarray(network.table, np.float64)
    tokens, response = np.asarray(data.tokens), np.asarray(data.response)
    found = np.zeros(tokens.shape)
    for place in zip(*np.nonzero(response)):
        *row, position = place
        text = tokens[tuple(row)][:position]
        index = sum(VOCABULARY**length for length in range(1, position))
        index += int("".join(map(str, text)), VOCABULARY)
        logits = table[index]
        found[place] = logits[tokens[place]] - np.log(np.exp(logits).sum())
    return found


def test_sft_averages_over_the_tokens_of_responses(key):
    task, data = problem(), some_texts(6)
    method = SFT()
    _, metrics = update(method, method.init(task, key=key), data, key)
    own = log_probabilities(task.network, data)
    tokens = np.asarray(data.response).sum()
    assert float(metrics["loss"]) == pytest.approx(-own.sum() / tokens, rel=1e-5)
    assert float(metrics["tokens"]) == tokens


def update(method, state, data, key):
    """One update, compiled."""
    return jax.jit(lambda: method.update(state, data, key=key))()


def clipped(ratio, advantage, below, above):
    """PPO's loss, one number at a time."""
    found = np.zeros(ratio.shape)
    for place in np.ndindex(*ratio.shape):
        r, a = ratio[place], advantage[place]
        bounded = min(max(r, 1.0 - below), 1.0 + above)
        found[place] = -min(r * a, bounded * a)
    return found


@pytest.mark.parametrize("average", ["token", "sequence", "constant"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_grpo_loss(average, scale, ratio, key):
    task, data, other = problem(), some_texts(3, 4), PrefixTable(VOCABULARY, CONTEXT)
    method = GRPO(
        divergence_weight=0.3,
        clip_range=0.1,
        upper_clip_range=0.3,
        average=average,
        scale_rewards=scale,
        ratio=ratio,
        response_length=7,
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
    loss = (loss + 0.3 * (np.exp(reference - own) - (reference - own) - 1.0)) * mask
    if average == "token":
        value = loss.sum() / mask.sum()
    elif average == "sequence":
        value = (loss.sum(-1) / mask.sum(-1)).mean()
    else:
        value = loss.sum(-1).mean() / 7
    assert float(metrics["loss"]) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("normalised", [True, False])
def test_rloo_loss(normalised, key):
    task, data, other = problem(), some_texts(3, 4), PrefixTable(VOCABULARY, CONTEXT)
    # Close to the policy, so that not all ratios are clipped.
    own = log_probabilities(task.network, data)
    old = own + 0.1 * np.asarray(data.log_probability)
    data = eqx.tree_at(lambda d: d.log_probability, data, jnp.asarray(old, jnp.float32))
    method = RLOO(divergence_weight=0.3, clip_range=0.1, normalise_advantages=normalised)
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


def test_epochs_stop_at_the_clip(key):
    """Many large steps on one batch: ratios leave the range and then nothing more is gained."""
    task, data = problem(), some_texts(3, 4)
    data = eqx.tree_at(lambda d: d.log_probability, data, None)
    method = GRPO(epochs=1, learning_rate=0.3)
    _, once = update(method, method.init(task, key=key), data, key)
    many = GRPO(epochs=8, learning_rate=0.3)
    _, often = update(many, many.init(task, key=key), data, key)
    assert float(once["clipped"]) == 0.0 and float(often["clipped"]) > 0.1
    assert float(once["sampler_gap"]) < 1e-6 and float(often["sampler_gap"]) < 1e-6


@pytest.mark.parametrize("method", [PPO, DRPO])
def test_proximal_losses(method, key):
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
        divergence_weight=0.3,
        discount=0.9,
        trace_decay=0.7,
        clip_range=0.1,
        value_clip_range=0.05,
        whiten_rewards=True,
        epochs=1,
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


def test_values_are_held_near_where_they_were():
    value, old, target = (jnp.asarray([x]) for x in (1.0, 0.0, 2.0))
    # Beyond the range the error of the bound counts, which does not fall any further.
    assert float(clipped_value_loss(value, old, target, 0.2)[0]) == pytest.approx(0.5 * 1.8**2)
    assert float(clipped_value_loss(value, old, target, 5.0)[0]) == pytest.approx(0.5)


def test_minibatches_divide_the_rows(key):
    def step(total, rows):
        return total + jnp.sum(rows), {"largest": jnp.max(rows), "sampler_gap": total}

    rows = jnp.arange(6.0)
    total, metrics = minibatch_epochs(
        step, jnp.asarray(5.0), rows, epochs=4, minibatches=3, key=key
    )
    assert float(total) == 5 + 4 * 15 and float(metrics["sampler_gap"]) == 5.0
    with pytest.raises(SpecificationError, match="6 texts cannot be divided into 4 minibatches"):
        minibatch_epochs(step, jnp.asarray(0.0), rows, epochs=1, minibatches=4, key=key)


@pytest.mark.parametrize("importance", ["sequence", "token", "none"])
def test_a_lol_loss(importance, key):
    task, data, other = problem(), some_texts(6), PrefixTable(VOCABULARY, CONTEXT)
    method = ALoL(importance=importance, importance_range=0.3, divergence_weight=0.2)
    state = eqx.tree_at(lambda tuned: tuned.frozen, method.init(task, key=key), other)
    _, metrics = update(method, state, data, key)
    own, reference = log_probabilities(task.network, data), log_probabilities(other, data)
    value = 0.0
    for row, reward in enumerate(np.asarray(data.reward, np.float64)):
        change = own[row] - reference[row]
        ratio = {
            # The policy over the reference, and not the other way round.
            "sequence": np.full(CONTEXT, np.exp(change.sum())),
            "token": np.exp(change),
            "none": np.ones(CONTEXT),
        }[importance]
        weighted = (np.clip(ratio, 0.7, 1.3) * own[row]).sum()
        value += (-reward * weighted + 0.2 * change.sum()) / 6
    assert float(metrics["loss"]) == pytest.approx(value, rel=1e-4)


def in_torch(torch, network, data):
    """The log-probabilities that TRL would compute, of every token after the first."""
    logits = torch.tensor(np.asarray(network.logits(data.tokens[:, :-1])))
    tokens = torch.tensor(np.asarray(data.tokens[:, 1:])).long()
    return torch.log_softmax(logits, -1).gather(-1, tokens[..., None])[..., 0]


def trainer_of(own, **known):
    """All that the losses read of a trainer, which cannot be made without a model on disk."""
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: own,
        _metrics=defaultdict(lambda: defaultdict(list)),
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(
            gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1
        ),
        _entropy_bonus_enabled=False,
        aux_loss_enabled=False,
        epsilon_low=0.1,
        epsilon_high=0.3,
        **known,
    )


AVERAGES: dict[str, Average] = {"dapo": "token", "grpo": "sequence", "dr_grpo": "constant"}


@pytest.mark.parametrize("loss_type", list(AVERAGES))
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_grpo_has_the_loss_of_trl(loss_type, ratio, key):
    pytest.importorskip("trl")
    torch = pytest.importorskip("torch")
    from trl import GRPOTrainer  # pyright: ignore[reportMissingImports]

    task, grouped, other = problem(), some_texts(3, 4), PrefixTable(VOCABULARY, CONTEXT)
    method = GRPO(
        divergence_weight=0.3,
        clip_range=0.1,
        upper_clip_range=0.3,
        average=AVERAGES[loss_type],
        ratio=ratio,
        response_length=7,
    )
    state = eqx.tree_at(lambda tuned: tuned.frozen, method.init(task, key=key), other)
    _, metrics = update(method, state, grouped, key)

    data = jax.tree.map(lambda x: x.reshape(12, *x.shape[2:]), grouped)
    mask = torch.tensor(np.asarray(data.response[:, 1:])).long()
    tokens = torch.tensor(np.asarray(data.tokens)).long()
    own = in_torch(torch, task.network, data)
    reward = torch.tensor(np.asarray(grouped.reward))
    advantage = reward - reward.mean(1, keepdim=True)
    trainer = trainer_of(
        (own, torch.zeros_like(own), None),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        beta=0.3,
        loss_type=loss_type,
        importance_sampling_level=ratio,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        max_completion_length=7,
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


def test_rloo_has_the_loss_of_trl(key):
    pytest.importorskip("trl")
    torch = pytest.importorskip("torch")
    from trl import RLOOTrainer  # pyright: ignore[reportMissingImports]

    task, grouped = problem(), some_texts(3, 4)
    method = RLOO(divergence_weight=0.0, clip_range=0.1, upper_clip_range=0.3)
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
