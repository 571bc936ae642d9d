"""Recipes: what is taken over, how much is acted, and which rows are learned from."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.catalogue import build_method
from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.spaces import Box, Discrete, Spaces, Statistics
from headwater.environments.adapters.gymnasium_task import GymnasiumTask
from headwater.environments.control.pendulum import Pendulum
from headwater.methods.control.offline.iql import IQL
from headwater.methods.control.online.dqn import DQN
from headwater.methods.control.online.proto import PROTO
from headwater.methods.control.online.sac import SAC
from headwater.runs.loop import run
from headwater.runs.recipes.online import (
    CRITICS_FIT,
    Budget,
    Start,
    check_same_start,
    check_warm_start,
    continuing,
    critics_serve,
    fit_stage,
    online_method,
    online_stage,
    rows_per_update,
    unconverged,
    warm_start,
)
from headwater.runs.stage import Outcome, continue_from
from headwater.sources.collect import Collect, HostCollect
from headwater.sources.mixed import HostMixed, Mixed
from headwater.sources.replay import Replay

from .tiny import Tiny, logged

STATISTICS = Statistics(
    observation_mean=jnp.asarray([1.0, -2.0, 0.5]),
    observation_std=jnp.asarray([2.0, 0.1, 3.0]),
    return_low=jnp.asarray(-7.0),
    return_high=jnp.asarray(3.0),
    reward_mean=jnp.asarray(-0.2),
    reward_std=jnp.asarray(0.25),
    terminal_share=jnp.asarray(0.1),
    return_to_go_mean=jnp.asarray(-1.0),
)
BOX = Box((-math.inf,) * 3, (math.inf,) * 3)
CONTINUOUS = Spaces(BOX, Box((-1.0, -1.0), (1.0, 1.0)), 50, STATISTICS)
DISCRETE = Spaces(BOX, Discrete(3), 50, STATISTICS)
OBSERVATIONS = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)), jnp.float32)
ACTIONS = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (20, 2)), jnp.float32)


def learned(name: str, spaces: Spaces = CONTINUOUS, **fields) -> Outcome:
    """A method whose every array has moved by an amount of its own, as if it had learned."""
    method = build_method(name, {"hidden_sizes": (8, 8), **fields})
    state = method.init(spaces, key=jax.random.key(3))
    leaves, structure = jax.tree.flatten(state)
    draw = np.random.default_rng(2)
    moved = [
        leaf + jnp.asarray(0.1 * draw.random(leaf.shape), jnp.float32)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        else leaf
        for leaf in leaves
    ]
    return Outcome(method, jax.tree.unflatten(structure, moved))


def started(outcome: Outcome, spaces: Spaces = CONTINUOUS):
    """What goes online after `outcome`, and its state: as a problem, it has no statistics."""
    online = online_method(outcome.method, spaces.discrete)
    problem = dataclasses.replace(spaces, statistics=None)
    begin = warm_start(online, "before")
    return online, begin({"before": outcome}, problem, jax.random.key(9))


def assert_equal(one, other) -> None:
    ours, theirs = jax.tree.leaves(one), jax.tree.leaves(other)
    assert len(ours) == len(theirs) > 0
    for x, y in zip(ours, theirs):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


SAME_CRITICS = {"num_critics": 3, "num_target_critics": 3, "layer_norm": "critics"}


@pytest.mark.parametrize("name", ["CQL", "CalQL"])
def test_soft_methods_hand_over_every_part_as_it_is(name):
    outcome = learned(name, **SAME_CRITICS)
    online, state = started(outcome)
    assert isinstance(online, SAC)
    assert critics_serve(online, outcome.method, outcome.state, CONTINUOUS)
    held = outcome.state.soft
    assert len(dataclasses.fields(state)) == 8
    for part in dataclasses.fields(state):
        assert_equal(getattr(state, part.name), getattr(held, part.name))
    assert type(state).__name__ == "SoftActorCritic"
    assert (online.num_critics, online.num_target_critics) == (3, 2)
    assert online.num_critic_updates == 4 and online.backup_entropy == 0.0
    assert online.hidden_sizes == (8, 8)
    if name == "CalQL":
        # It can go on: the shapes of networks and moments are those that SAC expects.
        moved, metrics = jax.jit(online.update)(state, rows(4 * 8), key=jax.random.key(0))
        assert all(np.isfinite(x) for x in metrics.values())
        assert jax.tree.structure(moved) == jax.tree.structure(state)


@pytest.mark.parametrize("name", ["CQL", "SACN", "EDAC"])
def test_critics_of_other_shapes_stay_behind(name):
    outcome = learned(name)
    online, state = started(outcome)
    assert isinstance(online, SAC)
    # Ten layer-normalised ones, whatever the log was learned from with.
    assert (online.num_critics, online.layer_norm) == (10, "critics")
    assert not critics_serve(online, outcome.method, outcome.state, CONTINUOUS)
    fresh = online.init(CONTINUOUS, key=jax.random.key(9))
    held = outcome.state.soft if name == "CQL" else outcome.state
    for part in dataclasses.fields(state):
        source = fresh if "critic" in part.name else held
        if part.name != "critic_optimiser":
            assert_equal(getattr(state, part.name), getattr(source, part.name))
    assert all(not np.any(x) for x in jax.tree.leaves(state.critic_optimiser))


@pytest.mark.parametrize(
    "name, fields, serve",
    [
        ("CQL", {}, True),
        # One that discounts otherwise says something else.
        ("CQL", {"discount": 0.9}, False),
        ("CQL", {"num_critics": 4}, False),
        # As many, of the same shape: but they rate the best logged actions, not those of the actor.
        ("IQL", {}, False),
        ("BC", {"stochastic": True}, False),
        ("AWAC", {}, True),
    ],
)
def test_critics_serve_if_they_fit_and_rate_the_actor(name, fields, serve):
    outcome = learned(name, **fields)
    online = build_method("SAC", {"hidden_sizes": (8, 8)})
    assert critics_serve(online, outcome.method, outcome.state, CONTINUOUS) is serve


def test_fresh_critics_are_fitted_to_the_actor_as_it_is():
    """On a log whose every reward is 1, at a discount of a half, each action is worth 2."""
    outcome = learned("IQL", discount=0.5)
    online = dataclasses.replace(online_method(outcome.method, False), num_critics=3)
    log = dataclasses.replace(rows(64), reward=jnp.ones(64))
    start = Start(1500, fit_rows=32, fit_polyak_rate=0.05)
    stage = fit_stage(online, start, "before", source=Replay(log, start.fit_rows))
    before = jax.tree.map(lambda x: jnp.asarray(x)[None], outcome.state)
    earlier = {"before": Outcome(outcome.method, before)}
    result = run([stage], CONTINUOUS, seeds=1, earlier=earlier, progress=False)
    fitted = jax.tree.map(lambda x: x[0], result.outcomes[CRITICS_FIT].state)
    assert_equal(fitted.actor, outcome.state.networks.actor)
    values = fitted.critics(fitted.normaliser(log.observation), log.action)
    assert float(jnp.mean(values)) == pytest.approx(2.0, abs=0.1)
    # What goes online takes these over, and nothing else of that stage.
    begin = warm_start(online, "before", fitted=CRITICS_FIT)
    outcomes = {"before": outcome, CRITICS_FIT: Outcome(stage.method, fitted)}
    state = begin(outcomes, CONTINUOUS, jax.random.key(9))
    for part in ("critics", "target_critics", "critic_optimiser"):
        assert_equal(getattr(state, part), getattr(fitted, part))
    for part in ("actor_optimiser", "temperature_optimiser"):
        assert all(not np.any(x) for x in jax.tree.leaves(getattr(state, part)))


def test_what_stays_near_the_offline_policy_counts_rewards_in_their_deviation():
    outcome, key = learned("IQL", discount=0.5), jax.random.key(9)
    online = online_method(outcome.method, False, near=True)
    stage = fit_stage(online, Start(1), "before")
    statistics = CONTINUOUS.statistics
    assert isinstance(online, PROTO) and statistics is not None
    begun = stage.begin({"before": outcome}, CONTINUOUS, key)
    scale = 1.0 / float(statistics.reward_std)
    onward = 0.5 * (1.0 - float(statistics.terminal_share))
    level = scale * float(statistics.reward_mean) / (1.0 - onward)
    log = rows(16)
    plain = stage.method.init(CONTINUOUS, key=key).critics(log.observation, log.action)
    found = begun.critics(log.observation, log.action)
    np.testing.assert_allclose(found, plain + level, rtol=1e-4, atol=1e-4)
    # What goes online takes values and their unit over, and is held to the offline actor.
    outcomes = {"before": outcome, CRITICS_FIT: Outcome(stage.method, begun)}
    state = warm_start(online, "before", fitted=CRITICS_FIT)(outcomes, CONTINUOUS, key)
    assert_equal(state.anchor, outcome.state.networks.actor)
    assert_equal(state.soft.critics, begun.critics)
    assert float(state.soft.normaliser.reward_scale) == pytest.approx(scale, rel=1e-5)
    assert float(jnp.exp(state.soft.log_temperature)) == pytest.approx(scale, rel=1e-5)


def test_there_has_to_be_a_policy_to_stay_near():
    offline = learned("DiscreteCQL", DISCRETE).method
    with pytest.raises(SpecificationError, match="DiscreteCQL has values and no actor"):
        online_method(offline, True, near=True)


def test_the_offline_temperature_can_be_left_behind():
    outcome = learned("CQL", **SAME_CRITICS)
    online = dataclasses.replace(online_method(outcome.method, False), initial_temperature=0.3)
    begin = warm_start(online, "before", keep_temperature=False)
    state = begin({"before": outcome}, CONTINUOUS, jax.random.key(9))
    assert float(jnp.exp(state.log_temperature)) == pytest.approx(0.3)
    assert_equal(state.critics, outcome.state.soft.critics)


@pytest.mark.parametrize(
    "offline, online, sentence",
    [
        ({}, {"hidden_sizes": (4,)}, "hidden_sizes = 4 cannot take effect: .* hidden_sizes is 8,8"),
        ({}, {"normalise_observations": False}, "normalise_observations = False cannot take eff"),
        ({}, {"layer_norm": "both"}, "layer_norm = both cannot take .* whose layer_norm is none"),
        ({"layer_norm": "both"}, {"layer_norm": "critics"}, "layer_norm = critics cannot take"),
        ({}, {"layer_norm": "none", "num_critics": 3}, None),
        ({"layer_norm": "critics"}, {"layer_norm": "none", "initial_temperature": 3.0}, None),
    ],
)
def test_settings_that_a_warm_start_cannot_change_are_refused(offline, online, sentence):
    before = build_method("CQL", {"hidden_sizes": (8, 8), **offline})
    now = dataclasses.replace(online_method(before, False), **online)
    if sentence is None:
        check_warm_start(before, now)
        return
    with pytest.raises(SpecificationError, match=sentence):
        check_warm_start(before, now)


def test_settings_that_only_the_first_state_reads_are_refused_later():
    before = build_method("CQL", {"hidden_sizes": (8, 8)})
    check_same_start(before, dataclasses.replace(before, conservative_weight=1.0))
    with pytest.raises(SpecificationError, match="num_critics = 4 cannot take effect: the offline"):
        check_same_start(before, dataclasses.replace(before, num_critics=4))


def test_critics_that_learned_for_too_short_are_said_to():
    method = build_method("CQL", {"polyak_rate": 0.005, "discount": 0.99})
    # 1 / (1 - 0.99) = 100 = 20,000 · 0.005.
    assert unconverged(method, 20_000) is None
    said = unconverged(method, 19_999)
    assert said is not None and said.startswith(
        "the critics of CQL learned for 19,999 updates with a polyak_rate of 0.005, too few"
    )
    assert said.endswith("train for 20,000 updates or more")
    assert unconverged(build_method("BC"), 1) is None


def rows(count: int):
    draw = np.random.default_rng(5)

    def normal(*shape):
        return jnp.asarray(draw.normal(size=shape), jnp.float32)

    flags = jnp.zeros(count, bool)
    template = logged(count)
    return dataclasses.replace(
        template,
        observation=normal(count, 3),
        next_observation=normal(count, 3),
        action=jnp.tanh(normal(count, 2)),
        reward=normal(count),
        terminal=flags,
        truncated=flags,
    )


def test_iql_hands_over_its_actor_alone():
    outcome = learned("IQL")
    online, state = started(outcome)
    assert_equal(state.actor, outcome.state.networks.actor)
    for part in ("mean", "std"):
        assert_equal(getattr(state.normaliser, part), getattr(outcome.state.normaliser, part))
    assert float(state.normaliser.reward_scale) == 1.0
    act = {"key": jax.random.key(1), "explore": True}
    np.testing.assert_array_equal(
        online.act(state, OBSERVATIONS[0], **act)[0],
        outcome.method.act(outcome.state, OBSERVATIONS[0], **act)[0],
    )
    assert float(jnp.exp(state.log_temperature)) == pytest.approx(online.initial_temperature)
    # Fresh moments, of the shapes that the networks need.
    assert all(not np.any(x) for x in jax.tree.leaves(state.critic_optimiser))
    jax.jit(online.update)(state, rows(4 * 8), key=jax.random.key(0))


def test_awac_hands_over_actor_critics_and_targets():
    outcome = learned("AWAC")
    online = dataclasses.replace(
        online_method(outcome.method, False), num_critics=2, layer_norm="none"
    )
    state = warm_start(online, "before")({"before": outcome}, CONTINUOUS, jax.random.key(9))
    assert_equal(state.actor, outcome.state.actor)
    scaled, scale = outcome.state.normaliser(OBSERVATIONS), outcome.state.normaliser.reward_scale
    assert float(state.normaliser.reward_scale) == 1.0 != float(scale)
    for part in ("critics", "target_critics"):
        ours, theirs = getattr(state, part), getattr(outcome.state, part)
        np.testing.assert_allclose(
            ours(scaled, ACTIONS), theirs(scaled, ACTIONS) / scale, rtol=1e-5, atol=1e-6
        )
    np.testing.assert_allclose(
        online.value(state, OBSERVATIONS, ACTIONS),
        outcome.method.value(outcome.state, OBSERVATIONS, ACTIONS),
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_cloned_actor_gets_fresh_critics():
    outcome = learned("BC", stochastic=True)
    online, state = started(outcome)
    fresh = online.init(CONTINUOUS, key=jax.random.key(9))
    assert_equal(state.actor, outcome.state.actor)
    assert_equal(state.normaliser, outcome.state.normaliser)
    assert_equal(state.critics, fresh.critics)
    assert_equal(state.target_critics, fresh.critics)


@pytest.mark.parametrize("name", ["IQL", "AWAC", "BC", "SACN"])
def test_discrete_actors_go_on_with_sac(name):
    outcome = learned(name, DISCRETE)
    online, state = started(outcome, DISCRETE)
    assert isinstance(online, SAC)
    greedy = {"key": jax.random.key(1), "explore": False}
    for observation in OBSERVATIONS[:4]:
        ours = online.act(state, observation, **greedy)[0]
        assert int(ours) == int(outcome.method.act(outcome.state, observation, **greedy)[0])


@pytest.mark.parametrize("name", ["BC", "TD3BC", "ReBRAC"])
def test_methods_without_a_stochastic_actor_are_refused(name):
    expected = f"{name} leaves no stochastic actor that another method could start from: use the"
    with pytest.raises(SpecificationError, match=expected):
        started(learned(name))


def test_discrete_cql_starts_dqn_that_acts_greedily():
    outcome = learned("DiscreteCQL", DISCRETE)
    online, state = started(outcome, DISCRETE)
    assert isinstance(online, DQN)
    assert_equal(state.critic, outcome.state.critic)
    assert_equal(state.target, outcome.state.target)
    assert_equal(state.normaliser, outcome.state.normaliser)
    observation = OBSERVATIONS[0]
    best = int(jnp.argmax(outcome.state.critic.values(outcome.state.normaliser(observation))))
    chosen = jax.vmap(lambda k: online.act(state, observation, key=k, explore=True)[0])(
        jax.random.split(jax.random.key(0), 2000)
    )
    # ε is 0.01: two thirds of that are other actions.
    assert 0.98 < float(jnp.mean(chosen == best)) < 1.0
    # From nothing it would be random.
    fresh = online.init(DISCRETE, key=jax.random.key(0))
    drawn = jax.vmap(lambda k: online.act(fresh, observation, key=k, explore=True)[0])(
        jax.random.split(jax.random.key(0), 2000)
    )
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 2000, 1 / 3, atol=0.06)


def test_online_method_keeps_the_shapes_and_the_discount():
    offline = build_method(
        "CalQL", {"hidden_sizes": (16, 4), "discount": 0.9, "num_critics": 5, "layer_norm": "both"}
    )
    online = online_method(offline, False)
    assert isinstance(online, SAC)
    assert (online.hidden_sizes, online.discount, online.num_critics) == ((16, 4), 0.9, 5)
    assert online.layer_norm == "both" and online.normalise_observations
    assert rows_per_update(online, 32) == 128
    assert rows_per_update(offline, 32) == 32


def test_a_method_that_starts_from_nothing_else_is_refused():
    outcome = learned("CQL")
    begin = warm_start(IQL(), "before")
    with pytest.raises(SpecificationError, match="IQL cannot start from what another method has"):
        begin({"before": outcome}, CONTINUOUS, jax.random.key(0))


def test_going_on_with_iql_does_not_stop_learning():
    method = continuing(IQL(actor_decay_updates=10.0, discount=0.9))
    assert isinstance(method, IQL)
    assert (method.actor_decay_updates, method.discount) == (math.inf, 0.9)
    unchanged = build_method("AWAC")
    assert continuing(unchanged) is unchanged
    outcome = learned("IQL")
    assert (
        continue_from("before")({"before": outcome}, CONTINUOUS, jax.random.key(0)) is outcome.state
    )


@pytest.mark.parametrize(
    "budget, updates",
    [
        (Budget(100), 100),
        (Budget(100, random_steps=10, warm_up_steps=20), 70),
        (Budget(100, random_steps=10, block=8), 88),
        (Budget(100, block=8, updates_per_step=3), 288),
        (Budget(10, random_steps=10), 0),
        (Budget(10, random_steps=30), 0),
        (Budget(17, random_steps=10, block=8), 0),
    ],
)
def test_updates_that_fit_into_a_budget(budget, updates):
    assert budget.updates == updates


def test_a_budget_that_warming_up_uses_up_is_refused():
    budget = Budget(10, random_steps=4, warm_up_steps=6)
    with pytest.raises(SpecificationError, match="10 environment steps leave none to learn from"):
        online_stage(Tiny(), Pendulum(), budget)


@pytest.mark.parametrize("block, steps", [(1, 40), (8, 34)])
def test_the_environment_is_stepped_as_often_as_the_budget_says(block, steps):
    budget = Budget(40, rows=4, random_steps=6, warm_up_steps=4, block=block, updates_per_step=2)
    stage = online_stage(Tiny(), Pendulum(), budget)
    assert isinstance(stage.source, Collect) and stage.source.capacity == 40
    result = run([stage], Pendulum().spaces, seeds=2, evaluations=1, logs=1, progress=False)
    assert steps == 10 + 30 // block * block
    assert result.metrics[-1]["environment_steps"] == steps
    assert result.metrics[-1]["update"] == budget.updates == 2 * (steps - 10)
    # Each update had rows of its own.
    assert stage.source.batch_size == 4 * stage.updates_per_draw


@pytest.mark.parametrize("share, from_log", [(0.5, 12), (0.3, 7), (0.01, 1), (0.999, 23)])
def test_a_share_of_every_batch_is_from_the_log(share, from_log):
    # The log is marked by a reward that the environment never gives.
    log = dataclasses.replace(logged(), reward=jnp.full(200, 7.0))
    budget = Budget(20, rows=6, random_steps=4, block=4)
    stage = online_stage(Tiny(), Pendulum(), budget, data=log, logged_share=share)
    assert isinstance(stage.source, Mixed)
    assert [type(s) for s in stage.source.sources] == [Replay, Collect]
    agent = Agent(stage.method, stage.method.init(Pendulum().spaces, key=jax.random.key(0)))
    state = stage.source.prepare(
        stage.source.init(key=jax.random.key(1)), agent, key=jax.random.key(2)
    )
    _, drawn = stage.source.draw(state, agent, key=jax.random.key(3))
    marked = np.asarray(drawn.reward) == 7.0
    assert marked.size == 4 * 6
    assert marked.sum() == from_log
    # In every piece that one update sees, not only over all of them.
    assert np.ptp(marked.reshape(4, 6).sum(1)) <= 1


def test_host_tasks_are_collected_from_on_the_host():
    task = GymnasiumTask("Pendulum-v1")
    budget = Budget(20, rows=5, random_steps=4, block=4)
    stage = online_stage(Tiny(), task, budget)
    assert isinstance(stage.source, HostCollect) and stage.updates_per_draw == 4
    stage = online_stage(Tiny(), task, budget, data=logged())
    assert isinstance(stage.source, HostMixed)
    # An odd number of rows: none is lost.
    assert [s.batch_size for s in stage.source.sources] == [10, 10]
    stage = online_stage(Tiny(), task, dataclasses.replace(budget, block=1), data=logged())
    assert [s.batch_size for s in stage.source.sources] == [3, 2]
