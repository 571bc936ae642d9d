"""Identities between methods that share a special case."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.awac import AWAC
from headwater.methods.control.offline.discrete_cql import DiscreteCQL
from headwater.methods.control.offline.rebrac import ReBRAC
from headwater.methods.control.offline.td3_bc import TD3BC
from headwater.methods.control.online.dqn import DQN

SIZE, ROWS, WIDTHS = 2, 16, (8, 8)


def _problem(discrete: bool) -> Spaces:
    action = Discrete(3) if discrete else Box((-1.0,) * SIZE, (1.0,) * SIZE)
    return Spaces(Box((-9.0,) * 3, (9.0,) * 3), action)


@eqx.filter_jit
def _batch(seed, discrete: bool) -> Transitions:
    keys = jax.random.split(jax.random.key(seed), 5)
    if discrete:
        action = jax.random.randint(keys[0], (ROWS,), 0, 3, jnp.int32)
    else:
        action = jax.random.uniform(keys[0], (ROWS, SIZE), minval=-1.0, maxval=1.0)
    terminal = jnp.arange(ROWS) % 3 == 0
    return Transitions(
        observation=jax.random.normal(keys[1], (ROWS, 3)),
        action=action,
        reward=jax.random.normal(keys[2], (ROWS,)),
        next_observation=jax.random.normal(keys[3], (ROWS, 3)),
        terminal=terminal,
        truncated=~terminal & (jnp.arange(ROWS) % 5 == 0),
        next_action=action[::-1],
    )


def _begin(method, problem: Spaces):
    return eqx.filter_jit(method.init)(problem, key=jax.random.key(0))


def _learn(method, state, discrete: bool, updates: int = 4):
    for i in range(updates):
        # Numbers become arguments of the compiled program, so that it serves all their values.
        state = _update(
            jax.tree.map(jnp.asarray, method), state, _batch(i, discrete), jax.random.key(i)
        )
    return state


@eqx.filter_jit
def _update(method, state, data, key):
    return method.update(state, data, key=key)[0]


def _expect_same(a, b, tolerance=1e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def _differ(a, b) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(not np.allclose(x, y, atol=1e-4) for x, y in pairs)


def test_discrete_cql_without_its_penalty_is_dqn():
    fields = {"learning_rate": 1e-2, "target_period": 2, "widths": WIDTHS}
    problem = _problem(True)
    dqn, cql = DQN(**fields), DiscreteCQL(conservative_weight=0.0, **fields)
    begun = _begin(dqn, problem)
    one, other = _learn(dqn, begun, True), _learn(cql, _begin(cql, problem), True)
    _expect_same(one.critic, other.critic)
    _expect_same(one.target, other.target)
    assert _differ(begun.critic, one.critic)


def test_td3_bc_without_its_critic_is_cloning():
    fields = {"learning_rate": 1e-2, "widths": WIDTHS}
    problem = _problem(False)
    td3, bc = TD3BC(alpha=0.0, policy_delay=1, **fields), BC(**fields)
    begun = _begin(td3, problem)
    clone = eqx.tree_at(lambda s: s.actor, _begin(bc, problem), begun.actor)
    one, other = _learn(td3, begun, False), _learn(bc, clone, False)
    _expect_same(one.actor, other.actor)
    assert _differ(begun.actor, one.actor)


def test_awac_at_an_infinite_temperature_is_cloning():
    fields = {"learning_rate": 1e-2, "widths": WIDTHS}
    problem = _problem(True)
    awac, bc = AWAC(temperature=float("inf"), **fields), BC(**fields)
    begun = _begin(awac, problem)
    clone = eqx.tree_at(lambda s: s.actor, _begin(bc, problem), begun.actor)
    _expect_same(_learn(awac, begun, True).actor, _learn(bc, clone, True).actor)


def test_rebrac_without_penalties_has_the_critics_of_td3():
    # The targets share the smoothing noise, so it must be drawn alike too.
    fields = {"learning_rate": 1e-3, "widths": WIDTHS}
    problem = _problem(False)
    td3 = TD3BC(alpha=0.0, **fields)
    rebrac = ReBRAC(actor_penalty=0.0, critic_penalty=0.0, layer_norm=False, **fields)
    begun = _begin(td3, problem)
    planted = _plant(_begin(rebrac, problem), begun)
    one, other = _learn(td3, begun, False, 1), _learn(rebrac, planted, False, 1)
    _expect_same(one.critics, other.critics)
    penalised = eqx.tree_at(lambda m: m.critic_penalty, rebrac, 0.5)
    assert _differ(one.critics, _learn(penalised, planted, False, 1).critics)


def test_rebrac_with_one_critic_twice_is_td3_bc():
    # Then Q_1 is the smaller one, and α weighs Q where β weighs the distance: β = 1 / (α · size).
    fields = {"learning_rate": 1e-2, "policy_delay": 1, "widths": WIDTHS}
    problem = _problem(False)
    td3 = TD3BC(alpha=2.5, **fields)
    rebrac = ReBRAC(actor_penalty=1 / (2.5 * SIZE), critic_penalty=0.0, layer_norm=False, **fields)
    begun = _begin(td3, problem)
    same = jax.tree.map(lambda leaf: jnp.stack([leaf[0], leaf[0]]), begun.critics)
    begun = eqx.tree_at(lambda s: (s.critics, s.target_critics), begun, (same, same))
    planted = _plant(_begin(rebrac, problem), begun)
    one, other = _learn(td3, begun, False, 1), _learn(rebrac, planted, False, 1)
    _expect_same(one.actor, other.actor, 1e-5)
    assert _differ(begun.actor, one.actor)


def _plant(state, source):
    def where(s):
        return s.actor, s.critics, s.target_actor, s.target_critics

    return eqx.tree_at(where, state, where(source))
