"""Sources of comparisons and their judge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.environments.linear.linear_reward import deceptive_chain, random_linear_rewards
from headwater.methods.preference.preference_thompson import PbTS
from headwater.ops.tabular.planning import optimal_values
from headwater.sources.comparisons import (
    BradleyTerryJudge,
    FreshComparisons,
    LoggedComparisons,
    compare,
    log_comparisons,
)

_KEY = jax.random.key(0)


def test_the_judge_answers_as_often_as_bradley_and_terry_say():
    chain = deceptive_chain(states=2, near=0.5, far=0.0, slip=0.0)
    stay, go = (jnp.zeros((4, 2, 2)).at[:, :, action].set(1.0) for action in (0, 1))
    judge = BradleyTerryJudge(chain.process.reward)
    data = log_comparisons(chain.process, judge, stay, go, comparisons=4000, key=_KEY)
    # Staying earns 4 · 0.5, going nothing; four standard errors are 0.021.
    share = float(jnp.mean(data.first_preferred))
    assert abs(share - 1 / (1 + np.exp(-2.0))) < 0.021
    assert data.first.action.shape == (4000, 4) and not np.any(data.first.action)
    assert np.all(np.asarray(data.second.action) == 1)
    assert not np.any(data.first.reward), "the learner must not see rewards"


def test_fresh_comparisons_play_the_pair_and_count_steps():
    task = random_linear_rewards(states=3, actions=2, horizon=4, features=2, key=_KEY)
    method = PbTS(query_budget=4)
    agent = Agent(method, method.init(task.problem(), key=_KEY))
    source = FreshComparisons(task.process, BradleyTerryJudge(task.process.reward))
    state, data = source.draw(source.init(key=_KEY), agent, key=_KEY)
    assert int(source.environment_steps(state)) == 8
    assert data.first_preferred.shape == () and data.second.state.shape == (5,)
    logged = LoggedComparisons(data)
    assert logged.draw(logged.init(key=_KEY), agent, key=_KEY)[1] is data


def test_policies_that_come_in_no_pairs_are_refused():
    chain = deceptive_chain()
    with pytest.raises(SpecificationError, match="cannot be compared"):
        compare(
            chain.process,
            BradleyTerryJudge(chain.process.reward),
            jnp.full((3, *chain.process.reward.shape), 0.5),
            key=_KEY,
        )


def test_linear_rewards_are_linear_and_their_sizes_checked():
    task = random_linear_rewards(states=3, actions=2, horizon=4, features=5, key=_KEY)
    np.testing.assert_allclose(jnp.sum(task.process.transition, -1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(task.process.initial), 1.0, rtol=1e-5)
    np.testing.assert_allclose(task.process.reward, task.features @ task.weights, rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(task.weights), 3.0, rtol=1e-5)
    with pytest.raises(SpecificationError, match="features = 0 must be at least one"):
        random_linear_rewards(states=3, actions=2, horizon=4, features=0, key=_KEY)
    with pytest.raises(SpecificationError, match="a chain needs at least two states, not 1"):
        deceptive_chain(states=1)


def test_the_far_end_of_the_chain_is_best():
    chain = deceptive_chain(states=4, slip=0.0)
    plan = optimal_values(chain.process)
    # Three steps to get there, five to enjoy it.
    np.testing.assert_allclose(plan.value[0, 0], 25.0, rtol=1e-5)
