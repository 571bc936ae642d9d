"""Exponential weights in batches against a plain loop in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.environments.bandits.bernoulli import BernoulliBandit
from headwater.methods.bandits.batched_hedge import BatchedHedge
from headwater.runs.learn import learn
from headwater.sources.pulls import LivePulls

ARMS, ROUNDS, BATCHES = 3, 60, 12


def played(feedback):
    bandit = BernoulliBandit(arms=ARMS, gap=0.4)
    method = BatchedHedge(ROUNDS, BATCHES, rate_scale=1.5, feedback=feedback)

    def measure(agent, data):
        return {
            "arm": data.arm[0],
            "rewards": data.rewards[0],
            "propensity": data.propensity[0],
            "looked_at": agent.state.looked_at,
        }

    source = LivePulls(bandit, shows_all=True)
    learned = jax.jit(
        lambda key: learn(method, bandit.problem, source, ROUNDS, measure=measure, every=1, key=key)
    )(jax.random.key(4))
    return {name: np.asarray(value) for name, value in learned.sums.items()}


@pytest.mark.parity
@pytest.mark.parametrize("feedback", ["full", "bandit"])
def test_arms_are_kept_and_drawn_as_the_weights_say(feedback):
    seen = played(feedback)
    length = ROUNDS // BATCHES
    each = 1.0 if feedback == "full" else 2.0 / ARMS
    rate = 1.5 * np.sqrt(each * np.log(ARMS) / BATCHES)
    losses, keep, arm, changes = np.zeros(ARMS), 0.0, 0, 0
    for batch in range(BATCHES):
        rounds = slice(batch * length, (batch + 1) * length)
        weights = np.exp(-rate * (losses - losses.min()))
        weights /= weights.sum()
        drawn = keep * np.eye(ARMS)[arm] + (1.0 - keep) * weights
        arm = int(seen["arm"][rounds][0])
        assert np.all(seen["arm"][rounds] == arm)
        np.testing.assert_allclose(seen["propensity"][rounds][0], drawn[arm], rtol=1e-4)
        np.testing.assert_allclose(seen["propensity"][rounds][1:], 1.0)
        at = int(seen["looked_at"][rounds][0])
        assert 0 <= at < length
        found = 1.0 - seen["rewards"][rounds][at].astype(np.float64)
        if feedback == "full":
            keep = np.exp(-rate * found[arm])
        else:
            found = found[arm] * np.eye(ARMS)[arm] / weights[arm]
        losses += found
        changes += batch > 0 and arm != int(seen["arm"][rounds.start - 1])
    assert seen["switches"].sum() == changes > 0


def test_a_change_after_rewards_without_loss_is_one_too():
    """Three batches of one round; the first arm is drawn, and is no change."""
    rows = Pulls(
        jnp.zeros((3, 0)), jnp.zeros((3, 2, 0)), jnp.asarray([1, 0, 1]), jnp.ones(3), jnp.ones(3)
    )
    method, key = BatchedHedge(3, 3, feedback="bandit"), jax.random.key(0)
    assert method.update(method.init(Arms(2), key=key), rows, key=key)[1]["switches"] == 2.0


def test_full_feedback_needs_the_rewards_of_all_arms():
    row = Pulls(
        jnp.zeros((1, 0)), jnp.zeros((1, 2, 0)), jnp.zeros(1, jnp.int32), jnp.ones(1), jnp.ones(1)
    )
    method, key = BatchedHedge(), jax.random.key(0)
    with pytest.raises(SpecificationError, match="give a source that shows it"):
        method.update(method.init(Arms(2), key=key), row, key=key)
