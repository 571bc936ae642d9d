"""Losses of pretraining against NumPy, and the stages that it begins."""

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from headwater.core.errors import SpecificationError
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.imitation.encoded_bc import EncodedBC
from headwater.methods.control.imitation.inverse_dynamics_pretraining import (
    InverseDynamicsPretraining,
)
from headwater.runs.loop import run
from headwater.runs.recipes.pretraining import imitation_stages
from headwater.sources.replay import Replay

from ..numpy_twin import CHOICES, batch, begin, leaves, problem, standardised, update

SMALL = {"embedding_size": 4, "hidden_sizes": (8,)}


def forward(network, x):
    """One hidden layer."""
    first, last, bias, last_bias = leaves((network.weights, network.biases))
    return np.maximum(x @ first + bias, 0) @ last + last_bias


def features(encoder, observation):
    found = forward(encoder.network, observation)
    centred = found - found.mean(-1, keepdims=True)
    return np.tanh(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5))


def directions(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("pretext", ["inverse", "cloning", "forward", "contrastive"])
def test_losses(pretext):
    for discrete in (False, True):
        method = InverseDynamicsPretraining(pretext, **SMALL)
        state, data = begin(method, discrete), batch(0, discrete)
        _, metrics = update(method, state, data, key=jax.random.key(0))
        # What follows terminal rows, in this batch, is no number.
        used = np.flatnonzero(~np.asarray(data.terminal) | (pretext == "cloning"))
        action = np.asarray(data.action)[used]
        before = standardised(data.observation)[used]
        after = standardised(data.next_observation)[used]
        now, acted = (
            features(state.encoder, before),
            np.eye(CHOICES)[action] if discrete else action,
        )
        if pretext in ("inverse", "cloning"):
            inputs = now
            if pretext == "inverse":
                inputs = np.concatenate([now, features(state.encoder, after)], axis=1)
            found = forward(state.heads.first, inputs)
            if discrete:
                expected = -log_softmax(found, axis=1)[np.arange(len(used)), action].mean()
            else:
                expected = np.mean((found - action) ** 2)
        else:
            found = forward(state.heads.first, np.concatenate([now, acted], axis=1))
            if pretext == "forward":
                expected = np.mean((found - after) ** 2)
            else:
                other = forward(state.heads.second, features(state.encoder, after))
                likeness = directions(found) @ directions(other).T
                expected = -np.diag(log_softmax(likeness, axis=1)).mean()
        np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)


def test_stages_hand_the_features_over_and_leave_them_as_they_are():
    data = batch(0, False)
    pretraining, cloning = InverseDynamicsPretraining(**SMALL), EncodedBC(**SMALL)
    stages = imitation_stages(
        pretraining, Replay(data, 8), cloning, Replay(data, 8), pretraining_updates=3, updates=2
    )
    outcomes = run(stages, [problem(False)], seeds=[0]).outcomes
    before, after = outcomes["pretraining"].state, outcomes["cloning"].state
    for left, right in zip(
        jax.tree.leaves((before.encoder, before.normaliser)), jax.tree.leaves(after.encoding)
    ):
        np.testing.assert_array_equal(left, right)
    for wrong, message in (
        ((BC(), cloning), "BC learns no features of observations"),
        ((pretraining, BC()), "BC cannot begin with features"),
    ):
        with pytest.raises(SpecificationError, match=message):
            imitation_stages(
                wrong[0], Replay(data), wrong[1], Replay(data), pretraining_updates=1, updates=1
            )
