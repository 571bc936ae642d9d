"""What plans of games are worth: in the game itself, and in a model that is wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.environments.tabular.finite import random_process
from headwater.environments.tabular.games import PURSUIT_REPLIES, pursuit_grid
from headwater.evaluation.constrained import measurement
from headwater.evaluation.games.play import approach_in_game, planned_game
from headwater.ops.tabular.convex import distance, within_budgets
from headwater.ops.tabular.games import secured_return, solve_game

GAME = pursuit_grid(horizon=4, key=jax.random.key(1))


def test_the_game_itself_is_planned_for_up_to_rounding():
    found = planned_game(GAME, GAME, PURSUIT_REPLIES)
    assert float(found.promised) == float(found.value)
    assert float(found.rounding) < 0.005
    assert abs(float(found.value - found.secured)) <= float(found.rounding) + 1e-5


def test_in_a_model_of_another_game_the_policy_falls_short():
    options = {"states": 4, "actions": 4, "horizon": 4, "concentration": 0.1}
    game = random_process(**options, key=jax.random.key(1))
    model = random_process(**options, key=jax.random.key(2))
    found = planned_game(game, model, 2)
    own = solve_game(dataclasses.replace(model, reward=game.reward), 2).own
    assert float(found.secured) == pytest.approx(float(secured_return(game, own, 2)))
    assert float(found.secured) < float(found.value) - 0.05
    assert abs(float(found.promised - found.value)) > 0.05


def test_a_set_that_a_policy_keeps_to_is_approached_whatever_the_opponent_does():
    # What an equilibrium of worth less costs secures of each, it secures of both at once.
    measured = measurement(GAME)
    mixed = dataclasses.replace(GAME, reward=measured[..., 0] - measured[..., 1])
    own = solve_game(mixed, PURSUIT_REPLIES).own
    least = secured_return(GAME, own, PURSUIT_REPLIES)
    spent = dataclasses.replace(GAME, reward=-measured[..., 1])
    most = -secured_return(spent, own, PURSUIT_REPLIES)
    target = within_budgets(least, 4.0, most[None])
    course = approach_in_game(
        GAME, GAME, PURSUIT_REPLIES, measured, target, rounds=60, largest=4.0, iterations=100
    )
    gaps = np.asarray(jax.vmap(lambda x: distance(target, x))(course))
    assert gaps.max() > 0.1 and gaps[-1] < 0.05
    # What is out of reach is not approached.
    beyond = within_budgets(least + 2.0, 4.0, jnp.asarray([0.0]))
    course = approach_in_game(
        GAME, GAME, PURSUIT_REPLIES, measured, beyond, rounds=20, largest=4.0, iterations=100
    )
    assert float(distance(beyond, course[-1])) > 1.0
