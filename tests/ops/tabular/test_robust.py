"""The game of robust planning against brute force, automatic gradients and backward induction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.finite import random_process
from headwater.ops.tabular.planning import (
    expected_return,
    optimal_values,
    robust_values,
    worst_expectation,
)
from headwater.ops.tabular.robust import (
    Directions,
    RowBalls,
    into_simplex,
    no_regret_dynamics,
    worst_rows,
    worst_transition,
)

PROCESS = random_process(states=4, actions=3, horizon=3, key=jax.random.key(4))
RADIUS = jax.random.uniform(jax.random.key(5), PROCESS.reward.shape)
BALLS = RowBalls(PROCESS.transition, RADIUS)
SHIFTS = 0.05 * jax.random.normal(jax.random.key(6), (2, *PROCESS.transition.shape))
TOGETHER = Directions(
    PROCESS.transition, SHIFTS - jnp.mean(SHIFTS, axis=-1, keepdims=True), jnp.asarray(0.8)
)


def worth(transition, policy, process=PROCESS):
    return expected_return(FiniteProcess(transition, process.reward, process.initial), policy)


def some_policy(seed):
    return jax.random.dirichlet(jax.random.key(seed), jnp.ones(3), (3, 4))


def play(process, uncertainty, **others):
    settings = {"iterations": 300, "policy_rate": 30.0, "environment_rate": 1.0, **others}
    return no_regret_dynamics(process, uncertainty, **settings)


def test_worst_rows_are_distributions_that_attain_the_lowest_expectation():
    following = jnp.asarray([0.4, 0.1, 0.9, 0.4])
    rows = worst_rows(PROCESS.transition[0], following, RADIUS[0])
    lowest = worst_expectation(PROCESS.transition[0], following, RADIUS[0])
    np.testing.assert_allclose(rows @ following, lowest, atol=1e-6)
    np.testing.assert_allclose(jnp.sum(rows, axis=-1), 1.0, atol=1e-6)
    moved = 0.5 * jnp.sum(jnp.abs(rows - PROCESS.transition[0]), axis=-1)
    assert rows.min() >= 0.0 and jnp.all(moved <= RADIUS[0] + 1e-6)


def test_no_transition_of_the_set_is_worse_than_the_worst():
    policy = some_policy(1)
    lowest = worth(worst_transition(PROCESS.reward, policy, BALLS), policy)
    random = np.random.default_rng(0)
    for _ in range(200):
        towards = random.dirichlet(np.full(4, 0.1), PROCESS.reward.shape)
        away = 0.5 * np.abs(towards - PROCESS.transition).sum(-1)
        share = np.minimum(np.asarray(RADIUS) / away, 1.0)[..., None]
        member = (1.0 - share) * PROCESS.transition + share * towards
        assert worth(jnp.asarray(member, jnp.float32), policy) >= lowest - 1e-5


def test_of_the_best_robust_policy_it_is_what_backward_induction_says():
    plan = robust_values(PROCESS, RADIUS)
    lowest = worth(worst_transition(PROCESS.reward, plan.policy, BALLS), plan.policy)
    assert float(lowest) == pytest.approx(float(PROCESS.initial @ plan.value[0]), rel=1e-5)


def test_projection_onto_the_simplex_is_the_nearest_distribution():
    points = 2.0 * jax.random.normal(jax.random.key(0), (50, 6))
    found = np.asarray(into_simplex(points), np.float64)
    # Its level, found by bisection in double precision.
    given = np.asarray(points, np.float64)
    low, high = given.min(-1) - 1.0, given.max(-1)
    for _ in range(80):
        level = (low + high) / 2.0
        above = np.maximum(given - level[:, None], 0.0).sum(-1) > 1.0
        low, high = np.where(above, level, low), np.where(above, high, level)
    np.testing.assert_allclose(found, np.maximum(given - low[:, None], 0.0), atol=1e-6)
    np.testing.assert_allclose(into_simplex(into_simplex(points)), found, atol=1e-6)
    np.testing.assert_allclose(into_simplex(jnp.asarray([1e6, 0.0])), [1.0, 0.0])


@pytest.mark.parametrize("uncertainty", [BALLS, TOGETHER], ids=["rows", "together"])
def test_the_policy_follows_the_gradient_of_what_it_earned(uncertainty):
    played = play(PROCESS, uncertainty, iterations=3, policy_rate=0.7)
    for t in range(2):
        policy = played.policies[t]
        met = uncertainty.transition(played.places[t])
        gradient = jax.grad(worth, 1)(met, policy)
        moved = into_simplex(policy + 0.7 / np.sqrt(t + 1.0) * gradient)
        np.testing.assert_allclose(played.policies[t + 1], moved, atol=1e-5)
        assert float(played.value[t]) == pytest.approx(float(worth(met, policy)), rel=1e-5)
        best = optimal_values(FiniteProcess(met, PROCESS.reward, PROCESS.initial)).value[0]
        assert float(played.best[t]) == pytest.approx(float(PROCESS.initial @ best), rel=1e-5)


@pytest.mark.parametrize("rate", [0.5, 50.0], ids=["inside", "onto the border"])
def test_rows_that_move_together_follow_their_gradient(rate):
    place, policy = jnp.asarray([0.3, -0.2]), some_policy(2)
    slope = jax.grad(lambda x: worth(TOGETHER.transition(x), policy))(place)
    wanted = np.asarray(place - rate * slope, np.float64)
    wanted *= min(0.8 / np.linalg.norm(wanted), 1.0)
    found = TOGETHER.respond(place, PROCESS, policy, jnp.asarray(rate))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_game_ends_at_the_best_robust_policy():
    played = play(PROCESS, BALLS)
    best = float(PROCESS.initial @ robust_values(PROCESS, RADIUS).value[0])
    assert played.value.max() <= best + 1e-5 and played.best.min() >= best - 1e-5
    assert float(played.value[-1]) > best - 1e-3
    # The environment knows the policy: its regret is not above zero in any iteration.
    nominal = jax.vmap(lambda policy: worth(PROCESS.transition, policy))(played.policies)
    assert jnp.all(played.value <= nominal + 1e-5)


def test_a_sum_over_transitions_has_a_local_maximum_that_is_not_the_best():
    """Why regret of gradient steps is measured here, and not taken from the paper's lemma.

    Action 0 in both states is right in the first process, action 1 in both in the second. Each
    value has no local maximum but its best; their sum has one at "always action 1", whose gradient
    no direction improves, although "always action 0" earns more.
    """
    # States: start, middle, good, lost.
    rewards = np.zeros((3, 4, 2))
    rewards[2, 2] = 1.0

    def lock(right, chance):
        transition = np.zeros((4, 2, 4))
        transition[..., 3] = 1.0
        transition[0, right] = (0.0, chance, 0.0, 1.0 - chance)
        transition[1, right] = (0.0, 0.0, 1.0, 0.0)
        transition[2] = (0.0, 0.0, 1.0, 0.0)
        return FiniteProcess.from_arrays(transition, rewards, 0)

    locks = [lock(0, 1.0), lock(1, 0.8)]

    def total(policy):
        return sum(expected_return(each, policy) for each in locks)

    always = [jnp.zeros((3, 4, 2)).at[..., action].set(1.0) for action in (0, 1)]
    assert [float(total(policy)) for policy in always] == pytest.approx([1.0, 0.8])
    gradient = jax.grad(total)(always[1])
    # Moving probability to action 0 anywhere earns less, or nothing.
    assert jnp.all(gradient[..., 0] - gradient[..., 1] <= 0.0)
    assert jnp.min(gradient[0, 0, 0] - gradient[0, 0, 1]) == pytest.approx(-0.8)
    climbed = always[1]
    for _ in range(20):
        climbed = into_simplex(climbed + 0.5 * jax.grad(total)(climbed))
    assert float(total(climbed)) == pytest.approx(0.8)
    # Of one process alone, the same steps from the middle reach the best.
    policy = jnp.full((3, 4, 2), 0.5)
    for _ in range(60):
        policy = into_simplex(
            policy + 0.5 * jax.grad(lambda p: expected_return(locks[1], p))(policy)
        )
    assert float(expected_return(locks[1], policy)) == pytest.approx(0.8)
