"""Losses on compared texts against plain NumPy, and against TRL where it is installed."""

import itertools
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import (
    ComparisonsAndCompletions,
    CompletionComparisons,
    Completions,
)
from headwater.core.tokens import TokenProblem, position_mask
from headwater.methods.language.comparisons.dpo import DPO
from headwater.methods.language.comparisons.hypo import HyPO
from headwater.methods.language.comparisons.ipo import IPO
from headwater.methods.language.comparisons.reward_model import RewardModel
from headwater.methods.language.rewards.inpo import INPO, NashTuned
from headwater.methods.language.rewards.sharpening import RLHFSharpening
from headwater.networks.token_table import PrefixTable

VOCABULARY, CONTEXT, ROWS = 3, 4, 6


def some_texts(*shape: int, seed=0, first=None) -> Completions:
    """Random texts with responses of one to three tokens after prompts of one."""
    keys = jax.random.split(jax.random.key(seed), 3)
    tokens = jax.random.randint(keys[0], (*shape, CONTEXT), 0, VOCABULARY, jnp.int32)
    if first is not None:
        tokens = tokens.at[..., 0].set(first)
    length = jax.random.randint(keys[1], shape, 1, CONTEXT, jnp.int32)
    response = position_mask(jnp.ones_like(length), 1 + length, CONTEXT)
    return Completions(tokens, response, jax.random.normal(keys[2], shape))


def some_pairs(*shape: int, seed=0) -> CompletionComparisons:
    chosen = some_texts(*shape, seed=seed)
    return CompletionComparisons(
        chosen, some_texts(*shape, seed=seed + 100, first=chosen.tokens[..., 0])
    )


def log_probability(network: Any, data: Completions) -> np.ndarray:
    """Of whole responses, looked up token by token."""
    table = np.asarray(network.table, np.float64)
    tokens, response = np.asarray(data.tokens), np.asarray(data.response)
    found = np.zeros(tokens.shape[:-1])
    for *row, position in zip(*np.nonzero(response)):
        text = tokens[tuple(row)]
        index = sum(VOCABULARY**length for length in range(1, position))
        index += int("".join(map(str, text[:position])), VOCABULARY)
        found[tuple(row)] += table[index][text[position]] - np.log(np.exp(table[index]).sum())
    return found


def length(data: Completions) -> np.ndarray:
    return np.asarray(data.response).sum(axis=-1)


def moved(method, seed=0) -> tuple[Any, PrefixTable, Any]:
    """A problem and a state of `method` whose policy is another than the reference."""
    task = TokenProblem(PrefixTable(VOCABULARY, CONTEXT, key=jax.random.key(seed)))
    state = method.init(task, key=jax.random.key(1))
    other = PrefixTable(VOCABULARY, CONTEXT, key=jax.random.key(seed + 1))
    return task, other, replaced(state, other)


def replaced(state, network):
    if isinstance(state, NashTuned):
        return eqx.tree_at(lambda s: s.tuned.network, state, network)
    return eqx.tree_at(lambda s: s.network, state, network)


def ratios(network, reference, data):
    return log_probability(network, data) - log_probability(reference, data)


def log_sigmoid(x):
    return -np.logaddexp(0.0, -x)


DATA = some_pairs(ROWS)


def test_dpo_with_all_its_terms(key):
    method = DPO(divergence_weight=0.3, rejected_weight=0.4, cloning_weight=0.7, label_noise=0.2)
    task, network, state = moved(method)
    _, metrics = method.update(state, DATA, key=key)
    margin = 0.3 * ratios(network, task.network, DATA.chosen)
    margin -= 0.3 * 0.4 * ratios(network, task.network, DATA.rejected)
    loss = -(0.8 * log_sigmoid(margin) + 0.2 * log_sigmoid(-margin)).mean()
    cloned = -log_probability(network, DATA.chosen).sum() / length(DATA.chosen).sum()
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(metrics["chosen_negative_log_probability"]) == pytest.approx(cloned, rel=1e-5)
    chosen = ratios(network, task.network, DATA.chosen).mean()
    assert float(metrics["chosen_log_ratio"]) == pytest.approx(chosen, rel=1e-4)


@pytest.mark.parametrize("normalise", [False, True])
def test_ipo_adds_up_or_averages(normalise, key):
    method = IPO(divergence_weight=0.3, normalise_lengths=normalise)
    task, network, state = moved(method)
    _, metrics = method.update(state, DATA, key=key)
    won, lost = (ratios(network, task.network, d) for d in (DATA.chosen, DATA.rejected))
    if normalise:
        won, lost = won / length(DATA.chosen), lost / length(DATA.rejected)
    expected = ((won - lost - 1 / 0.6) ** 2).mean()
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)


def test_hypo_adds_the_divergence_on_its_own_texts(key):
    """The whole gradient's norm, with the sampled part's by finite differences of NumPy's loss."""
    method = HyPO(divergence_weight=0.3, online_divergence_weight=0.5)
    task, network, state = moved(method)
    own = some_texts(2, 3, seed=9, first=jnp.asarray([[0], [1]]))
    _, metrics = method.update(state, ComparisonsAndCompletions(DATA, own), key=key)
    margin = ratios(network, task.network, DATA.chosen)
    margin = 0.3 * (margin - ratios(network, task.network, DATA.rejected))
    assert float(metrics["loss"]) == pytest.approx(-log_sigmoid(margin).mean(), rel=1e-5)
    ratio = ratios(network, task.network, own)
    assert float(metrics["divergence"]) == pytest.approx(ratio.mean(), rel=1e-4)
    weight = ratio - (ratio.sum(1, keepdims=True) - ratio) / 2

    def loss(table):
        other = SimpleNamespace(table=table)
        margin = ratios(other, task.network, DATA.chosen)
        margin = 0.3 * (margin - ratios(other, task.network, DATA.rejected))
        return -log_sigmoid(margin).mean() + 0.5 * (weight * log_probability(other, own)).mean()

    norm = np.linalg.norm(slopes(loss, network.table))
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-3)


def slopes(loss, table):
    """By central differences."""
    table = np.asarray(table, np.float64)
    found = np.zeros_like(table)
    for place in np.ndindex(table.shape):
        step = np.zeros_like(table)
        step[place] = 1e-4
        found[place] = (loss(table + step) - loss(table - step)) / 2e-4
    return found


def test_inpo_regresses_on_a_mixture_of_reference_and_iterate(key):
    method = INPO(divergence_weight=0.1, iterate_weight=0.4, updates_per_round=2)
    task, network, state = moved(method)
    iterate: Any = PrefixTable(VOCABULARY, CONTEXT, key=jax.random.key(5))
    state = eqx.tree_at(lambda s: s.iterate, state, iterate)
    state, metrics = method.update(state, DATA, key=key)

    def gap(table):
        return log_probability(table, DATA.chosen) - log_probability(table, DATA.rejected)

    target = 0.25 * gap(task.network) + 0.75 * gap(iterate) + 1 / 0.8
    expected = ((gap(network) - target) ** 2).mean()
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)
    # The round has two updates: only after the second the iterate becomes the network.
    assert eqx.tree_equal(state.iterate, iterate)
    assert float(optax.tree.norm(state.tuned.optimiser)) > 1.0
    state, _ = method.update(state, DATA, key=key)
    assert eqx.tree_equal(state.iterate, method.network(state))
    assert float(optax.tree.norm(state.tuned.optimiser)) == 0.0
    assert method.exploring_network(state) is state.iterate


@pytest.mark.parametrize("normalise", [False, True])
def test_sharpening_regresses_on_the_references_own_chances(normalise, key):
    method = RLHFSharpening(divergence_weight=0.3, normalise_lengths=normalise)
    task, network, state = moved(method)
    data = some_texts(2, 3, seed=9, first=jnp.asarray([[0], [1]]))
    _, metrics = method.update(state, data, key=key)
    reward = log_probability(task.network, data) / (length(data) if normalise else 1)
    left = 0.3 * ratios(network, task.network, data) - reward
    pairs = [(left[:, i] - left[:, j]) ** 2 for i, j in itertools.combinations(range(3), 2)]
    assert float(metrics["loss"]) == pytest.approx(np.mean(pairs), rel=1e-5)
    with pytest.raises(SpecificationError, match=r"two or more for each"):
        method.update(state, some_texts(6), key=key)


@pytest.mark.parametrize("kind", ["logistic", "linear", "log", "inverse"])
@pytest.mark.parametrize("bounded", [False, True])
def test_a_reward_model_reads_the_state_after_the_last_token(kind, bounded, key):
    method = RewardModel(open_utility=kind, bounded=bounded, centring_weight=0.2)
    table = PrefixTable(VOCABULARY, CONTEXT, key=key)
    state: Any = method.init(TokenProblem(table), key=key)
    weights = jax.random.normal(key, state.network.weights.shape)
    state = eqx.tree_at(lambda s: s.network.weights, state, weights)
    open_ended = np.arange(ROWS) % 2 == 0
    data = CompletionComparisons(DATA.chosen, DATA.rejected, jnp.asarray(open_ended))

    def rate(texts):
        rows = np.asarray(table.rows(texts.tokens))
        # Responses follow a prompt of one token.
        read = np.asarray(weights, np.float64)[rows[np.arange(ROWS), length(texts)]]
        return 1 / (1 + np.exp(-read)) if bounded else read

    utilities = {
        "logistic": log_sigmoid,
        "linear": lambda x: x,
        "log": lambda x: np.where(
            x > 0.01, np.log(np.maximum(x, 0.01)), np.log(0.01) + 100 * x - 1
        ),
        "inverse": lambda x: np.where(
            x > 0.01, -1 / np.maximum(x, 0.01), -100 + 10_000 * (x - 0.01)
        ),
    }
    margin = rate(DATA.chosen) - rate(DATA.rejected)
    assert np.abs(margin - 0.01).min() > 1e-4
    worth = np.where(open_ended, utilities[kind](margin), log_sigmoid(margin))
    _, metrics = method.update(state, data, key=key)
    assert float(metrics["loss"]) == pytest.approx(-worth.mean(), rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx((margin > 0).mean())
    np.testing.assert_allclose(method.rate(state, DATA.chosen), rate(DATA.chosen), rtol=1e-5)


# The reference implementation ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "loss"),
    [(DPO(divergence_weight=0.3), "sigmoid"), (IPO(divergence_weight=0.3), "ipo")],
)
def test_the_same_loss_as_trl(method, loss, key):
    """TRL's `DPOTrainer` on the same tables, tokens and masks."""
    pytest.importorskip("trl")
    torch = pytest.importorskip("torch")
    from trl import DPOTrainer  # pyright: ignore[reportMissingImports]

    task, network, state = moved(method)
    stacked = jax.tree.map(
        lambda a, b: torch.tensor(np.concatenate([a, b])), DATA.chosen, DATA.rejected
    )
    inputs = {
        "input_ids": stacked.tokens.long(),
        "attention_mask": torch.ones_like(stacked.tokens),
        "completion_mask": stacked.response.long(),
    }
    # All that the loss reads of a trainer, which cannot be made without a model on disk.
    known = {
        "model": _as_torch(network, torch),
        "ref_model": _as_torch(task.network, torch),
        "accelerator": SimpleNamespace(
            device=torch.device("cpu"),
            gather=lambda x: x,
            gather_for_metrics=lambda x: x,
            unwrap_model=lambda x: x,
        ),
        "args": SimpleNamespace(gradient_checkpointing=False, gradient_checkpointing_kwargs=None),
        "aux_loss_enabled": False,
        "ld_alpha": None,
        "precompute_ref_logps": False,
        "f_divergence_type": "reverse_kl",
        "loss_types": [loss],
        "loss_weights": [1.0],
        "beta": 0.3,
        "label_smoothing": 0.0,
        "use_weighting": False,
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    trainer = object.__new__(DPOTrainer)
    for name, value in known.items():
        object.__setattr__(trainer, name, value)
    theirs = trainer._compute_loss(known["model"], inputs, False)
    _, metrics = method.update(state, DATA, key=key)
    assert float(metrics["loss"]) == pytest.approx(float(theirs), rel=1e-5)


def _as_torch(network, torch):
    """What TRL's head, which returns no logits, would say of the tokens that have a label."""

    def forward(_, input_ids, labels, **others):
        logits = torch.tensor(np.asarray(network.logits(jnp.asarray(input_ids.numpy()))))[:, :-1]
        chances, next_labels = logits.log_softmax(-1), labels[:, 1:]
        chosen = chances.gather(-1, next_labels.clamp(min=0)[..., None])[..., 0]
        return SimpleNamespace(
            log_probs=torch.where(next_labels >= 0, chosen, 0.0),
            entropy=-(chances.exp() * chances).sum(-1),
            mean_logits=logits.mean(-1),
            is_top1=logits.argmax(-1) == next_labels,
        )

    fields = {"training": True, "is_gradient_checkpointing": False, "__call__": forward}
    return type("Model", (), fields)()
