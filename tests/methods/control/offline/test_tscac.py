"""TSCAC on problems whose closed form is known, and against AWAC."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import AuxiliaryTransitions
from headwater.methods.control.offline.awac import AWAC
from headwater.methods.control.offline.tscac import TSCAC
from headwater.networks.distributions import Categorical
from headwater.parts.several_rewards.critics import each_policy

from ..small_problems import CHAIN_SETTINGS, CHAIN_STATES, COUNTS, arms, chain, chain_values

MAIN = np.asarray([1.0, 0.2, 0.6, -0.3])
OTHERS = np.asarray([[0.0, 0.5, 0.1, 0.9], [3.0, -1.0, 2.0, 4.0]])
TEMPERATURE, MULTIPLIER = 1.5, 0.8
SETTINGS = {"learning_rate": 3e-3, "hidden_sizes": (16,), "polyak_rate": 0.1}


def with_others(data, others) -> AuxiliaryTransitions:
    """Transitions with further rewards `[auxiliary, row]`."""
    return AuxiliaryTransitions(
        data.observation,
        data.action,
        data.reward,
        data.next_observation,
        data.terminal,
        data.truncated,
        jnp.asarray(others, jnp.float32).T,
    )


def four_arms():
    """One state; what each arm pays of three rewards is known."""
    problem, data = arms(COUNTS, MAIN)
    return problem, with_others(data, OTHERS[:, np.asarray(data.action)])


def learned(method, problem, data, updates=2_500, key=0):
    """The state after updates with all rows of `data` each."""
    start = method.init(problem, key=jax.random.key(key))

    @jax.jit
    def run(state):
        keys = jax.random.split(jax.random.key(1), updates)
        return jax.lax.scan(lambda s, k: (method.update(s, data, key=k)[0], None), state, keys)[0]

    return run(start)


def policy(method, state, observation, actions):
    """Probabilities of discrete actions."""
    each = lambda action: method.log_probability(state, observation, action)
    return np.exp(np.asarray(jax.vmap(each)(jnp.arange(actions))))


def deviations(rewards):
    """Each reward's standard deviation over the rows of the log, `[reward]`."""
    rows = np.repeat(rewards, COUNTS, axis=-1)
    return rows.std(axis=-1)


@pytest.mark.oracle
def test_the_policy_is_the_closed_form():
    problem, data = four_arms()
    method = TSCAC(
        auxiliary_temperature=TEMPERATURE,
        constraint_multiplier=MULTIPLIER,
        max_weight=1e4,
        **SETTINGS,
    )
    state = learned(method, problem, data)
    others = OTHERS / deviations(OTHERS)[:, None]
    stage_one = np.log(COUNTS)[None] + others / TEMPERATURE
    stage_one -= np.log(np.exp(stage_one).sum(-1, keepdims=True))
    best = stage_one.mean(0) + MAIN / (2 * MULTIPLIER)
    best = np.exp(best) / np.exp(best).sum()
    np.testing.assert_allclose(policy(method, state, jnp.ones(1), 4), best, atol=0.015)
    others_policies = each_policy(state.actors.auxiliary, jnp.ones(1))
    assert isinstance(others_policies, Categorical)
    of_each = jax.nn.softmax(others_policies.logits)
    np.testing.assert_allclose(of_each, np.exp(stage_one), atol=0.015)
    value = jax.vmap(lambda a: method.value(state, jnp.ones(1), a))(jnp.arange(4))
    np.testing.assert_allclose(value, MAIN, atol=0.02)


@pytest.mark.equivalence
def test_without_a_future_it_is_awac_on_a_weighted_sum():
    problem, data = four_arms()
    method = TSCAC(
        auxiliary_temperature=TEMPERATURE,
        constraint_multiplier=MULTIPLIER,
        max_weight=1e4,
        **SETTINGS,
    )
    scale = deviations(OTHERS)
    total = MAIN / (2 * MULTIPLIER) + (OTHERS / scale[:, None]).mean(0) / TEMPERATURE
    summed, rows = arms(COUNTS, total)
    other = AWAC(advantage_temperature=1.0, max_weight=1e4, **SETTINGS)
    ours = policy(method, learned(method, problem, data), jnp.ones(1), 4)
    theirs = policy(other, learned(other, summed, rows), jnp.ones(1), 4)
    np.testing.assert_allclose(ours, theirs, atol=0.02)


@pytest.mark.oracle
def test_each_critic_is_of_its_own_policy():
    problem, data = chain()
    # The first other reward is the opposite of the main one, the second the same for all.
    rows = with_others(data, np.stack([-np.asarray(data.reward), np.ones(len(data.reward))]))
    method = TSCAC(
        auxiliary_temperature=0.5, constraint_multiplier=0.2, polyak_rate=0.1, **CHAIN_SETTINGS
    )
    state = learned(method, problem, rows, updates=4_000)
    states = jnp.eye(CHAIN_STATES)
    main = jax.nn.softmax(state.actors.main(states).logits)
    others = each_policy(state.actors.auxiliary, states)
    assert isinstance(others, Categorical)
    opposite = jax.nn.softmax(others.logits[0])
    assert np.max(np.abs(np.asarray(main - opposite))) > 0.2
    each = jax.vmap(lambda s: jax.vmap(lambda a: method.value(state, s, a))(jnp.arange(2)))
    np.testing.assert_allclose(each(states), chain_values(np.asarray(main)), atol=0.05)
    pairs = [jnp.repeat(states, 2, axis=0), jnp.tile(jnp.arange(2), CHAIN_STATES)]
    found = state.critics.networks(*pairs)[1].reshape(CHAIN_STATES, 2)
    scale = np.asarray(data.reward).std()
    expected = -chain_values(np.asarray(opposite)) / scale
    np.testing.assert_allclose(found, expected, atol=0.05 / scale)


def test_the_main_policy_waits_for_stage_one():
    problem, data = four_arms()
    method = TSCAC(stage_one_updates=3, hidden_sizes=(8,), learning_rate=1e-2)
    state = method.init(problem, key=jax.random.key(0))
    begun = state.actors
    update = jax.jit(lambda state, key: method.update(state, data, key=key)[0])
    for step in range(4):
        state = update(state, jax.random.key(step))
        same = jax.tree.leaves(jax.tree.map(jnp.array_equal, state.actors.main, begun.main))
        assert all(same) == (step < 3)
    moved = jax.tree.map(jnp.array_equal, state.actors.auxiliary, begun.auxiliary)
    assert not any(jax.tree.leaves(moved))


def test_a_log_with_other_rewards_than_named_is_refused():
    problem, data = four_arms()
    method = TSCAC(auxiliary_rewards=("like",), hidden_sizes=(8,))
    key = jax.random.key(0)
    begin = lambda m: eqx.filter_eval_shape(m.init, problem, key=key)
    state = begin(method)
    with pytest.raises(SpecificationError, match="auxiliary_rewards names 1: like"):
        eqx.filter_eval_shape(method.update, state, data, key=key)
    for names in ((), ("like", "like")):
        with pytest.raises(SpecificationError, match="name at least one column of the log"):
            begin(dataclasses.replace(method, auxiliary_rewards=names))
