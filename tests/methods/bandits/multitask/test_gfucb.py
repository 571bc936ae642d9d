"""GFUCB: its memory, covariances and choice against NumPy, and that it learns what tasks share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.problems.arms import Arms
from headwater.environments.bandits.multitask import SharedFeatureBandit
from headwater.evaluation.bandits import expected_reward
from headwater.methods.bandits.multitask.gfucb import GFUCB
from headwater.runs.learn import learn
from headwater.sources.pulls import LivePulls

from ..rounds import one_best, rounds

PROBLEM, KEY = Arms(4, 3, 2), jax.random.key(0)


def features_of(model, inputs):
    first, last = (np.asarray(x, np.float64) for x in model.network.weights)
    one, two = (np.asarray(x, np.float64) for x in model.network.biases)
    return np.maximum(np.maximum(inputs @ first + one, 0.0) @ last + two, 0.0)


@pytest.mark.parity
def test_memory_covariances_and_choice():
    method = GFUCB(hidden_sizes=(16, 12), memory_size=4, ridge=0.5, bonus_scale=0.7, num_steps=3)
    state, kept = method.init(PROBLEM, key=KEY), {task: [] for task in range(3)}
    update = jax.jit(method.update)
    for seed in range(3):
        # So many that those of a task overwrite each other within a batch.
        data = rounds(PROBLEM, 24, seed=seed)
        tasks = np.argmax(np.asarray(data.context), axis=1)
        assert np.bincount(tasks).max() > 4
        state, _ = update(state, data, key=KEY)
        for context, features, arm, reward in zip(
            *(np.asarray(x) for x in (data.context, data.features, data.arm, data.reward))
        ):
            kept[int(np.argmax(context))].append((features[arm], reward))
    assert all(len(rows) > 4 for rows in kept.values()), "the memory overflowed"
    for task, rows in kept.items():
        assert int(state.pulls[task]) == len(rows)
        order = np.argsort(np.asarray(state.reward[task]))
        last = sorted(rows[-4:], key=lambda row: row[1])
        np.testing.assert_allclose(np.asarray(state.reward[task])[order], [r for _, r in last])
        np.testing.assert_allclose(np.asarray(state.inputs[task])[order], [x for x, _ in last])
        found = features_of(state.model, np.asarray([x for x, _ in last], np.float64))
        inverse = np.linalg.inv(0.5 * np.eye(12) + found.T @ found)
        np.testing.assert_allclose(state.inverse[task], inverse, atol=1e-4)

    data = rounds(PROBLEM, 12, seed=7)
    for context, features in zip(data.context, data.features):
        task = int(np.argmax(np.asarray(context)))
        own = features_of(state.model, np.asarray(features, np.float64))
        mean = own @ np.asarray(state.model.weights[task], np.float64)
        spread = np.einsum("ai,ij,aj->a", own, np.asarray(state.inverse[task], np.float64), own)
        for explore, value in ((True, mean + 0.7 * np.sqrt(spread)), (False, mean)):
            chosen = method.probabilities(state, context, features, key=KEY, explore=explore)
            np.testing.assert_allclose(chosen, one_best(value))


@pytest.mark.parity
def test_the_loss_is_that_of_the_rows_of_every_task_alike():
    # One row of each of two tasks, though one of them was pulled nine times as often.
    context = np.eye(3)[[0] * 9 + [2]]
    data = rounds(PROBLEM, 10)
    data = data.__class__(
        jnp.asarray(context, jnp.float32),
        jnp.broadcast_to(data.features[:1], data.features.shape),
        jnp.zeros(10, jnp.int32),
        jnp.asarray([1.0] * 9 + [-3.0]),
        data.propensity,
    )
    method = GFUCB(learning_rate=0.0, weight_decay=0.0, num_steps=1, batch_size=20_000)
    state = method.init(PROBLEM, key=KEY)
    own = np.asarray(state.model.features(data.features[0, 0]), np.float64)
    found = np.asarray(state.model.weights, np.float64) @ own
    expected = 0.5 * (found[0] - 1.0) ** 2 + 0.5 * (found[2] + 3.0) ** 2
    loss = method.update(state, data, key=KEY)[1]["squared_error"]
    assert float(loss) == pytest.approx(expected, rel=0.05)


@pytest.mark.oracle
def test_tasks_that_want_the_opposite_are_told_apart():
    bandit = SharedFeatureBandit(tasks=2, arms=5, feature_size=3, shared_size=1, noise=0.1, seed=3)
    method = GFUCB(hidden_sizes=(32,), num_steps=60, batch_size=64)
    source = LivePulls(bandit, batch_size=20)
    state = learn(method, bandit.problem, source, 40, key=KEY).state
    agent = Agent(method, state)
    earned = float(expected_reward(bandit, agent, rounds=500, key=jax.random.key(1)))

    def best(key):
        context, features = bandit.show(bandit.reset(), key=jax.random.split(key)[0])
        return jnp.max(bandit.mean_reward(bandit.reset(), context, features))

    most = float(jnp.mean(jax.lax.map(best, jax.random.split(jax.random.key(1), 500))))
    assert earned > 0.9 * most


def test_without_features_there_is_nothing_to_share():
    with pytest.raises(SpecificationError, match="GFUCB chooses by features of the arms"):
        GFUCB().init(Arms(3, 2), key=KEY)
