"""Evolution of rules: the direction in NumPy, and a rule that has to be found."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.evaluation.meta.lifetimes import lifetimes
from headwater.methods.meta.ta_lpg import TALPG
from headwater.ops.control.gradient_steps import begin
from headwater.parts.meta.evolution import Evolving, evolve

TASKS, ARMS = 16, 3
METHOD = TALPG(shortest_lifetime=3, longest_lifetime=3, learning_rate=0.05)
PROBLEM = FiniteProblem(1, ARMS, 1, tasks=TASKS)


def bandits(best):
    """The arm of this number is the good one."""
    means = jnp.broadcast_to(jnp.eye(ARMS)[best], (TASKS, 1, 1, ARMS))
    return FiniteProcess(jnp.ones((*means.shape, 1)), means, jnp.ones((TASKS, 1)))


def step(rule, learner, process, passed, lifetime, key):
    """A learner that moves as the rule is, and twice as far in the first update."""
    return learner + jnp.where(passed == 0, 2.0, 1.0) * rule[None, None]


def begun(rule):
    adam = begin(optax.adam(METHOD.learning_rate), rule)
    policies = jnp.full((TASKS, 1, 1, ARMS), 1.0 / ARMS)
    return Evolving(rule, adam, jnp.zeros((), jnp.int32), policies)


@jax.jit
def update(state, key):
    learner = jnp.zeros((1, 1, ARMS))
    return evolve(METHOD, state, bandits(1), learner, step, lambda logits: logits, key=key)


@pytest.mark.parity
def test_the_rule_moves_towards_those_that_end_better():
    rule, key = jnp.asarray([0.2, -0.1, 0.0]), jax.random.key(0)
    state, metrics = update(begun(rule), key)
    noise = np.asarray(jax.random.normal(jax.random.split(key, 3)[1], (TASKS, ARMS)))

    def worth(flat):
        # Two, one and one times the rule, in a lifetime of three updates.
        policy = np.exp(4.0 * flat) / np.exp(4.0 * flat).sum()
        return policy[1]

    plus = np.asarray([worth(np.asarray(rule) + 0.1 * row) for row in noise])
    minus = np.asarray([worth(np.asarray(rule) - 0.1 * row) for row in noise])
    direction = (np.sign(plus - minus)[:, None] * noise).mean(axis=0)
    # The first step of Adam is the learning rate in the direction of each sign.
    np.testing.assert_allclose(state.rule - rule, 0.05 * np.sign(direction), rtol=1e-3)
    np.testing.assert_allclose(metrics["final_return"], (plus + minus).mean() / 2.0, rtol=1e-5)
    better = np.maximum(plus, minus)
    np.testing.assert_allclose(state.policies[:, 0, 0, 1], better, rtol=1e-5)


@pytest.mark.oracle
def test_the_rule_that_leads_to_the_good_arm_is_found():
    state, _ = jax.lax.scan(update, begun(jnp.zeros(ARMS)), jax.random.split(jax.random.key(1), 60))
    assert float(state.policies[:, 0, 0, 1].min()) > 0.99


def test_a_rule_is_judged_by_whole_lifetimes():
    method = TALPG(episodes_per_update=2, num_predictions=2, recurrent_size=2)
    state = method.init(PROBLEM, key=jax.random.key(0))
    found = jax.jit(lambda key: lifetimes(method, state, bandits(0), 4, key=key))(jax.random.key(1))
    assert found.returns.shape == found.entropy.shape == (TASKS, 4)
    assert float(found.entropy.max()) <= np.log(ARMS) + 1e-5
    # One arm earns one and the others nothing: the return is the probability of that arm.
    task = jax.tree.map(lambda x: x[0], bandits(0))
    policies = jax.jit(lambda key: method.apply_rule(state, task, 4, key=key))
    first = policies(jax.random.split(jax.random.key(1), TASKS)[0])
    np.testing.assert_allclose(found.returns[0], first[:, 0, 0, 0], rtol=1e-5)
