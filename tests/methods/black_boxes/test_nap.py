"""NAP against losses computed in NumPy, and against a search whose best policy is known."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries, TaskQueries
from headwater.methods.black_boxes.nap import NAP
from headwater.networks.meta.acquisition_process import bucket_of, expected_value, history_of
from headwater.parts.meta.table_searches import (
    losses_of,
    searched,
    units_of,
)

SPACE = SearchSpace((0.0,), (2.0,), capacity=6)
TINY = NAP(
    budget=3,
    episodes_per_update=4,
    contexts_per_episode=2,
    num_minibatches=2,
    width=8,
    num_layers=1,
    num_heads=2,
    num_buckets=5,
)
PLACES = np.linspace(0.0, 1.0, 6)


def tables(tasks=3, seed=0):
    """Values that are drawn, of which the last task has four."""
    value = np.random.default_rng(seed).normal(size=(tasks, 6)).astype(np.float32)
    known = np.ones((tasks, 6), bool)
    known[-1, 4:] = False
    point = np.broadcast_to(PLACES[:, None], (tasks, 6, 1)).astype(np.float32)
    return TaskQueries(jnp.asarray(point), jnp.asarray(value), jnp.asarray(known))


def queries(points, values):
    points = jnp.asarray(points, jnp.float32)[:, None]
    level = jnp.zeros(len(points), jnp.int32)
    return Queries(points, jnp.asarray(values, jnp.float32), level, jnp.ones(len(points)))


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def worth_of(network, points, values, places, method=TINY):
    """What the network takes candidates to be worth after these evaluations."""
    room = 1 + len(points)  # A row that is not there must not count.
    point = np.full((room, 1), 7.0, np.float32)
    value, known = np.full(room, 9.0, np.float32), np.arange(room) < len(points)
    point[: len(points), 0], value[: len(points)] = points, values
    given = (jnp.asarray(x) for x in (point, value, known))
    history = history_of(*given, method.budget)
    worth = network(history, jnp.asarray(places, jnp.float32)[:, None])[1]
    return np.asarray(worth, np.float64) / method.temperature


@pytest.fixture(scope="module")
def found():
    """A state of the smallest NAP, its searches in the tables, and their regret."""
    state = TINY.init(SPACE, key=jax.random.key(0))
    data = tables()
    # Worth something other than nothing, as it is after learning.
    worth = 0.3 * jax.random.normal(jax.random.key(9), state.network.preference.shape)
    network = eqx.tree_at(lambda n: n.preference, state.network, worth)
    units = units_of(data)
    searches, regret = searched(TINY, network, units, data, key=jax.random.key(1))
    return network, units, searches, regret


@pytest.mark.parity
def test_searches_are_rewarded_for_regret_as_in_numpy(found):
    network, units, searches, regret = found
    data = tables()
    value, known = np.asarray(data.value, np.float64), np.asarray(data.known)
    mean, deviation = value[known].mean(), value[known].std()
    np.testing.assert_allclose([units.shift, units.scale], [mean, deviation], rtol=1e-5)
    discount, decay = TINY.discount, TINY.discount * TINY.gae_lambda
    for episode in range(TINY.episodes_per_update):
        place = np.asarray(searches.pool)[episode, :, 0]
        target = np.asarray(searches.target, np.float64)[episode]
        # Which task this is follows from its values.
        full = (value - mean) / deviation
        apart = [max(np.abs(full[t][known[t]] - x).min() for x in target) for t in range(3)]
        task = int(np.argmin(apart))
        assert apart[task] < 1e-4
        own = full[task][known[task]]
        chosen, left = [], np.asarray(searches.known)[episode].copy()
        rewards, worths = [], []
        for step in range(TINY.budget):
            history = [place[a] for a in chosen], [target[a] for a in chosen]
            worth = worth_of(network, *history, place)
            log = log_softmax(np.where(left, worth, -1e9))
            action = int(searches.action[episode, step])
            assert left[action], "evaluated twice"
            np.testing.assert_allclose(
                searches.log_probability[episode, step], log[action], atol=2e-4
            )
            progress = [max([-4.0, *history[1]]), step / TINY.budget]
            critic = network.critic(jnp.asarray(progress, jnp.float32))
            worths.append(float(critic[0]))
            chosen.append(action)
            left[action] = False
            short = (own.max() - max(target[a] for a in chosen)) / (own.max() - own.min())
            rewards.append(-np.log10(max(short, TINY.smallest_regret)))
        np.testing.assert_allclose(regret[episode], short, atol=1e-5)
        after = [*worths[1:], 0.0]
        advantage = 0.0
        for step in reversed(range(TINY.budget)):
            surprise = rewards[step] + discount * after[step] - worths[step]
            advantage = surprise + decay * advantage
            np.testing.assert_allclose(searches.advantage[episode, step], advantage, atol=1e-4)
            returns = advantage + worths[step]
            np.testing.assert_allclose(searches.returns[episode, step], returns, atol=1e-4)


@pytest.mark.parity
def test_losses_are_those_of_numpy(found):
    network, _, searches, _ = found
    other = jax.tree.map(lambda bias: bias + 0.3, network.acquisition.biases)
    moved = eqx.tree_at(lambda n: n.acquisition.biases, network, other)
    losses = losses_of(TINY, moved, searches, key=jax.random.key(5))
    advantage = np.asarray(searches.advantage, np.float64)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
    gains, errors = [], []
    for episode in range(TINY.episodes_per_update):
        place = np.asarray(searches.pool)[episode, :, 0]
        target = np.asarray(searches.target, np.float64)[episode]
        left = np.asarray(searches.known)[episode].copy()
        chosen = np.asarray(searches.action)[episode]
        for step, action in enumerate(chosen):
            history = place[chosen[:step]], target[chosen[:step]]
            worth = worth_of(moved, *history, place)
            log = log_softmax(np.where(left, worth, -1e9))[action]
            ratio = np.exp(log - float(searches.log_probability[episode, step]))
            bounded = np.clip(ratio, 1.0 - TINY.clip_range, 1.0 + TINY.clip_range)
            gains.append(min(ratio * advantage[episode, step], bounded * advantage[episode, step]))
            progress = [max([-4.0, *history[1]]), step / TINY.budget]
            critic = float(moved.critic(jnp.asarray(progress, jnp.float32))[0])
            errors.append((critic - float(searches.returns[episode, step])) ** 2)
            left[action] = False
    np.testing.assert_allclose(losses.policy, -np.mean(gains), atol=1e-3)
    np.testing.assert_allclose(losses.value, np.mean(errors), rtol=1e-4)


def test_candidates_know_of_no_other_and_evaluations_have_no_order(found):
    network = found[0]
    points, values = jnp.asarray([[0.1], [0.7], [0.4]]), jnp.asarray([0.3, -1.0, 2.0])
    there = jnp.asarray([True, True, False])
    history = history_of(points, values, there, 3)
    candidates = jnp.asarray([[0.2], [0.9], [0.5]])
    logits, worth = network(history, candidates)
    alone, worth_alone = network(history, candidates[1:2])
    np.testing.assert_allclose(logits[1], alone[0], atol=1e-5)
    np.testing.assert_allclose(worth[1], worth_alone[0], atol=1e-6)
    order = jnp.asarray([1, 0, 2])
    turned = history_of(points[order], values[order], there, 3)
    np.testing.assert_allclose(network(turned, candidates)[0], logits, atol=1e-5)
    # Of rows that are not there nothing counts.
    other = history_of(points.at[2].set(5.0), values.at[2].set(-3.0), there, 3)
    np.testing.assert_array_equal(network(other, candidates)[0], logits)
    assert not np.allclose(network(history_of(points, -values, there, 3), candidates)[0], logits)


def test_histograms_have_the_mean_of_their_buckets():
    values = jnp.asarray([-9.0, -3.9, 0.1, 3.9, 9.0])
    assert bucket_of(values, 4).tolist() == [0, 0, 2, 3, 3]
    sure = 50.0 * jax.nn.one_hot(bucket_of(values, 4), 4)
    np.testing.assert_allclose(expected_value(sure), [-3.0, -3.0, 1.0, 3.0, 3.0], atol=1e-5)


@pytest.mark.oracle
def test_it_learns_where_earlier_tasks_had_their_best():
    """The best of every task is at the same place, which a good search evaluates first."""
    method = dataclasses.replace(TINY, episodes_per_update=16, learning_rate=0.01)
    value = np.random.default_rng(1).uniform(-1.0, 0.0, size=(8, 6)).astype(np.float32)
    value[:, 4] = 1.0
    data = dataclasses.replace(tables(8), value=jnp.asarray(value), known=jnp.ones((8, 6), bool))
    space = dataclasses.replace(SPACE, candidates=jnp.asarray(2.0 * PLACES[:, None]))
    update = eqx.filter_jit(lambda state, key: method.update(state, data, key=key))
    state = method.init(space, key=jax.random.key(2))
    for key in jax.random.split(jax.random.key(3), 60):
        state, metrics = update(state, key)
    assert metrics["regret"] < 0.02
    state = method.warm_start(Agent(method, state), space, key=jax.random.key(0))
    asked = []
    for number in range(6):
        point, level = method.propose(state, key=jax.random.key(number))
        asked.append(float(point[0]))
        told = queries([asked[-1]], [-((asked[-1] - 0.4) ** 2)])
        state, _ = method.update(state, told, key=jax.random.key(0))
        assert level == 0
    assert np.isclose(asked[0], PLACES[4])
    # No point is asked for twice.
    np.testing.assert_allclose(np.sort(asked), PLACES, atol=1e-6)
    np.testing.assert_allclose(method.recommend(state, key=jax.random.key(0)), [0.4], atol=1e-6)


@pytest.mark.equivalence
def test_without_a_likelihood_it_is_clipped_policy_gradient_alone(found):
    network, _, searches, _ = found
    state = dataclasses.replace(TINY.init(SPACE, key=jax.random.key(0)), network=network)
    method = dataclasses.replace(TINY, likelihood_weight=0.0)
    key = jax.random.key(4)

    def loss(network):
        losses = losses_of(method, network, searches, key=key)
        return losses.policy + method.value_weight * losses.value

    rule = optax.chain(
        optax.clip_by_global_norm(method.max_gradient_norm), optax.adam(method.learning_rate)
    )
    steps, _ = rule.update(jax.grad(loss)(network), rule.init(network))
    expected = eqx.apply_updates(network, steps)
    after, _ = method._step(state, (searches, key))
    for ours, theirs in zip(jax.tree.leaves(after.network), jax.tree.leaves(expected)):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    told, _ = TINY._step(state, (searches, key))
    assert not np.allclose(told.network.histogram.weights[0], after.network.histogram.weights[0])


def test_points_of_another_space_are_taken_over_in_the_users_units():
    other = SearchSpace((1.0,), (2.0,), capacity=4)
    state = TINY.init(SPACE, key=jax.random.key(0))
    begun = TINY.warm_start(Agent(TINY, state), other, key=jax.random.key(1))
    # 1.5 is the middle of the one and three quarters of the other.
    ours = TINY.expect(begun, jnp.asarray([0.5]), jnp.asarray(0)).task.value[0]
    theirs = TINY.expect(state, jnp.asarray([0.75]), jnp.asarray(0)).task.value[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_it_goes_on_only_from_what_fits():
    state = TINY.init(SPACE, key=jax.random.key(0))
    wider = dataclasses.replace(TINY, width=16)
    assert wider.warm_start(Agent(TINY, state), SPACE, key=jax.random.key(0)) is None
    plane = SearchSpace((0.0, 0.0), (1.0, 1.0))
    assert TINY.warm_start(Agent(TINY, state), plane, key=jax.random.key(0)) is None
    update, _ = TINY.update(state, queries([0.2, 0.9], [1.0, np.nan]), key=jax.random.key(0))
    assert update.task.count == 1 and update.step == 0


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (dataclasses.replace(TINY, num_heads=3), "width = 8 cannot be divided into 3"),
        (dataclasses.replace(TINY, num_minibatches=3), "episodes_per_update = 4 cannot be divided"),
        (dataclasses.replace(TINY, budget=7), "a search of 7 evaluations"),
        (dataclasses.replace(TINY, num_candidates=2), "of which 2 are looked at"),
    ],
)
def test_what_it_refuses(method, message):
    key = jax.random.key(0)
    with pytest.raises(SpecificationError, match=message):
        method.update(method.init(SPACE, key=key), tables(), key=key)
