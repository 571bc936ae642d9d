"""MVP against its equations in NumPy and on a small process."""

import copy

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Episodes
from headwater.methods.tabular.online.mvp import MVP
from headwater.ops.tabular.counts import certified_gap, count, no_counts
from headwater.ops.tabular.planning import (
    expected_return,
    uniform_policy,
)
from headwater.sources.episodes import log_episodes

from .. import finite_problems
from ..finite_problems import (
    BEST,
    PROBLEM,
    PROCESS,
    SEEDS,
    expect_best_policy,
    expect_optimistic_plans,
    over_data_sets,
)
from ..finite_twin import (
    ACTIONS,
    HORIZON,
    SIZES,
    STATES,
    Tally,
    begin,
    episodes,
    learn_each,
    moments,
    problem,
    walk,
)

EPISODES, FAILURE, SCALE = 64, 0.05, 0.001


EPISODES, FAILURE, SCALE = 64, 0.05, 0.001


EPISODES, FAILURE, SCALE = 64, 0.05, 0.001


LOG = np.log(200 * STATES * ACTIONS * HORIZON**2 * EPISODES**2 / FAILURE)


POWERS = {2**i for i in range(int(np.log2(EPISODES)) + 1)}


def plan(model, reward):
    value = np.zeros((HORIZON + 1, STATES))
    action_value = np.full(SIZES, float(HORIZON))
    for h in reversed(range(HORIZON)):
        for s in range(STATES):
            for a in range(ACTIONS):
                if model.following[h, s, a].sum() == 0:
                    continue
                visits, row, mean, variance = model.model(h, s, a)
                expected, spread = moments(row, value[h + 1])
                b = 460 / 9 * np.sqrt(spread * LOG / visits)
                if reward is None:
                    b += 2 * np.sqrt(2) * np.sqrt(max(variance, 0.0) * LOG / visits)
                else:
                    mean = reward[h, s, a]
                b += 544 / 9 * HORIZON * LOG / visits
                action_value[h, s, a] = min(mean + expected + SCALE * b, HORIZON)
        value[h] = action_value[h].max(axis=-1)
    return action_value


@pytest.mark.parity
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("samples", ["later_half", "all"])
def test_every_step(samples, known):
    method = MVP(SCALE, FAILURE, float(EPISODES), samples)
    data = episodes(EPISODES)
    states, metrics = learn_each(method, begin(method, known), data)
    reward = np.asarray(problem(True).reward, np.float64) if known else None

    visits, batch, model = np.zeros(SIZES, int), Tally(), Tally()
    action_value, triggered, plans = np.full(SIZES, float(HORIZON)), False, 0
    for k, (h, s, a, r, t) in walk(data):
        visits[h, s, a] += 1
        batch.add(h, s, a, r, t)
        if visits[h, s, a] in POWERS:
            for name in ("following", "reward", "squared"):
                getattr(model, name)[h, s, a] = copy.copy(getattr(batch, name)[h, s, a])
            if samples == "later_half":
                batch.clear(h, s, a)
            triggered = True
        if h == HORIZON - 1:
            assert metrics["replanned"][k] == float(triggered), k
            if triggered:
                action_value, plans, triggered = plan(model, reward), plans + 1, False
            np.testing.assert_allclose(states.action_value[k], action_value, rtol=3e-5)
            np.testing.assert_allclose(states.model.following[k], model.following, err_msg=str(k))
    assert 10 < plans < EPISODES
    power = 2 ** int(np.log2(visits.max()))
    assert states.model.visits[-1].max() == (power // 2 if samples == "later_half" else power)
    np.testing.assert_array_equal(states.counts.visits[-1], visits)


@pytest.mark.parity
def test_a_doubling_within_a_batch_is_noticed():
    """Three visits at once pass one and two; the fourth alone reaches four; the fifth nothing."""
    method = MVP(SCALE, FAILURE, float(EPISODES))
    state = begin(method)
    still = Episodes(*(np.zeros((3, n), t) for n, t in ((4, "i4"), (3, "i4"), (3, "f4"))))
    one = Episodes(still.state[0], still.action[0], still.reward[0])
    for data, replanned, used in ((still, 1.0, 3.0), (one, 1.0, 1.0), (one, 0.0, 1.0)):
        state, metrics = method.update(state, data, key=jax.random.key(0))
        assert metrics["replanned"] == replanned
        assert state.model.visits[0, 0, 0] == used
    assert state.doubled.visits[0, 0, 0] == 4.0 and state.counts.visits[0, 0, 0] == 5.0


@pytest.mark.oracle
@pytest.mark.parametrize(
    "method",
    [
        MVP(0.002, num_episodes=float(finite_problems.EPISODES)),
        MVP(0.002, num_episodes=float(finite_problems.EPISODES), samples_used="all"),
    ],
    ids=["later half", "all"],
)
def test_the_best_policy_is_found(method):
    expect_best_policy(method)


@pytest.mark.oracle
def test_plans_are_optimistic_everywhere_in_nearly_all_data_sets():
    method = MVP()
    expect_optimistic_plans(lambda counts: method._plan(counts, PROBLEM), 2_000_000)


@pytest.mark.oracle
def test_without_a_bonus_plans_are_not_optimistic():
    """So that the test above can fail."""
    values = over_data_sets(lambda c: MVP(0.0)._plan(c, PROBLEM), 100)
    assert jnp.mean(jnp.all(values >= BEST.action_value[None] - 1e-4, axis=(1, 2, 3))) < 0.1


@pytest.mark.oracle
@pytest.mark.parametrize("known_reward", [False, True])
def test_certified_gaps_cover_the_true_ones(known_reward):
    """Of the policy that looks best in the data, which is the one most likely to disappoint."""
    problem = PROCESS.problem(known_reward=known_reward)

    def one(key, episodes):
        data = log_episodes(PROCESS, uniform_policy(PROCESS), episodes=episodes, key=key)
        counts = count(no_counts(problem), data, problem)
        policy = MVP(0.0).policy(
            eqx.tree_at(
                lambda s: s.action_value,
                MVP().init(problem, key=key),
                MVP(0.0)._plan(counts, problem),
            ),
            explore=True,
        )
        gap = BEST.value[0] @ PROCESS.initial - expected_return(PROCESS, policy)
        return gap, certified_gap(counts, policy, problem, 0.1)

    keys = jax.random.split(jax.random.key(7), SEEDS)
    for number, bound_at_most in ((10, 3.0), (1_500, 2.0)):
        gap, bound = jax.jit(jax.vmap(lambda k, n=number: one(k, n)))(keys)
        assert jnp.mean(bound >= gap) >= 0.9
        assert jnp.max(gap) > 1e-3 or number > 10
        assert jnp.mean(bound) < bound_at_most + 1e-4
