"""PRDC against NumPy, against TD3+BC and cloning, and on a problem with a known answer."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.records import LoggedPairs, Transitions
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.prdc import PRDC
from headwater.methods.control.offline.td3_bc import TD3BC
from headwater.ops.control.nearest import nearest_rows
from headwater.runs.stage import Stage
from headwater.sources.mixed import interleave
from headwater.sources.replay import NoState, Replay
from headwater.sources.weighted import WeightedReplay
from headwater.sources.whole_log import WithWholeLog

from .. import identities
from ..numpy_twin import (
    OBSERVATION,
    ROWS,
    Adam,
    Perceptron,
    batch,
    begin,
    expect_gradient,
    expect_same,
    expect_twins,
    leaves,
    member,
    move,
    standardised,
    update,
)
from ..small_problems import BANDIT_SETTINGS, PROBE, bandit, greedy, trained


def _pairs(data: Transitions) -> LoggedPairs:
    return LoggedPairs(data.observation, data.action)


# The search -------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize("rows", (1, 300, 512, 1300))
def test_the_nearest_row_is_that_of_all_distances(rows):
    random = np.random.default_rng(rows)
    points, log = random.normal(size=(40, 5)), random.normal(size=(rows, 5))
    points, log = points.astype(np.float32), log.astype(np.float32)
    wide = log.astype(np.float64)
    distances = ((points[:, None].astype(np.float64) - wide[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(jax.jit(nearest_rows)(points, log), distances.argmin(1))


@pytest.mark.oracle
def test_rows_far_from_the_origin_are_told_apart():
    # Squares of a thousand have no digits left for differences of a thousandth.
    log = 1000.0 + np.arange(1024, dtype=np.float32)[:, None] / 1024
    np.testing.assert_array_equal(jax.jit(nearest_rows)(log, log), np.arange(1024))


# One update -------------------------------------------------------------------------------------


@pytest.mark.parity
def test_four_updates():
    method = PRDC(target_policy_noise=0.0, learning_rate=1e-2, polyak_rate=0.1, hidden_sizes=(8, 8))
    state = begin(method, False)
    actor, target_actor = (Perceptron(leaves(state.actor)) for _ in range(2))
    twins, target_twins = ([Perceptron(member(state.critics, i)) for i in (0, 1)] for _ in "ab")
    actor_adam = Adam(actor.parameters, 1e-2)
    critic_adams = [Adam(c.parameters, 1e-2) for c in twins]
    log = _pairs(jax.tree.map(lambda *x: jnp.concatenate(x), *(batch(i, False) for i in range(8))))
    states, actions = standardised(log.observation), np.asarray(log.action, np.float64)
    others = 0
    for i in range(4):
        data = dataclasses.replace(batch(i, False), whole_log=log)
        state, metrics = update(method, state, data, key=jax.random.key(i))

        s = standardised(data.observation)
        following = standardised(data.next_observation)
        terminal = np.asarray(data.terminal)
        joined = np.concatenate([following, np.tanh(target_actor.forward(following))], -1)
        lower = np.min([c.forward(joined)[:, 0] for c in target_twins], axis=0)
        y = np.asarray(data.reward, np.float64)
        y = np.where(terminal, y, y + 0.99 * lower)
        for critic, adam in zip(twins, critic_adams):
            logged = np.concatenate([s, np.asarray(data.action, np.float64)], -1)
            difference = critic.forward(logged)[:, 0] - y
            adam.step(critic.backward(2 * difference[:, None] / ROWS)[0])
        if i % 2 == 0:
            continue

        action = np.tanh(actor.forward(s))
        apart = 4.0 * ((s[:, None] - states[None]) ** 2).sum(-1)
        nearest = (apart + ((action[:, None] - actions[None]) ** 2).sum(-1)).argmin(1)
        others += np.sum(nearest != ROWS * i + np.arange(ROWS))
        a = actions[nearest]
        q = twins[0].forward(np.concatenate([s, action], -1))[:, 0]
        scale = 2.5 / np.mean(np.abs(q))
        loss = -scale * np.mean(q) + np.mean((action - a) ** 2)
        np.testing.assert_allclose(metrics["actor_loss"], loss, rtol=1e-4)
        _, slope = twins[0].backward(np.full((ROWS, 1), -scale / ROWS))
        slope = slope[:, OBSERVATION:] + 2 * (action - a) / a.size
        actor_adam.step(actor.backward(slope * (1 - action**2))[0])
        move(target_actor, actor.parameters, 0.1)
        for target, critic in zip(target_twins, twins):
            move(target, critic.parameters, 0.1)

    assert others, "the nearest pair was the row itself throughout: this is TD3+BC"
    expect_gradient(state.actor_optimiser, actor_adam)
    expect_same(state.actor, actor.parameters)
    expect_same(state.target_actor, target_actor.parameters)
    expect_twins(state.critics, twins)
    expect_twins(state.target_critics, target_twins)


# Limits -----------------------------------------------------------------------------------------


def _several() -> list[Transitions]:
    batches = identities.several()
    log = _pairs(jax.tree.map(lambda *x: jnp.concatenate(x), *batches))
    return [dataclasses.replace(data, whole_log=log) for data in batches]


_FIELDS = {"learning_rate": 1e-2, "hidden_sizes": identities.WIDTHS}


@pytest.mark.equivalence("TD3BC")
def test_where_states_count_most_it_is_td3_bc():
    spaces, plain = identities.problem(False), TD3BC(policy_delay=1, **_FIELDS)
    begun = identities.begin(plain, spaces)
    expected = identities.learn(plain, begun, *identities.several())
    for weight, same in ((1e4, True), (0.1, False)):
        method = PRDC(state_weight=weight, policy_delay=1, **_FIELDS)
        found = identities.learn(method, begun, *_several())
        expect = identities.expect_same if same else identities.expect_different
        expect(found.actor, expected.actor)


@pytest.mark.equivalence("BC")
def test_without_its_critic_and_where_states_count_most_it_is_cloning():
    spaces, bc = identities.problem(False), BC(**_FIELDS)
    method = PRDC(alpha=0.0, state_weight=1e4, policy_delay=1, **_FIELDS)
    begun = identities.begin(method, spaces)
    clone = eqx.tree_at(lambda s: s.actor, identities.begin(bc, spaces), begun.actor)
    one = identities.learn(method, begun, *_several())
    other = identities.learn(bc, clone, *identities.several())
    identities.expect_same(one.actor, other.actor, 1e-6)
    identities.expect_different(begun.actor, one.actor)


@pytest.mark.oracle
def test_where_states_count_nothing_it_takes_the_logged_action_that_is_nearest(key):
    problem, data = bandit(key, 64)
    log = LoggedPairs(jnp.zeros((2, 1)), jnp.asarray([[-0.7], [0.4]]))
    data = dataclasses.replace(data, whole_log=log)
    method = PRDC(alpha=0.0, state_weight=0.0, policy_delay=1, **BANDIT_SETTINGS)
    state = trained(method, problem, data, 500)
    action = np.asarray(greedy(PRDC(), state, PROBE))
    distance = np.abs(action - np.asarray([[-0.7, 0.4]])).min(1)
    assert np.median(distance) < 0.05, action


# What it is fed ---------------------------------------------------------------------------------


def test_the_whole_log_comes_with_each_batch(key):
    log = identities.batch(0)
    agent = Agent(PRDC(), NoState())
    for replay in (Replay(log, 5), WeightedReplay(log, np.arange(float(identities.ROWS)), 5)):
        _, plain = replay.draw(NoState(), agent, key=key)
        _, drawn = WithWholeLog(replay).draw(NoState(), agent, key=key)
        np.testing.assert_array_equal(drawn.observation, plain.observation)
        assert plain.whole_log is None and drawn.whole_log is not None
        assert drawn.whole_log.observation is log.observation
        assert drawn.whole_log.action is log.action
    assert interleave([drawn, drawn]).whole_log is None


def test_what_does_not_give_the_log_is_refused(key):
    spaces, method = identities.problem(False), PRDC(hidden_sizes=identities.WIDTHS)
    state = identities.begin(method, spaces)
    with pytest.raises(SpecificationError) as error:
        method.update(state, identities.batch(0), key=key)
    assert str(error.value) == (
        "PRDC looks through the whole log in each update (whole_log), which this source does not "
        "give: wrap a replay in WithWholeLog, or use TD3BC"
    )


def test_a_draw_with_the_whole_log_is_not_cut_into_pieces():
    source = WithWholeLog(Replay(identities.batch(0), 12))
    with pytest.raises(SpecificationError, match="updates_per_draw is 2: leave it out"):
        Stage("offline", PRDC(), source, 4, updates_per_draw=2)
