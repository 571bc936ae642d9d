"""Pessimistic value iteration against its equations in NumPy and on a small process."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.tabular.offline.pessimistic_value_iteration import PessimisticValueIteration
from headwater.ops.tabular.planning import (
    policy_values,
)

from ..finite_problems import (
    BEST,
    PROBLEM,
    PROCESS,
    over_data_sets,
)
from ..finite_twin import (
    ACTIONS,
    HORIZON,
    SIZES,
    STATES,
    begin,
    episodes,
    moments,
    problem,
    tally,
)

EPISODES, FAILURE, SCALE = 600, 0.05, 0.05


EPISODES, FAILURE, SCALE = 600, 0.05, 0.05


EPISODES, FAILURE, SCALE = 600, 0.05, 0.05


LOG = np.log(EPISODES * HORIZON / FAILURE)


def plan(counts, penalty, reward):
    value, action_value = np.zeros((HORIZON + 1, STATES)), np.zeros(SIZES)
    for h in reversed(range(HORIZON)):
        for s in range(STATES):
            for a in range(ACTIONS):
                if counts.following[h, s, a].sum() == 0:
                    continue
                visits, row, mean, variance = counts.model(h, s, a)
                expected, spread = moments(row, value[h + 1])
                if penalty == "hoeffding":
                    b = np.sqrt(16 * HORIZON**2 * LOG / visits)
                else:
                    b = np.sqrt(16 * LOG / visits * spread) + 16 * HORIZON * LOG / visits
                    if reward is None:
                        b += np.sqrt(2 * LOG * variance / visits) + 7 * LOG / (3 * visits)
                mean = mean if reward is None else reward[h, s, a]
                action_value[h, s, a] = max(mean + expected - min(SCALE * b, HORIZON), 0.0)
        value[h] = action_value[h].max(axis=-1)
    return action_value


@pytest.mark.parity
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("penalty", ["hoeffding", "bernstein"])
def test_one_update(penalty, known):
    method = PessimisticValueIteration(penalty, SCALE, FAILURE)
    data = episodes(EPISODES)
    state, metrics = method.update(begin(method, known), data, key=jax.random.key(0))
    reward = np.asarray(problem(True).reward, np.float64) if known else None
    action_value = plan(tally(data), penalty, reward)
    np.testing.assert_allclose(state.action_value, action_value, rtol=2e-5, atol=1e-6)
    assert np.count_nonzero(action_value) > 10
    start = action_value[0].max(-1)[np.asarray(data.state)[:, 0]].mean()
    np.testing.assert_allclose(metrics["pessimistic_value"], start, rtol=1e-5)


@pytest.mark.parity
def test_among_worthless_actions_the_usual_one_is_taken():
    method = PessimisticValueIteration()
    data = episodes(20)
    state, _ = method.update(begin(method), data, key=jax.random.key(0))
    assert not np.any(state.action_value)
    visits = tally(data).following.sum(-1)
    expected = np.eye(ACTIONS)[visits.argmax(-1)]
    np.testing.assert_array_equal(method.policy(state, explore=False), expected)


@pytest.mark.oracle
@pytest.mark.parametrize("penalty, visits", [("hoeffding", 200_000), ("bernstein", 3_000)])
def test_pessimistic_values_are_below_what_the_policy_is_worth(penalty, visits):
    method = PessimisticValueIteration(penalty)
    state = method.init(PROBLEM, key=jax.random.key(0))

    def one(counts):
        plan = method._plan(counts, PROBLEM)
        learned = eqx.tree_at(lambda s: (s.counts, s.action_value), state, (counts, plan))
        policy = method.policy(learned, explore=False)
        return jnp.max(plan, axis=-1), policy_values(PROCESS, policy).value[:-1]

    lower, worth = over_data_sets(one, visits)
    assert float(jnp.mean(lower[:, 0] > 0.0)) > 0.9
    assert jnp.mean(jnp.all(lower <= worth + 1e-4, axis=(1, 2))) >= 0.9
    assert float(jnp.mean(BEST.value[:1] - worth[:, 0])) < 0.05
