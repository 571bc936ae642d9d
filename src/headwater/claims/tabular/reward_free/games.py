"""Reward-free exploration of a game, planned for afterwards against whoever knows the policy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.games import PURSUIT_REPLIES, pursuit_grid
from headwater.evaluation.constrained import course_of, measurement
from headwater.evaluation.games.play import approach_in_game, planned_game
from headwater.evaluation.instances import stacked
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.methods.tabular.reward_free.rf_ucrl import RFUCRL
from headwater.methods.tabular.reward_free.vi_zero import VIZero
from headwater.ops.tabular.convex import distance, within_budgets
from headwater.ops.tabular.games import secured_return, solve_game

_PAPER = "miryoosefi2022simple"
_WHERE = "the extension of the reduction to two-player Markov games; the numbers are ours"


def _games(seed: int, runs: int, rewards: int, size: int, horizon: int) -> list[FiniteProcess]:
    """Games of the same moves whose rewards differ: `rewards` for each run of an explorer."""
    keys = jax.random.split(jax.random.key(seed), runs * rewards)
    return [pursuit_grid(size=size, horizon=horizon, key=key) for key in keys]


def _models(
    seed: int, games: list[FiniteProcess], runs: int, explorer: str, scale: float, episodes: int
) -> list[FiniteProcess]:
    """What each run learned of the moves, with both players' actions in one hand."""
    kind = {"RFUCRL": RFUCRL, "VIZero": VIZero}[explorer]
    method = kind(stationary=True, bonus_scale=scale)
    told = games[:runs]
    course = course_of(
        method,
        stacked(told),
        [1.0],
        draws=episodes,
        every=episodes,
        explore=True,
        key=jax.random.fold_in(jax.random.key(seed), 1),
    )
    return [
        method.model(jax.tree.map(lambda leaf, i=i: leaf[i], course.state), game.reward, game.cost)
        for i, game in enumerate(told)
    ]


def _values(
    seed: int,
    *,
    runs: int,
    rewards: int,
    size: int,
    horizon: int,
    episodes: int,
    explorer: str,
    bonus_scale: float,
) -> Finding:
    games = _games(seed, runs, rewards, size, horizon)
    models = _models(seed, games, runs, explorer, bonus_scale, episodes)
    short, wrong = np.zeros((runs, rewards)), np.zeros((runs, rewards))
    uniform, rounding = np.zeros((runs, rewards)), np.zeros((runs, rewards))
    for i, game in enumerate(games):
        at = i % runs, i // runs
        found = planned_game(game, models[at[0]], PURSUIT_REPLIES)
        short[at] = float(found.value - found.secured)
        wrong[at] = abs(float(found.promised - found.value))
        rounding[at] = float(found.rounding)
        even = jnp.full((horizon, game.states, game.actions // PURSUIT_REPLIES), 0.5)
        uniform[at] = float(found.value - secured_return(game, even, PURSUIT_REPLIES))
    criteria = (
        Criterion(
            "value of the game less what the policy secures", mean_of(short.mean(1)), at_most=0.05
        ),
        Criterion("error of the learned game's value", mean_of(wrong.mean(1)), at_most=0.05),
    )
    return Finding(
        criteria,
        {
            "shortfall": short.tolist(),
            "error of the value": wrong.tolist(),
            "shortfall of acting uniformly": uniform.mean().item(),
            "most that the planner may be off": rounding.max().item(),
        },
    )


def _approach(
    seed: int,
    *,
    runs: int,
    size: int,
    horizon: int,
    episodes: int,
    rounds: int,
    explorer: str,
    bonus_scale: float,
) -> Finding:
    games = _games(seed, runs, 1, size, horizon)
    models = _models(seed, games, runs, explorer, bonus_scale, episodes)
    gaps, greedy = np.zeros((runs, rounds)), np.zeros(runs)
    for i, (game, model) in enumerate(zip(games, models)):
        measured = measurement(game)

        def worth(weights, measured=measured, game=game):
            return dataclasses.replace(game, reward=measured @ jnp.asarray(weights))

        def spent(own, worth=worth):
            return -secured_return(worth([0.0, -1.0]), own, PURSUIT_REPLIES)

        # What an equilibrium of worth less meetings secures of each, it secures of both at once.
        careful = solve_game(worth([1.0, -1.0]), PURSUIT_REPLIES).own
        least = secured_return(game, careful, PURSUIT_REPLIES)
        target = within_budgets(least, float(horizon), spent(careful)[None])
        found = approach_in_game(
            game,
            model,
            PURSUIT_REPLIES,
            measured,
            target,
            rounds=rounds,
            largest=float(horizon),
        )
        gaps[i] = np.asarray(jax.vmap(lambda x, t=target: distance(t, x))(found))
        even = jnp.full((horizon, game.states, game.actions // PURSUIT_REPLIES), 0.5)
        greedy[i] = max(
            float(least - secured_return(game, even, PURSUIT_REPLIES)),
            float(spent(even) - spent(careful)),
        )
    return Finding(
        (Criterion("distance of the average returns", mean_of(gaps[:, -1]), at_most=0.05),),
        {"last": gaps[:, -1].tolist(), "short of a bound, acting uniformly": greedy.tolist()},
        {"average of the rounds": (np.arange(1, rounds + 1), gaps)},
        across="rounds",
        up="distance from the set",
        logarithmic="x",
    )


_SMALL = {"size": 3, "horizon": 6, "episodes": 800}
_SMOKE = {"size": 2, "horizon": 3, "episodes": 100}
_PRACTICAL = {"explorer": "RFUCRL", "bonus_scale": 0.02}
_ZERO = {"explorer": "VIZero", "bonus_scale": 1e-5}


CLAIMS = (
    Claim(
        name="one-exploration-serves-every-game",
        statement="After 800 episodes without rewards, the policy that is planned in the learned "
        "model of a pursuit on a grid secures the value of the game up to 0.05 against whoever "
        "knows it, and the model's value is right up to 0.05, for every rewards told afterwards.",
        methods=("RFUCRL",),
        paper=_PAPER,
        where=_WHERE,
        scales={
            "smoke": {**_SMOKE, "runs": 3, "rewards": 2, **_PRACTICAL},
            "small": {**_SMALL, "runs": 8, "rewards": 4, **_PRACTICAL},
        },
        experiment=_values,
    ),
    Claim(
        name="vi-zero-serves-every-game",
        statement="The same with the episodes of VI-Zero, the explorer that the paper recommends.",
        methods=("VIZero",),
        paper=_PAPER,
        where=_WHERE,
        scales={
            "smoke": {**_SMOKE, "runs": 3, "rewards": 2, **_ZERO},
            "small": {**_SMALL, "runs": 8, "rewards": 4, **_ZERO},
        },
        experiment=_values,
    ),
    Claim(
        name="reward-free-approachability-against-an-opponent",
        statement="On the model of 800 episodes without rewards, the average returns of 50 rounds "
        "against an opponent who knows each round's policy come within 0.05 of the set of what one "
        "policy secures of the worth and of the meetings.",
        methods=("RFUCRL",),
        paper=_PAPER,
        where=_WHERE,
        scales={
            "smoke": {**_SMOKE, "runs": 3, "rounds": 20, **_PRACTICAL},
            "small": {**_SMALL, "runs": 8, "rounds": 50, **_PRACTICAL},
        },
        experiment=_approach,
    ),
)
