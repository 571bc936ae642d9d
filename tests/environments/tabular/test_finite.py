"""Finite environments against their arrays, and known processes against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.environments.check import check_environment
from headwater.environments.interaction import begin, episode_returns, interact, random_action
from headwater.environments.registry import environment_names
from headwater.environments.tabular.finite import (
    FiniteEnvironment,
    FiniteState,
    combination_lock,
    deep_sea,
    random_process,
    river_swim,
)
from headwater.ops.tabular.planning import (
    expected_return,
    occupancy,
    optimal_values,
    policy_values,
    uniform_policy,
)


def _best(process):
    return float(optimal_values(process).value[0] @ process.initial)


@pytest.mark.parametrize(
    "process",
    [
        random_process(states=4, actions=3, horizon=3, key=jax.random.key(0)),
        river_swim(states=3, horizon=4),
        combination_lock(horizon=3, slip=0.2, key=jax.random.key(0)),
        deep_sea(size=3, key=jax.random.key(0)),
    ],
    ids=("random", "river", "lock", "sea"),
)
def test_processes_make_environments_that_keep_their_promises(process):
    task = FiniteEnvironment(process)
    check_environment(task)
    assert task.spaces.observation_size == process.states + 1
    assert task.spaces.action_size == process.actions


def test_an_environment_that_needs_a_process_is_not_made_by_name():
    task = FiniteEnvironment(river_swim(), "my river", (0.1, 2.0))
    assert (task.name, task.reference_returns) == ("my river", (0.1, 2.0))
    assert not {"finite", "my river"} & set(environment_names())


def test_steps_follow_the_arrays(key):
    """Of 20,000 episodes: frequencies of starts and of every transition, and all rewards."""
    process = random_process(states=3, actions=2, horizon=3, key=key)
    task = FiniteEnvironment(process)
    copies = 20_000

    @eqx.filter_jit
    def walk(key):
        start = begin(task, copies, key=key)
        act = lambda observation, k: random_action(task.spaces, key=k)
        rows = interact(task, start, act, steps=3, key=key)[1]
        locate = jax.vmap(jax.vmap(task.locate))
        return rows, locate(rows.observation), locate(rows.next_observation)

    rows, here, there = walk(key)
    state, action, following = (np.asarray(x) for x in (here.state, rows.action, there.state))
    np.testing.assert_array_equal(here.time, np.repeat([[0], [1], [2]], copies, 1))
    np.testing.assert_array_equal(there.time, np.repeat([[1], [2], [3]], copies, 1))
    counts = np.zeros((3, 3, 2, 3))
    np.add.at(counts, (np.asarray(here.time), state, action, following), 1)
    visits = counts.sum(axis=-1)
    assert visits.min() > 300
    expected = visits[..., None] * process.transition
    deviation = (counts - expected) / np.sqrt(expected * (1 - process.transition) + 1e-9)
    assert np.abs(deviation).max() < 4.0
    np.testing.assert_allclose(visits[0].sum(axis=-1) / copies, process.initial, atol=0.015)
    np.testing.assert_allclose(
        visits / copies, occupancy(process, uniform_policy(process)), atol=0.015
    )
    np.testing.assert_array_equal(rows.reward, process.reward[np.asarray(here.time), state, action])
    np.testing.assert_array_equal(rows.terminal, np.repeat([[False], [False], [True]], copies, 1))
    assert not rows.truncated.any()


def test_an_observation_shows_state_and_step():
    task = FiniteEnvironment(river_swim(states=4, horizon=5))
    at = FiniteState(jnp.asarray(2, jnp.int32), jnp.asarray(3, jnp.int32))
    observation = task.observe(at)
    np.testing.assert_allclose(observation, [0.0, 0.0, 1.0, 0.0, 0.6])
    assert task.locate(observation) == at


def test_the_mean_return_of_rollouts_is_the_exact_value(key):
    process = random_process(states=4, actions=3, horizon=5, key=key)
    task = FiniteEnvironment(process)
    policy = optimal_values(process).policy

    def act(observation, key):
        at = task.locate(observation)
        return jnp.argmax(policy[at.time, at.state]).astype(jnp.int32)

    returns = np.asarray(episode_returns(task, act, episodes=4_000, key=key))
    error = returns.std() / np.sqrt(len(returns))
    assert 0.0 < error < 0.02
    assert abs(returns.mean() - float(expected_return(process, policy))) < 4.0 * error


def test_random_processes_are_distributions_that_their_key_decides(key):
    sizes = {"states": 5, "actions": 2, "horizon": 3}
    process = random_process(**sizes, key=key)
    np.testing.assert_allclose(process.transition.sum(axis=-1), np.ones((3, 5, 2)), rtol=1e-6)
    assert float(process.reward.min()) >= 0.0 and float(process.reward.max()) <= 1.0
    assert eqx.tree_equal(process, random_process(**sizes, key=key))
    assert not eqx.tree_equal(process, random_process(**sizes, key=jax.random.key(1)))
    assert not np.array_equal(process.transition[0], process.transition[1])
    same = random_process(**sizes, stationary=True, key=key)
    np.testing.assert_array_equal(same.transition[0], same.transition[2])
    np.testing.assert_array_equal(same.reward[0], same.reward[2])
    sharp = random_process(**sizes, concentration=0.01, key=key)
    assert float(sharp.transition.max(axis=-1).mean()) > 0.9


def test_a_river_too_long_to_swim_is_drifted_down():
    process = river_swim(states=6, horizon=5)
    assert _best(process) == pytest.approx(5 * 0.005, rel=1e-5)
    assert optimal_values(process).policy[0, 0].tolist() == [1.0, 0.0]


def test_a_short_river_is_worth_what_is_computed_by_hand():
    # Swim first, then on if it went well. From the first state (0.4) two drifts are left, from
    # the second (0.6) a try at the last state (0.35) or a fall back to one drift (0.05).
    by_hand = 0.4 * 2 * 0.005 + 0.6 * (0.35 * 1.0 + 0.05 * 0.005)
    assert _best(river_swim(states=3, horizon=3)) == pytest.approx(by_hand, rel=1e-5)


def test_who_swims_forever_is_rewarded_at_the_stationary_rate():
    """Detailed balance gives the chain's stationary distribution in closed form."""
    process = river_swim(states=4, horizon=2000)
    weight = np.cumprod([1.0, 0.6 / 0.05, 0.35 / 0.05, 0.35 / 0.4])
    swim = jnp.zeros_like(process.reward).at[..., 1].set(1.0)
    value = policy_values(process, swim).value[:, 0]
    assert float(value[0] - value[1000]) / 1000 == pytest.approx(
        weight[-1] / weight.sum(), rel=1e-3
    )


@pytest.mark.parametrize("slip", [0.0, 0.1])
def test_the_lock_is_worth_what_its_docstring_says(slip, key):
    process = combination_lock(horizon=6, actions=3, slip=slip, key=key)
    kept = (1.0 - slip) ** 5
    assert _best(process) == pytest.approx(kept, rel=1e-5)
    at_random = expected_return(process, uniform_policy(process))
    assert float(at_random) == pytest.approx(kept / 3**6, rel=1e-4)
    other = combination_lock(horizon=6, actions=3, slip=slip, key=jax.random.key(1))
    assert not eqx.tree_equal(process, other)


def test_the_deep_sea_is_worth_what_its_docstring_says(key):
    size = 7
    process = deep_sea(size=size, key=key)
    plan = optimal_values(process)
    for row in range(size):
        # On the diagonal the treasure can be reached; left of it, only the way left pays.
        assert float(plan.value[row, row]) == pytest.approx(1.0)
        left = np.full(row, (size - row) * 0.01 / size)
        np.testing.assert_allclose(plan.value[row, :row], left, rtol=1e-5)
    at_random = float(expected_return(process, uniform_policy(process)))
    assert at_random == pytest.approx(0.005 + 0.5**size, rel=1e-4)
    assert not eqx.tree_equal(process, deep_sea(size=size, key=jax.random.key(1)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda key: random_process(states=0, actions=1, horizon=1, key=key), "states = 0 must be"),
        (
            lambda key: random_process(states=2, actions=1, horizon=1, concentration=0.0, key=key),
            "concentration = 0 must be above zero",
        ),
        (lambda key: river_swim(states=1), "a river needs at least two states, not 1"),
        (lambda key: river_swim(horizon=0), "horizon = 0 must be at least one"),
        (lambda key: combination_lock(horizon=2, slip=1.5, key=key), "slip = 1.5 must be a prob"),
        (lambda key: deep_sea(size=0, key=key), "size = 0 must be at least one"),
    ],
)
def test_sizes_that_make_no_process_are_refused(build, message, key):
    with pytest.raises(SpecificationError, match=message):
        build(key)


def test_a_process_of_ones_own_is_acted_in(key):
    """A machine that is repaired or wears out, from arrays to a simulated return."""
    wear = [[[0.8, 0.2], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]]
    process = FiniteProcess.from_arrays(wear, [[1.0, 0.0], [0.0, 0.0]], horizon=4)
    returns = episode_returns(
        FiniteEnvironment(process, "machine"),
        lambda observation, k: jnp.zeros((), jnp.int32),
        episodes=2_000,
        key=key,
    )
    exact = 1 + 0.8 + 0.8**2 + 0.8**3
    assert abs(float(returns.mean()) - exact) < 4 * float(returns.std()) / 2_000**0.5
