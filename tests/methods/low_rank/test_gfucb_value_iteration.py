"""GFUCB for processes: its values and its loss against NumPy, and that it learns several tasks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes
from headwater.environments.linear.shared_features import shared_feature_tasks
from headwater.methods.low_rank.gfucb_value_iteration import GFUCBValueIteration
from headwater.ops.tabular.planning import expected_return, optimal_values
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes

KEY, TASKS, STATES, ACTIONS, HORIZON = jax.random.key(0), 2, 4, 3, 2
FAMILY = shared_feature_tasks(
    tasks=TASKS, states=STATES, actions=ACTIONS, horizon=HORIZON, feature_size=5, rank=2, key=KEY
)
PROBLEM = FAMILY.problem


def some_episodes(number=30, seed=0):
    random = np.random.default_rng(seed)
    return Episodes(
        jnp.asarray(random.integers(0, STATES, (TASKS, number, HORIZON + 1)), jnp.int32),
        jnp.asarray(random.integers(0, ACTIONS, (TASKS, number, HORIZON)), jnp.int32),
        jnp.asarray(random.random((TASKS, number, HORIZON)), jnp.float32),
    )


def features_of(model, step):
    inputs = np.asarray(PROBLEM.features[0, step], np.float64)
    first, last = (np.asarray(x[step], np.float64) for x in model.network.weights)
    one, two = (np.asarray(x[step], np.float64) for x in model.network.biases)
    return np.maximum(np.maximum(inputs @ first + one, 0.0) @ last + two, 0.0)


@pytest.mark.parity
@pytest.mark.parametrize("known", [False, True])
def test_values_are_those_of_least_squares_in_the_features_found(known):
    method = GFUCBValueIteration(hidden_sizes=(7, 6), ridge=0.5, bonus_scale=0.3, num_steps=3)
    problem = dataclasses.replace(PROBLEM, reward=FAMILY.process.reward if known else None)
    state, batches = method.init(problem, key=KEY), [some_episodes(seed=s) for s in range(2)]
    for data in batches:
        state, _ = jax.jit(method.update)(state, data, key=KEY)
    for task in range(TASKS):
        following = np.zeros(STATES)
        for step in reversed(range(HORIZON)):
            found = features_of(state.model, step)
            matrix, right = 0.5 * np.eye(6), np.zeros(6)
            for data in batches:
                here, there = data.state[task, :, step], data.state[task, :, step + 1]
                for s, a, r, t in zip(
                    *(np.asarray(x) for x in (here, data.action[task, :, step])),
                    np.asarray(data.reward[task, :, step], np.float64),
                    np.asarray(there),
                ):
                    earned = float(FAMILY.process.reward[task, step, s, a]) if known else r
                    matrix += np.outer(found[s, a], found[s, a])
                    right += found[s, a] * (earned + following[t])
            inverse = np.linalg.inv(matrix)
            spread = np.einsum("sai,ij,saj->sa", found, inverse, found)
            value = np.minimum(found @ inverse @ right + 0.3 * np.sqrt(spread), HORIZON - step)
            np.testing.assert_allclose(state.action_value[task, step], value, atol=1e-4)
            following = value.max(axis=1)


@pytest.mark.parity
def test_the_loss_is_that_of_all_steps_of_all_tasks():
    method = GFUCBValueIteration(learning_rate=0.0, weight_decay=0.0, hidden_sizes=(7, 6))
    state, data = method.init(PROBLEM, key=KEY), some_episodes()
    later, metrics = method.update(state, data, key=KEY)
    values = np.asarray(later.action_value, np.float64).max(axis=-1)
    errors = []
    for step in range(HORIZON):
        own = np.asarray(state.model.weights[step], np.float64)
        found = np.einsum("sak,ik->isa", features_of(state.model, step), own)
        here, action = (np.asarray(x[:, :, step]) for x in (data.state, data.action))
        # Against the mean target of equal states and actions.
        target = np.asarray(data.reward[:, :, step], np.float64)
        if step + 1 < HORIZON:
            there = np.asarray(data.state[:, :, step + 1])
            target += np.take_along_axis(values[:, step + 1], there, axis=1)
        for task in range(TASKS):
            for i in range(here.shape[1]):
                same = (here[task] == here[task, i]) & (action[task] == action[task, i])
                mean = target[task][same].mean()
                errors.append((found[task, here[task, i], action[task, i]] - mean) ** 2)
    assert float(metrics["squared_error"]) == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.oracle
def test_every_task_gets_its_own_policy():
    family = shared_feature_tasks(
        tasks=4, states=6, actions=3, horizon=2, feature_size=4, rank=2, key=jax.random.key(3)
    )
    method = GFUCBValueIteration(hidden_sizes=(32,))
    source = FreshEpisodes(family.process, tasks=4)
    state = learn(method, family.problem, source, 100, key=KEY).state
    earned = jax.vmap(expected_return)(family.process, method.policy(state, explore=False))
    start = family.process.initial
    best = jnp.einsum("is,is->i", start, jax.vmap(optimal_values)(family.process).value[:, 0])
    uniform = jnp.full((4, 2, 6, 3), 1.0 / 3.0)
    even = jax.vmap(expected_return)(family.process, uniform)
    assert np.all(np.asarray((best - earned) / (best - even)) < 0.2)


def test_features_have_to_be_those_of_all_tasks():
    wrong = dataclasses.replace(PROBLEM, features=PROBLEM.features.at[1].add(1.0))
    with pytest.raises(SpecificationError, match="give all tasks the same features"):
        GFUCBValueIteration().init(wrong, key=KEY)


@pytest.mark.equivalence
def test_a_process_alone_is_one_task():
    method, data = GFUCBValueIteration(hidden_sizes=(7, 6), num_steps=3), some_episodes()
    found = {}
    for tasks, lead in ((None, ()), (1, (1,))):
        problem = FiniteProblem(STATES, ACTIONS, HORIZON, tasks=tasks)
        one = jax.tree.map(lambda x, lead=lead: x[0].reshape(*lead, *x.shape[1:]), data)
        state, _ = jax.jit(method.update)(method.init(problem, key=KEY), one, key=KEY)
        found[tasks] = state.action_value, method.policy(state, explore=True)
    np.testing.assert_allclose(found[None][0], found[1][0], atol=1e-5)
    np.testing.assert_array_equal(found[None][1], found[1][1][0])
