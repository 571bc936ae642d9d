"""Models of hidden states against sums over all paths, in double precision."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.ops.tabular.latent_models import (
    Sequences,
    TiedModels,
    likeliest_models,
    observation_law,
    random_models,
    total_variation,
)

TASKS, HIDDEN, ACTIONS, SEEN, STEPS = 2, 3, 2, 3, 2
MODELS = random_models(TASKS, HIDDEN, ACTIONS, SEEN, key=jax.random.key(0))


def some_data(episodes=7):
    random = np.random.default_rng(1)
    return Sequences(
        jnp.asarray(random.integers(0, SEEN, (TASKS, episodes, STEPS + 1)), jnp.int32),
        jnp.asarray(random.integers(0, ACTIONS, (TASKS, episodes, STEPS)), jnp.int32),
        jnp.asarray(random.integers(0, 3, (TASKS, episodes)), jnp.float32),
    )


def paths(models, task, observations, actions):
    """Every hidden path and its joint probability with what was observed."""
    initial, transition, emission = (
        np.asarray(x, np.float64)
        for x in (models.initial, models.transition, models.emission[task])
    )
    for path in itertools.product(range(HIDDEN), repeat=STEPS + 1):
        chance = initial[path[0]] * emission[path[0], observations[0]]
        for step, action in enumerate(actions):
            chance *= transition[path[step], action, path[step + 1]]
            chance *= emission[path[step + 1], observations[step + 1]]
        yield path, chance


def test_laws_are_sums_over_hidden_paths():
    law = observation_law(MODELS.initial, MODELS.transition, MODELS.emission[1], steps=STEPS)
    assert law.shape == (ACTIONS**STEPS, SEEN ** (STEPS + 1))
    np.testing.assert_allclose(jnp.sum(law, axis=1), 1.0, atol=1e-5)
    for i, actions in enumerate(itertools.product(range(ACTIONS), repeat=STEPS)):
        for j, seen in enumerate(itertools.product(range(SEEN), repeat=STEPS + 1)):
            chance = sum(chance for _, chance in paths(MODELS, 1, seen, actions))
            assert float(law[i, j]) == pytest.approx(chance, rel=1e-4)


def test_one_iteration_is_that_of_expected_counts():
    data = some_data()
    initial, emits = np.full(HIDDEN, 0.1), np.full((TASKS, HIDDEN, SEEN), 0.1)
    moves, likelihood = np.full((HIDDEN, ACTIONS, HIDDEN), 0.1), 0.0
    for task in range(TASKS):
        for seen, actions, weight in zip(
            *(np.asarray(x[task]) for x in (data.observation, data.action, data.weight))
        ):
            each = list(paths(MODELS, task, seen, actions))
            total = sum(chance for _, chance in each)
            likelihood += weight * np.log(total)
            for path, chance in each:
                share = weight * chance / total
                initial[path[0]] += share
                for step in range(STEPS + 1):
                    emits[task, path[step], seen[step]] += share
                for step in range(STEPS):
                    moves[path[step], actions[step], path[step + 1]] += share
    found, _ = likeliest_models(data, MODELS, iterations=1, smoothing=0.1)
    for name, counts in (("initial", initial), ("transition", moves), ("emission", emits)):
        expected = counts / counts.sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-3)
    same, before = likeliest_models(data, MODELS, iterations=0, smoothing=0.1)
    assert float(before) == pytest.approx(likelihood, rel=1e-4)
    np.testing.assert_array_equal(same.emission, MODELS.emission)


def test_episodes_of_several_blocks_count_like_weights():
    few = some_data()
    many = jax.tree.map(lambda x: jnp.repeat(x, 40, axis=1), few)
    many = Sequences(many.observation, many.action, jnp.ones_like(many.weight))
    # Room for more, in which nothing was seen.
    room = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 150)] + [(0, 0)] * (x.ndim - 2)), many)
    weighted = Sequences(few.observation, few.action, jnp.full_like(few.weight, 40.0))
    found, likelihood = likeliest_models(room, MODELS, iterations=2, smoothing=0.1)
    expected, total = likeliest_models(weighted, MODELS, iterations=2, smoothing=0.1)
    assert float(likelihood) == pytest.approx(float(total), rel=1e-4)
    for name in ("initial", "transition", "emission"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-3)


def test_likelihoods_rise_and_frozen_parts_stay():
    data, before = some_data(30), -np.inf
    for iterations in (0, 1, 5, 50):
        found, likelihood = likeliest_models(data, MODELS, iterations=iterations, smoothing=0.0)
        assert float(likelihood) > before
        before = float(likelihood)
    frozen, _ = likeliest_models(data, MODELS, iterations=5, smoothing=0.0, frozen=True)
    np.testing.assert_array_equal(frozen.transition, MODELS.transition)
    np.testing.assert_array_equal(frozen.initial, MODELS.initial)
    assert np.abs(frozen.emission - MODELS.emission).max() > 0.01
    assert np.abs(found.transition - MODELS.transition).max() > 0.01


def test_names_of_hidden_states_do_not_matter_to_laws():
    order = jnp.asarray([2, 0, 1])
    renamed = TiedModels(
        MODELS.initial[order],
        MODELS.transition[order][:, :, order],
        MODELS.emission[:, order],
    )
    laws = [
        observation_law(m.initial, m.transition, m.emission[0], steps=STEPS)
        for m in (MODELS, renamed)
    ]
    np.testing.assert_allclose(total_variation(*laws), 0.0, atol=1e-6)
    apart = total_variation(jnp.asarray([[0.5, 0.5, 0.0]]), jnp.asarray([[0.0, 0.5, 0.5]]))
    np.testing.assert_allclose(apart, [0.5])
