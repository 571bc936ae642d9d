"""Games against the linear program in double precision, and a reply against enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.finite import random_process
from headwater.ops.tabular.games import (
    equilibrium,
    facing,
    joint_policy,
    secured_return,
    solve_game,
    worst_reply,
)
from headwater.ops.tabular.planning import expected_return

OWN, REPLIES = 2, 3
GAME = random_process(states=4, actions=OWN * REPLIES, horizon=3, key=jax.random.key(7))


def value_of(payoff):
    """The value of a matrix game: the most that some mixture earns against every column."""
    rows, columns = payoff.shape
    found = linprog(
        np.append(np.zeros(rows), -1.0),
        A_ub=np.hstack([-payoff.T, np.ones((columns, 1))]),
        b_ub=np.zeros(columns),
        A_eq=np.append(np.ones(rows), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0.0, None)] * rows + [(None, None)],
        method="highs",
    )
    return -found.fun


def some_policy(seed, actions):
    return jax.random.dirichlet(jax.random.key(seed), jnp.ones(actions), (3, 4))


def test_mixed_strategies_have_the_value_of_the_linear_program():
    payoff = np.random.default_rng(0).normal(size=(12, 4, 5)).astype(np.float32)
    own, reply = (np.asarray(x, np.float64) for x in equilibrium(jnp.asarray(payoff), 2000))
    np.testing.assert_allclose(own.sum(-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(reply.sum(-1), 1.0, atol=1e-5)
    for game, mine, other in zip(payoff.astype(np.float64), own, reply):
        value = value_of(game)
        assert value - 0.01 < (mine @ game).min() <= value + 1e-5
        assert value - 1e-5 <= (game @ other).max() < value + 0.01


def test_matching_pennies_is_played_evenly():
    own, reply = equilibrium(jnp.asarray([[1.0, -1.0], [-1.0, 1.0]]), 100)
    np.testing.assert_allclose(own, [0.5, 0.5], atol=1e-3)
    np.testing.assert_allclose(reply, [0.5, 0.5], atol=1e-3)


def test_a_game_without_an_iteration_is_refused():
    with pytest.raises(SpecificationError, match="iterations = 0 must be at least 1"):
        equilibrium(jnp.eye(2), 0)


def test_the_game_has_the_value_of_backward_induction_by_linear_programs():
    plan = solve_game(GAME, REPLIES)
    transition, reward = (np.asarray(x, np.float64) for x in (GAME.transition, GAME.reward))
    value = np.zeros(4)
    for step in reversed(range(3)):
        payoff = (reward[step] + transition[step] @ value).reshape(4, OWN, REPLIES)
        value = np.asarray([value_of(each) for each in payoff])
        assert np.all(plan.secured[step] <= value + 1e-5)
        assert np.all(plan.conceded[step] >= value - 1e-5)
        np.testing.assert_allclose(plan.secured[step], value, atol=5e-3)
        np.testing.assert_allclose(plan.conceded[step], value, atol=5e-3)
    # The values told are those of the policies told.
    low = secured_return(GAME, plan.own, REPLIES)
    assert float(low) == pytest.approx(float(GAME.initial @ plan.secured[0]), rel=1e-5)


def test_no_reply_is_worse_than_the_worst():
    own = some_policy(1, OWN)
    least = float(secured_return(GAME, own, REPLIES))
    replied = expected_return(GAME, joint_policy(own, worst_reply(GAME, own, REPLIES)))
    assert float(replied) == pytest.approx(least, rel=1e-5)
    for seed in range(20):
        other = some_policy(100 + seed, REPLIES)
        faced = float(expected_return(GAME, joint_policy(own, other)))
        assert faced >= least
        alone = float(expected_return(facing(GAME, own, REPLIES), other))
        assert faced == pytest.approx(alone, rel=1e-5)


def test_the_worst_reply_is_that_of_enumeration():
    random = np.random.default_rng(3)
    game = FiniteProcess.from_arrays(
        random.dirichlet(np.ones(2), (2, 2, 4)), random.random((2, 2, 4)), [0.4, 0.6]
    )
    own = jax.random.dirichlet(jax.random.key(2), jnp.ones(2), (2, 2))
    worth = [
        float(expected_return(game, joint_policy(own, jnp.eye(2)[jnp.asarray(chosen)])))
        for chosen in np.reshape(list(itertools.product(range(2), repeat=4)), (-1, 2, 2))
    ]
    assert float(secured_return(game, own, 2)) == pytest.approx(min(worth), rel=1e-5)


def test_actions_that_are_no_pairs_are_refused():
    for replies in (4, 0):
        with pytest.raises(SpecificationError, match="6 actions, which are no pairs"):
            solve_game(GAME, replies)
