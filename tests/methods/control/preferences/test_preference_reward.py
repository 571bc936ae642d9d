"""The preference reward against NumPy, and against rewards that a judge went by."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import SegmentComparisons, Segments
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.preferences.preference_reward import PreferenceReward
from headwater.runs.learn import learn
from headwater.sources.segments.compared import ComparedSegments

SPACES = Spaces(Box((-9.0, -9.0), (9.0, 9.0)), Box((-1.0,), (1.0,)))


def pairs(count=6, steps=4) -> SegmentComparisons:
    keys = jax.random.split(jax.random.key(1), 4)
    segments = [
        Segments(
            jax.random.normal(keys[i], (count, steps, 2)),
            jax.random.uniform(keys[i + 2], (count, steps, 1), minval=-1.0),
        )
        for i in range(2)
    ]
    preference = jnp.asarray([1.0, 0.0, 0.5] * (count // 3))
    return SegmentComparisons(segments[0], segments[1], preference)


@pytest.mark.parity
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_loss_is_that_of_bradley_and_terry_with_random_answers(share):
    method = PreferenceReward(num_members=2, error_share=share, hidden_sizes=(5,))
    state = method.init(SPACES, key=jax.random.key(0))
    data = pairs()
    _, metrics = method.update(state, data, key=jax.random.key(2))
    network = state.ensemble.stacked.network

    def total(segments, member):
        x = np.concatenate([segments.observation, segments.action], axis=-1)
        for i, (weight, bias) in enumerate(zip(network.weights, network.biases)):
            x = x @ np.asarray(weight[member]) + np.asarray(bias[member])
            x = np.maximum(x, 0) if i == 0 else x
        return x[..., 0].sum(1)

    losses = []
    for member in range(2):
        margin = total(data.first, member) - total(data.second, member)
        chance = (1 - share) / (1 + np.exp(-margin)) + share / 2
        y = np.asarray(data.preference)
        losses.append(-y * np.log(chance) - (1 - y) * np.log(1 - chance))
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize("discrete", [False, True])
def test_it_finds_the_reward_that_a_judge_goes_by_up_to_a_constant(discrete):
    draw = np.random.default_rng(0)
    rows, length = 3_000, 5
    place = draw.uniform(-1, 1, (rows, 2)).astype(np.float32)
    if discrete:
        spaces = Spaces(SPACES.observation, Discrete(3))
        action = draw.integers(0, 3, rows).astype(np.int32)
        reward = np.asarray([0.0, 1.0, -1.0])[action] * (place[:, 0] > 0) - place[:, 1] ** 2
    else:
        spaces = SPACES
        action = draw.uniform(-1, 1, (rows, 1)).astype(np.float32)
        reward = 2 * place[:, 0] * action[:, 0] - place[:, 1] ** 2
    begins = draw.integers(0, rows - length, (2, 4_000))
    worth = [sum(reward[b + t] for t in range(length)) for b in begins]
    chance = 1 / (1 + np.exp(-2 * (worth[0] - worth[1])))
    preference = (draw.random(4_000) < chance).astype(np.float32)
    source = ComparedSegments(*map(jnp.asarray, (place, action, *begins, preference)), length, 64)
    method = PreferenceReward(
        num_members=2, error_share=0.0, learning_rate=3e-3, hidden_sizes=(32, 32)
    )
    run = eqx.filter_jit(learn)
    state = run(method, spaces, source, 1_500, key=jax.random.key(0)).state
    found, apart = method.rewards(state, jnp.asarray(place), jnp.asarray(action))
    assert np.corrcoef(found, 2 * reward)[0, 1] > 0.95
    # The unit is that of the odds, so that the slope is the judge's.
    assert 0.8 < np.polyfit(2 * reward, found, 1)[0] < 1.25
    assert np.all(apart >= 0) and np.mean(apart) < 0.5 * np.std(found)


def test_the_order_in_a_pair_does_not_matter():
    method = PreferenceReward(num_members=2, hidden_sizes=(5,))
    state = method.init(SPACES, key=jax.random.key(0))
    data = pairs()
    turned = dataclasses.replace(
        data, first=data.second, second=data.first, preference=1.0 - data.preference
    )
    after, _ = method.update(state, data, key=jax.random.key(1))
    other, _ = method.update(state, turned, key=jax.random.key(1))
    for one, two in zip(jax.tree.leaves(after), jax.tree.leaves(other)):
        np.testing.assert_allclose(one, two, atol=1e-6)
