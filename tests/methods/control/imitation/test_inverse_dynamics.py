"""Inverse dynamics against motion whose actions are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from headwater.core.errors import SpecificationError
from headwater.core.records import ActionWindows
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.imitation.inverse_dynamics import InverseDynamics
from headwater.runs.learn import learn
from headwater.sources.action_windows import ActionWindowReplay

ROWS, STEPS = 2_000, 20
SMALL = {"learning_rate": 3e-3, "hidden_sizes": (32, 32)}


def walk(force) -> tuple[np.ndarray, np.ndarray]:
    """Places before and after each force moved a mass of one, `[row, 1]`, from rest at 0."""
    forces = np.asarray(force).reshape(-1, STEPS)
    velocity = np.cumsum(0.1 * forces, axis=1)
    place = np.cumsum(velocity, axis=1)
    before = np.concatenate([np.zeros((len(forces), 1)), place[:, :-1]], axis=1)
    return before.reshape(-1, 1).astype(np.float32), place.reshape(-1, 1).astype(np.float32)


def source(before, after, actions, history, future=1) -> ActionWindowReplay:
    rows = np.arange(len(before))
    first = rows - rows % STEPS
    last = first + STEPS - 1
    return ActionWindowReplay(
        *map(jnp.asarray, (before, after, actions, first, last, rows)), history, future, 128
    )


@pytest.mark.oracle
def test_a_hidden_velocity_is_told_by_the_observation_before():
    force = np.random.default_rng(0).uniform(-1, 1, (ROWS, 1)).astype(np.float32)
    before, after = walk(force)
    spaces = Spaces(Box((-9.0,), (9.0,)), Box((-1.0,), (1.0,)))
    errors = {}
    for history in (0, 1):
        method = InverseDynamics(history=history, normalise_observations=False, **SMALL)
        log = source(before, after, force, history)

        @eqx.filter_jit
        def labels(method, log):
            state = learn(method, spaces, log, 2_000, key=jax.random.key(0)).state
            return method.label(state, log.windows(jnp.arange(ROWS)))

        label, confidence = labels(method, log)
        errors[history] = np.abs(np.asarray(label) - force)[:, 0]
        right = errors[history] <= 0.1
        assert np.all((confidence >= 0) & (confidence <= 1))
        np.testing.assert_allclose(np.mean(confidence), right.mean(), atol=0.1)
    # Two places and the one before give the force exactly; without it the velocity is unknown.
    # The first row of an episode has no place before it, but begins at rest.
    assert errors[1].mean() < 0.03 < 0.2 < errors[0].mean()


@pytest.mark.oracle
def test_discrete_actions_are_told_with_their_probability():
    rng = np.random.default_rng(1)
    action = rng.integers(0, 3, ROWS).astype(np.int32)
    # One in five moves is slipped: then nothing tells which action it was.
    moved = np.where(rng.random(ROWS) < 0.8, action - 1.0, 0.0)
    before = np.zeros((ROWS, 1), np.float32)
    after = moved[:, None].astype(np.float32)
    spaces = Spaces(Box((-9.0,), (9.0,)), Discrete(3))
    method, log = InverseDynamics(history=0, **SMALL), source(before, after, action, 0)
    state = eqx.filter_jit(learn)(method, spaces, log, 1_000, key=jax.random.key(0)).state
    label, confidence = method.label(state, log.windows(jnp.arange(ROWS)))
    np.testing.assert_array_equal(label, np.where(moved == 0, 1, action))
    # Of the rows that did not move, a third of all chose to stay and a fifth of the rest slipped.
    stay = np.mean(action[moved == 0] == 1)
    np.testing.assert_allclose(confidence[moved == 0], stay, atol=0.05)
    assert np.min(confidence[moved != 0]) > 0.98


@pytest.mark.parity
def test_loss_and_confidence_are_those_of_a_squashed_normal():
    spaces = Spaces(Box((-9.0, -9.0), (9.0, 9.0)), Box((-1.0,), (1.0,)))
    method = InverseDynamics(hidden_sizes=(4,))
    state = method.init(spaces, key=jax.random.key(0))
    keys = jax.random.split(jax.random.key(1))
    seen = jax.random.normal(keys[0], (5, 3, 2))
    data = ActionWindows(seen, jax.random.uniform(keys[1], (5, 1), minval=-0.9, maxval=0.9))
    after, metrics = method.update(state, data, key=keys[0])
    changes = np.diff(np.asarray(seen), axis=1)
    size = np.sqrt(np.mean(changes**2, axis=(0, 1)))
    np.testing.assert_allclose(np.sqrt(after.mean_square), size, rtol=1e-6)
    inputs = np.concatenate([np.asarray(seen[:, 1]), (changes / size).reshape(5, 4)], axis=1)

    def squashed(network):
        out = inputs
        for i, (weight, bias) in enumerate(zip(network.weights, network.biases)):
            out = out @ np.asarray(weight) + np.asarray(bias)
            out = np.maximum(out, 0) if i == 0 else out
        return out[:, 0], np.exp(np.clip(out[:, 1], -5, 2))

    mean, std = squashed(state.network.network)
    action = np.asarray(data.action)[:, 0]
    density = norm.logpdf(np.arctanh(action), mean, std) - np.log(1 - action**2)
    np.testing.assert_allclose(metrics["loss"], -density.mean(), rtol=1e-4)
    label, confidence = method.label(after, data)
    mean, std = squashed(after.network.network)
    np.testing.assert_allclose(label[:, 0], np.tanh(mean), rtol=1e-4)
    edges = [np.arctanh(np.tanh(mean) + shift) for shift in (-0.1, 0.1)]
    np.testing.assert_allclose(
        confidence, norm.cdf(edges[1], mean, std) - norm.cdf(edges[0], mean, std), rtol=1e-3
    )


@pytest.mark.oracle
def test_an_action_that_shows_late_is_told_by_later_observations():
    # Each step goes where the action of the step before said; that of the last step never shows.
    action = np.random.default_rng(2).integers(0, 2, (ROWS // STEPS, STEPS)).astype(np.int32)
    moved = np.concatenate([np.zeros((len(action), 1)), 2.0 * action[:, :-1] - 1.0], axis=1)
    after = np.cumsum(moved, axis=1).reshape(-1, 1).astype(np.float32)
    before = after - moved.reshape(-1, 1).astype(np.float32)
    spaces = Spaces(Box((-20.0,), (20.0,)), Discrete(2))
    right = {}
    for future in (1, 2):
        method = InverseDynamics(
            history=0,
            future=future,
            learning_rate=1e-2,
            normalise_observations=False,
            hidden_sizes=(16,),
        )
        log = source(before, after, action.reshape(-1), 0, future)
        state = eqx.filter_jit(learn)(method, spaces, log, 400, key=jax.random.key(0)).state
        label, _ = method.label(state, log.windows(jnp.arange(ROWS)))
        right[future] = (np.asarray(label).reshape(-1, STEPS) == action)[:, :-1].mean()
    assert right[2] > 0.99 and right[1] < 0.65


def test_windows_of_another_length_are_refused():
    spaces = Spaces(Box((-9.0,), (9.0,)), Box((-1.0,), (1.0,)))
    method = InverseDynamics(history=3, hidden_sizes=(4,))
    state = method.init(spaces, key=jax.random.key(0))
    with pytest.raises(SpecificationError, match="looks at 5 observations for each action, but"):
        method.label(state, ActionWindows(jnp.zeros((2, 3, 1)), jnp.zeros((2, 1))))
    with pytest.raises(SpecificationError, match="history = 0 and future = 0 sees no change"):
        InverseDynamics(history=0, future=0)
