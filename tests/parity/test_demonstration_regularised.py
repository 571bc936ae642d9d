"""Cloning by counts and UCBVI-Ent+ against a transcription of their equations in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes
from headwater.methods.tabular.offline.tabular_cloning import TabularCloning
from headwater.methods.tabular.online.demonstration_regularised import DemonstrationRegularised

HORIZON, STATES, ACTIONS, EPISODES = 3, 3, 2, 40


@pytest.fixture(scope="module")
def data():
    draw = np.random.default_rng(0)
    return Episodes(
        jnp.asarray(draw.integers(0, STATES, (EPISODES, HORIZON + 1)), jnp.int32),
        jnp.asarray(draw.integers(0, ACTIONS, (EPISODES, HORIZON)), jnp.int32),
        jnp.asarray(draw.uniform(size=(EPISODES, HORIZON)), jnp.float32),
    )


def transcribed(data, anchor, temperature, scale, failure, known):
    """Backwards over steps, states and actions, as the equations are written."""
    data = jax.tree.map(np.asarray, data)
    shape = (HORIZON, STATES, ACTIONS)
    visits, following, earned = np.zeros(shape), np.zeros((*shape, STATES)), np.zeros(shape)
    for episode in range(EPISODES):
        for step in range(HORIZON):
            at = step, data.state[episode, step], data.action[episode, step]
            visits[at] += 1
            following[(*at, data.state[episode, step + 1])] += 1
            earned[at] += data.reward[episode, step]
    upper, lower, gap = np.zeros((3, STATES))
    target, doubt = np.zeros(shape), np.zeros(shape)
    event = np.log(3 * STATES * ACTIONS * HORIZON / failure)
    for step in reversed(range(HORIZON)):
        left, above, below = (
            HORIZON - step,
            np.zeros((STATES, ACTIONS)),
            np.zeros((STATES, ACTIONS)),
        )
        rest = np.zeros((STATES, ACTIONS))
        for s in range(STATES):
            for a in range(ACTIONS):
                n = visits[step, s, a]
                if n == 0:
                    above[s, a], below[s, a], rest[s, a] = left, 0.0, left
                    continue
                row = following[step, s, a] / n
                narrow = event + np.log(8 * np.e * (n + 1))
                wide = event + STATES * np.log(8 * np.e * (n + 1))
                variance = row @ (upper - row @ upper) ** 2
                bonus = 3 * np.sqrt(variance * narrow / n) + 9 * HORIZON**2 * wide / n
                if known is None:
                    reward = earned[step, s, a] / n
                    bonus += np.sqrt(narrow / (2 * n))
                else:
                    reward = known[step, s, a]
                bonus = scale * bonus + row @ (upper - lower) / HORIZON
                above[s, a] = min(max(reward + row @ upper + bonus, 0), left)
                below[s, a] = min(max(reward + row @ lower - bonus, 0), left)
                rest[s, a] = (1 + 1 / HORIZON) * (row @ gap) + scale * 4 * HORIZON**2 * wide / n
        weight = anchor[step] * np.exp(above / temperature)
        target[step] = weight / weight.sum(1, keepdims=True)
        upper = temperature * np.log(weight.sum(1))
        lower = temperature * np.log((anchor[step] * np.exp(below / temperature)).sum(1))
        doubt[step] = above - below
        gap = (above - below).max(1) ** 2 / (2 * temperature) + (target[step] * rest).sum(1)
        gap = np.minimum(gap, left)
    return target, doubt, gap


@pytest.mark.parametrize("known", [False, True])
def test_plan_and_gap(data, known):
    draw = np.random.default_rng(1)
    reward = draw.uniform(size=(HORIZON, STATES, ACTIONS)).astype(np.float32)
    anchor = draw.dirichlet(np.ones(ACTIONS), (HORIZON, STATES)).astype(np.float32)
    method = DemonstrationRegularised(0.4, 0.002, 0.2)
    problem = FiniteProblem(STATES, ACTIONS, HORIZON, reward=jnp.asarray(reward) if known else None)
    state = method.around(problem, jnp.asarray(anchor), key=jax.random.key(0))
    state = jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(3))[0])(state, data)
    target, doubt, gap = transcribed(data, anchor, 0.4, 0.002, 0.2, reward if known else None)
    np.testing.assert_allclose(state.target, target, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.doubt, doubt, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.gap, gap, rtol=1e-4, atol=1e-5)
    explored, judged = (np.asarray(method.policy(state, explore=e)) for e in (True, False))
    left_at = int(state.left_at)
    for step in range(HORIZON):
        if step == left_at:
            assert np.array_equal(explored[step], np.eye(ACTIONS)[doubt[step].argmax(-1)])
        else:
            assert np.array_equal(explored[step], judged[step])


def test_cloning_counts_in_pieces(data):
    method = TabularCloning(smoothing=0.5)
    state = method.init(FiniteProblem(STATES, ACTIONS, HORIZON), key=jax.random.key(0))
    update = jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0)))
    first, metrics = update(state, jax.tree.map(lambda x: x[:25], data))
    np.testing.assert_allclose(
        metrics["negative_log_likelihood"], HORIZON * np.log(ACTIONS), rtol=1e-6
    )
    policy = method.policy(update(first, jax.tree.map(lambda x: x[25:], data))[0], explore=False)
    data = jax.tree.map(np.asarray, data)
    for step in range(HORIZON):
        for s in range(STATES):
            here = data.action[data.state[:, step] == s, step]
            counts = np.bincount(here, minlength=ACTIONS)
            expected = (counts + 0.5) / (len(here) + 0.5 * ACTIONS)
            np.testing.assert_allclose(policy[step, s], expected, rtol=1e-6)


def test_an_anchor_of_another_shape_is_refused():
    problem = FiniteProblem(STATES, ACTIONS, HORIZON)
    with pytest.raises(SpecificationError) as caught:
        DemonstrationRegularised().around(problem, jnp.ones((2, 2)), key=jax.random.key(0))
    assert str(caught.value) == (
        "DemonstrationRegularised got an anchor of shape (2, 2), but the problem has (horizon, "
        "state, action) = (3, 3, 2)"
    )
