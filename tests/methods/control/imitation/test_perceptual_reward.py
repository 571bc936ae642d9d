"""Perceptual rewards against every possible cut, against NumPy, and where stages are known."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.core.errors import DataError, SpecificationError
from headwater.core.records import Demonstrations
from headwater.core.spaces import Box, Spaces
from headwater.methods.control.imitation.perceptual_reward import PerceptualReward
from headwater.runs.learn import learn
from headwater.sources.segments.demonstrations import AllDemonstrations

SIZE = 4
SPACES = Spaces(Box((-9.0,) * SIZE, (9.0,) * SIZE), Box((-1.0,), (1.0,)))


def demonstrations(count=4, frames=14, seed=0) -> Demonstrations:
    draw = np.random.default_rng(seed)
    length = draw.integers(frames - 4, frames + 1, count)
    seen = draw.normal(size=(count, frames, SIZE)).astype(np.float32)
    return Demonstrations(jnp.asarray(seen), jnp.asarray(length, jnp.int32))


def learned(method, data):
    state = method.init(SPACES, key=jax.random.key(0))
    return eqx.filter_jit(method.update)(state, data, key=jax.random.key(1))


def cost(kind, part, floor):
    """Of one stage, in NumPy and doubles."""
    variance = part.var(0)
    if kind == "variance":
        return len(part) * variance.mean()
    if kind == "likelihood":
        return 0.5 * len(part) * np.log(variance + floor**2).mean()
    return np.sqrt(variance).mean()


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["likelihood", "variance", "deviation"])
def test_cuts_are_the_best_of_all(kind):
    method = PerceptualReward(feature_source="observed", stage_cost=kind, shortest_stage=3)
    data = demonstrations()
    state, _ = learned(method, data)
    stages = np.asarray(eqx.filter_jit(method.stages)(state, data))
    for seen, length, found in zip(data.observation, data.length, stages):
        length = int(length)
        standard = (np.asarray(seen, np.float64) - np.asarray(state.centre)) / np.asarray(
            state.scale
        )
        best = min(
            (
                sum(cost(kind, standard[a:b], 0.1) for a, b in itertools.pairwise((0, *c, length))),
                c,
            )
            for c in itertools.combinations(range(3, length - 2), 2)
            if c[1] - c[0] >= 3
        )[1]
        assert tuple(np.flatnonzero(np.diff(found[:length])) + 1) == best


@pytest.mark.parity
def test_stages_and_rewards_are_those_of_numpy():
    method = PerceptualReward(num_features=7, num_chosen=3, contrast_weight=2.0)
    data = demonstrations()
    state, metrics = learned(method, data)
    network = state.network
    assert network is not None
    weight, bias = (np.asarray(x[0], np.float64) for x in (network.weights, network.biases))
    known = np.arange(data.observation.shape[1])[None] < np.asarray(data.length)[:, None]
    stage = np.asarray(method.stages(state, data))[known]
    found = np.maximum(np.asarray(data.observation)[known] @ weight + bias, 0.0)
    found = (found - found.mean(0)) / found.std(0)
    reward, contrasts = np.zeros(len(found)), []
    for i in range(3):
        own, others = found[stage == i], found[stage != i]
        contrast = np.abs(own.mean(0) - others.mean(0))
        chosen = np.argsort(-(2.0 * contrast - own.std(0) - others.std(0)))[:3]
        contrasts.append(contrast[chosen].mean())
        deviation = np.maximum(own.std(0), 0.1)
        away = np.log((((found - own.mean(0)) / deviation) ** 2)[:, chosen].mean(1) + 1e-6)
        near, far = away[stage == i].mean(), away[stage != i].mean()
        reward += (0.0, 2.0, 4.0)[i] * np.clip((far - away) / (far - near), 0.0, 1.0)
    rewards, apart = method.rewards(state, data.observation, jnp.zeros((*known.shape, 1)))
    np.testing.assert_allclose(np.asarray(rewards)[known], reward, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(metrics["contrast"], np.mean(contrasts), rtol=1e-4)
    assert metrics["frames"] == known.sum() and np.all(np.asarray(apart) >= 0)


@pytest.mark.oracle
def test_it_finds_stages_that_look_different():
    """Three levels of one component, for as long as each demonstration likes."""
    draw = np.random.default_rng(1)
    lengths = draw.integers(6, 20, (8, 3))
    data = np.zeros((8, 60, SIZE), np.float32)
    stage = np.full((8, 60), 3)
    for i, parts in enumerate(lengths):
        own = np.repeat(np.arange(3), parts)
        stage[i, : len(own)] = own
        data[i, : len(own), 0] = np.asarray([0.0, 2.0, 4.0])[own]
    data += 0.1 * draw.normal(size=data.shape).astype(np.float32)
    given = Demonstrations(jnp.asarray(data), jnp.asarray(lengths.sum(1), jnp.int32))
    method = PerceptualReward(feature_source="observed", num_chosen=1)
    source = AllDemonstrations(given)
    state = eqx.filter_jit(learn)(method, SPACES, source, 1, key=jax.random.key(0)).state
    known = stage < 3
    np.testing.assert_array_equal(np.asarray(method.stages(state, given))[known], stage[known])
    reward, _ = method.rewards(state, given.observation, jnp.zeros((*stage.shape, 1)))
    means = [np.mean(np.asarray(reward)[stage == i]) for i in range(3)]
    assert means[0] < 0.3 and 1.4 < means[1] < 2.8 and 2.9 < means[2] <= 4.0
    # A demonstration without room for all stages is not learned from.
    shorter = eqx.tree_at(lambda d: d.length, given, given.length.at[0].set(5))
    _, metrics = learned(method, shorter)
    assert metrics["frames"] == int(given.length[1:].sum())


def log(episodes=6, frames=12, actions=None) -> hw.Dataset:
    """Two levels of the first component, half of the episodes each; no rewards, perhaps no
    actions."""
    draw = np.random.default_rng(0)
    rows = episodes * frames
    seen = 0.1 * draw.normal(size=(rows, 2))
    seen[:, 0] += np.tile(np.arange(frames) >= frames // 2, episodes)
    ends = np.tile(np.arange(frames) == frames - 1, episodes)
    actions = np.full((rows, 1), np.nan) if actions is None else actions
    return hw.Dataset.from_arrays(
        seen, actions, np.zeros(rows), np.zeros(rows, bool), ends, missing_actions="keep"
    )


def test_videos_without_actions_are_labelled_through_the_front_door(tmp_path):
    data = log()
    method = PerceptualReward(num_stages=2, feature_source="observed", num_chosen=1)
    run = hw.train(method, data, seeds=1, out=tmp_path / "run", progress=False)
    filled = hw.label(data, tmp_path / "run")
    late = data.observations[:, 0] > 0.5
    assert filled.rewards[late].min() > filled.rewards[~late].max()
    record = filled.metadata["inferred_rewards"]
    assert record["by"] == "PerceptualReward" and record["rows"] == data.size
    # What acts is rewarded as the same row of a log is.
    spaces = run.spaces
    state = jax.tree.map(lambda leaf: leaf[0], run.state)
    reward, _ = method.rewards(state, jnp.asarray(data.observations), jnp.zeros((data.size, 1)))
    np.testing.assert_allclose(filled.rewards, reward, atol=1e-5)
    assert spaces.observation_size == 2


@pytest.mark.parametrize(
    ("frames", "options", "error", "message"),
    [
        (4, {}, DataError, "episode 0 has 4 frames, and PerceptualReward needs at least 6 of each"),
        (2_010, {}, DataError, "needs at most 2,000 of each: leave such episodes out, or thin"),
        (9, {"weights": "return"}, SpecificationError, "all alike: leave out weights"),
    ],
)
def test_what_demonstrations_cannot_be(frames, options, error, message):
    actions = np.zeros((2 * frames, 1))
    with pytest.raises(error, match=message):
        hw.train("PerceptualReward", log(2, frames, actions), **options, seeds=1, progress=False)
