"""Rounds of bandits: propensities, delays, batches, and logs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.method import Agent
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.environments.bandits.bernoulli import BernoulliBandit
from headwater.environments.bandits.contextual import FeatureBandit
from headwater.methods.bandits.exp3 import EXP3
from headwater.methods.bandits.lin_ucb import LinUCB
from headwater.methods.bandits.square_cb import SquareCB
from headwater.runs.learn import learn
from headwater.sources.pulls import LivePulls, LoggedPulls


def drawn(source, method, count, *, problem=None):
    """The first draws, without learning between them."""
    agent = Agent(method, method.init(problem or source.bandit.problem, key=jax.random.key(0)))

    @jax.jit
    def run(key):
        state = source.init(key=key)
        state = source.prepare(state, agent, key=key)

        def one(state, key):
            return source.draw(state, agent, key=key)

        return jax.lax.scan(one, state, jax.random.split(key, count))[1]

    return run(jax.random.key(1))


def test_the_propensity_is_what_the_policy_said():
    bandit = FeatureBandit(arms=3, feature_size=2)
    method = SquareCB(gap_weight=0.0)
    data = drawn(LivePulls(bandit, batch_size=50), method, 40)
    np.testing.assert_allclose(data.propensity, 1.0 / 3.0, rtol=1e-6)
    counts = np.bincount(np.asarray(data.arm).ravel(), minlength=3)
    # Five standard errors of a third of 2,000.
    assert np.all(np.abs(counts - 2000 / 3) < 5 * np.sqrt(2000 * 2 / 9)), counts
    assert data.features.shape == (40, 50, 3, 2)


def test_regret_is_exact():
    bandit = BernoulliBandit(arms=4, seed=3)
    data = drawn(LivePulls(bandit), EXP3(), 30)
    means = np.asarray(bandit.reset().means, np.float64)
    np.testing.assert_allclose(
        np.asarray(data.regret)[:, 0], means.max() - means[np.asarray(data.arm)[:, 0]], rtol=1e-6
    )


def test_every_arm_is_shown_if_asked():
    data = drawn(LivePulls(BernoulliBandit(arms=4), batch_size=8, shows_all=True), EXP3(), 5)
    own = np.take_along_axis(np.asarray(data.rewards), np.asarray(data.arm)[..., None], 2)[..., 0]
    np.testing.assert_array_equal(own, data.reward)


def test_delayed_pulls_come_in_order_and_are_old():
    """A policy that has learned nothing for `delay` draws makes them uniformly."""
    bandit, method = BernoulliBandit(arms=2, gap=1.0), EXP3(rate_scale=50.0)

    def measure(agent, data):
        return {"propensity": data.propensity[0], "now": jnp.max(agent.probabilities(
            jnp.zeros(0), jnp.zeros((2, 0)), key=jax.random.key(0), explore=True))}  # fmt: skip

    source = LivePulls(bandit, delay=5)
    learned = jax.jit(
        lambda key: learn(method, bandit.problem, source, 40, measure=measure, every=1, key=key)
    )(jax.random.key(0))
    early = np.asarray(learned.sums["propensity"])
    np.testing.assert_allclose(early[:5], 0.5, rtol=1e-6)
    # What is learned from a draw was decided five updates ago.
    now = np.asarray(learned.sums["now"])
    assert np.all(early[5:] <= now[:-5] + 1e-6)
    assert int(learned.source_state.pulls) == 45


def test_means_change_where_they_should():
    bandit = BernoulliBandit(arms=5, period=10)
    assert not bandit.stationary and BernoulliBandit(arms=5).stationary
    source = LivePulls(bandit)
    method = EXP3()
    agent = Agent(method, method.init(bandit.problem, key=jax.random.key(0)))
    state = source.init(key=jax.random.key(0))
    seen = [np.asarray(state.bandit.means)]
    draw = jax.jit(lambda s, k: source.draw(s, agent, key=k)[0])
    for i in range(20):
        state = draw(state, jax.random.key(i))
        seen.append(np.asarray(state.bandit.means))
    assert all(np.array_equal(seen[0], s) for s in seen[:10])
    assert not np.array_equal(seen[9], seen[10]) and not np.array_equal(seen[19], seen[20])
    np.testing.assert_array_equal(np.sort(seen[0]), np.sort(seen[20]))


def test_instances_are_mapped():
    """A gap and a seed as arrays: as many bandits, each as it would be alone."""

    def regret(seed, key):
        bandit = BernoulliBandit(arms=4, seed=seed)
        learned = learn(
            EXP3(),
            bandit.problem,
            LivePulls(bandit),
            50,
            measure=lambda a, d: {"regret": d.regret[0]},
            key=key,
        )
        return learned.sums["regret"][0]

    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(regret))(jnp.arange(3), keys)
    alone = [jax.jit(regret)(jnp.asarray(i), keys[i]) for i in range(3)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def log():
    rows = 7
    return Pulls(
        jnp.arange(rows, dtype=jnp.float32)[:, None],
        jnp.ones((1, 3, 2)),
        jnp.arange(rows, dtype=jnp.int32) % 3,
        jnp.linspace(0.0, 1.0, rows),
        jnp.full(rows, 1 / 3),
    )


@pytest.mark.parametrize("in_order", [True, False])
def test_a_log_is_read_in_order_or_at_random(in_order):
    source = LoggedPulls(log(), 3, in_order=in_order)
    data = drawn(source, LinUCB(), 5, problem=Arms(3, 1, 2, jnp.ones((3, 2))))
    shown = np.asarray(data.context).ravel().tolist()
    if in_order:
        assert shown == [float(i % 7) for i in range(15)]
    else:
        assert set(shown) <= set(range(7)) and shown != [float(i % 7) for i in range(15)]
    assert data.features.shape == (5, 3, 3, 2)
