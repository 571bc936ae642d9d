"""A-LoL against NumPy."""

import equinox as eqx
import numpy as np
import pytest

from headwater.methods.language.rewards.a_lol import ALoL
from headwater.networks.token_table import PrefixTable

from ..text_twin import (
    CONTEXT,
    VOCABULARY,
    log_probabilities,
    problem,
    some_texts,
    update,
)


@pytest.mark.parity
@pytest.mark.parametrize("importance", ["sequence", "token", "none"])
def test_a_lol_loss(importance, key):
    task, data, other = problem(), some_texts(6), PrefixTable(VOCABULARY, CONTEXT)
    method = ALoL(importance_sampling_level=importance, clip_range=0.3, kl_weight=0.2)
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
