"""Losses of TRL on tables, where it is installed."""

from collections import defaultdict
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from .text_twin import DATA, moved


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


def _as_torch(network, torch):
    """What TRL's head, which returns no logits, would say of the tokens that have a label."""

    def forward(_, input_ids, labels, **others):
        logits = torch.tensor(np.asarray(network.logits(jnp.asarray(input_ids.numpy()))))[:, :-1]
        probabilities, next_labels = logits.log_softmax(-1), labels[:, 1:]
        chosen = probabilities.gather(-1, next_labels.clamp(min=0)[..., None])[..., 0]
        return SimpleNamespace(
            log_probs=torch.where(next_labels >= 0, chosen, 0.0),
            entropy=-(probabilities.exp() * probabilities).sum(-1),
            mean_logits=logits.mean(-1),
            is_top1=logits.argmax(-1) == next_labels,
        )

    fields = {"training": True, "is_gradient_checkpointing": False, "__call__": forward}
    return type("Model", (), fields)()


def expect_loss_of_dpo_trainer(method, loss, key):
    """Fails unless `method` has the loss of TRL's `DPOTrainer` on the same tables and masks."""
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
