"""Levels for learning to learn: which are telling, and what rules that are found in them are worth.

Levels are grids of 25 cells in which objects end the episode, for better or worse. Nothing in them
remembers, so that returns are computed, and what is best is known.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.evaluation.meta.lifetimes import lifetimes
from headwater.evaluation.statistics import rank_correlation
from headwater.evidence.claim import Claim, Criterion, Finding, exactly, mean_of, with_numbers
from headwater.methods.meta.groove import GROOVE
from headwater.ops.tabular.planning import expected_return, optimal_values
from headwater.parts.meta.antagonist import advance, first_antagonist
from headwater.runs.learn import learn
from headwater.sources.meta.tasks import DrawnTasks

_SIDE, _STEPS, _ACTIONS, _OBJECTS = 5, 20, 4, 3
_CELLS = _SIDE**2
_MAZES = {
    "zigzag": ("S....", "####.", "G....", "#####", "....."),
    "spiral": (".....", "####.", ".G.#.", ".###.", "....S"),
    "four rooms": ("S.#..", ".....", ".###.", "..#..", "....G"),
    "comb": ("S#.#G", ".#.#.", ".....", ".#.#.", ".#.#."),
    "crossing": ("G....", "##.##", "##.##", "##.##", "..S.."),
}
"""From S to G it is 6 to 10 steps; all that is earned is one at G."""
_SETTINGS = {
    "episodes_per_update": 8,
    "num_predictions": 4,
    "recurrent_size": 16,
    "shortest_lifetime": 20,
    "longest_lifetime": 60,
    "learning_rate": 0.01,
}
"""Of the rule and its agents; all else as published."""


def _grid(
    walls: Bool[Array, " cell"], worth: Float[Array, " cell"], start: Int[Array, ""]
) -> FiniteProcess:
    """Four moves, which walls stop; to enter a cell that is worth something ends the episode."""
    cell = jnp.arange(_CELLS)
    row, column = cell // _SIDE, cell % _SIDE
    moved = []
    for down, right in ((-1, 0), (0, 1), (1, 0), (0, -1)):
        to_row, to_column = (
            jnp.clip(at + by, 0, _SIDE - 1) for at, by in ((row, down), (column, right))
        )
        to = to_row * _SIDE + to_column
        moved.append(jnp.where(walls[to], cell, to))
    to = jnp.stack(moved, axis=1)
    earned = worth[to]
    after = jnp.where(earned != 0.0, _CELLS, to)
    # Behind the cells there is the end, where nothing happens.
    after = jnp.concatenate([after, jnp.full((1, _ACTIONS), _CELLS)])
    earned = jnp.concatenate([earned, jnp.zeros((1, _ACTIONS))])
    sizes = (_STEPS, _CELLS + 1, _ACTIONS)
    transition = jax.nn.one_hot(after, _CELLS + 1)
    return FiniteProcess(
        jnp.broadcast_to(transition, (*sizes, _CELLS + 1)),
        jnp.broadcast_to(earned, sizes),
        jax.nn.one_hot(start, _CELLS + 1),
    )


def _level(key: jax.Array) -> FiniteProcess:
    """Up to half of the cells are walls; three objects, of which one is good for sure."""
    place_key, worth_key, share_key, wall_key = jax.random.split(key, 4)
    places = jax.random.permutation(place_key, _CELLS)[: _OBJECTS + 1]
    lowest = jnp.asarray([0.0] + [-1.0] * (_OBJECTS - 1))
    worths = jax.random.uniform(worth_key, (_OBJECTS,), minval=lowest, maxval=1.0)
    worth = jnp.zeros(_CELLS).at[places[1:]].set(worths)
    walls = jax.random.bernoulli(wall_key, 0.5 * jax.random.uniform(share_key), (_CELLS,))
    return _grid(walls.at[places].set(False), worth, places[0])


def _mazes() -> FiniteProcess:
    """The mazes by hand, stacked."""
    flat = np.asarray([list("".join(rows)) for rows in _MAZES.values()])
    starts = jnp.asarray(np.argmax(flat == "S", axis=1))
    return jax.vmap(_grid)(jnp.asarray(flat == "#"), jnp.asarray(flat == "G", jnp.float32), starts)


def _learned(method: GROOVE, tasks: int, updates: int, *, key: jax.Array):
    """The state after so many updates, each with as many agents as tasks."""
    problem = FiniteProblem(_CELLS + 1, _ACTIONS, _STEPS, tasks=tasks)
    # To compile gradients that nothing needs would make the smallest scale slow.
    if updates == 0:
        return method.init(problem, key=key)
    return learn(method, problem, DrawnTasks(_level, tasks), updates, key=key).state


def _ranks(
    seed: int,
    *,
    meta_seeds: int,
    tasks: int,
    updates: int,
    levels: int,
    lifetime: int,
    lifetimes_for_truth: int,
) -> Finding:
    method = GROOVE(**_SETTINGS)

    def one(key: jax.Array):
        """Scores of new levels, and what could still be gained in them, `[number, level]`."""
        keys = jax.random.split(key, 4)
        state = _learned(method, tasks, updates, key=keys[0])
        new = jax.vmap(_level)(jax.random.split(keys[1], levels))

        def ends(key):
            each = jax.vmap(lambda task, key: method.apply_rule(state, task, lifetime, key=key)[-1])
            return each(new, jax.random.split(key, levels))

        policies = jax.lax.map(ends, jax.random.split(keys[2], 1 + lifetimes_for_truth))
        antagonist = jax.vmap(
            lambda task, key: advance(
                method, first_antagonist(task.reward.shape), task, lifetime, key=key
            )
        )(new, jax.random.split(keys[3], levels))
        worth = jax.vmap(jax.vmap(expected_return), in_axes=(None, 0))(new, policies)
        best = jax.vmap(lambda task: jnp.dot(task.initial, optimal_values(task).value[0]))(new)
        return jnp.stack(
            [
                # Of other lifetimes than those that the scores are from.
                best - jnp.mean(worth[1:], axis=0),
                method.scores(policies[0], antagonist, new),
                method.scores(policies[0], None, new),
                -worth[0],
            ]
        )

    keys = jax.random.split(jax.random.key(seed), meta_seeds)
    found = np.asarray(eqx.filter_jit(jax.vmap(one))(keys), np.float64)
    regret, loss, low = (
        np.asarray([rank_correlation(run[0], run[i]) for run in found]) for i in (1, 2, 3)
    )
    what = "rank correlation of a level's {} with what could still be gained in it"
    return Finding(
        (Criterion(what.format("algorithmic regret"), mean_of(regret), at_least=0.5),),
        numbers={
            what.format("value loss"): mean_of(loss),
            what.format("return of the agent, negated,"): mean_of(low),
            "what could still be gained": mean_of(found[:, 0].mean(axis=1)),
            "algorithmic regret": mean_of(found[:, 1].mean(axis=1)),
        },
    )


def _rules(method: GROOVE, probabilities: list[float], seed: int, **scale: int):
    """Rules that are found with these probabilities of replay, and what agents learn by them.

    **Returns:** returns in the mazes at the end of a lifetime, `[probability, meta seed, maze]`.
    """
    tasks, tests = scale["tasks"], scale["tests"]
    mazes = jax.tree.map(lambda x: jnp.repeat(x, tests, axis=0), _mazes())

    def one(probability: Array, key: Array):
        own = with_numbers(method, replay_probability=probability)
        learn_key, agent_key = jax.random.split(key)
        state = _learned(own, tasks, scale["updates"], key=learn_key)
        judged = lifetimes(own, state, mazes, scale["lifetime"], key=agent_key)
        return jnp.mean(judged.returns[:, -1].reshape(len(_MAZES), tests), axis=1)

    keys = jax.random.split(jax.random.key(seed), scale["meta_seeds"])
    # The same random numbers for all probabilities.
    each = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))
    return np.asarray(eqx.filter_jit(each)(jnp.asarray(probabilities), keys), np.float64)


def _enough(differences: np.ndarray) -> int | None:
    """Meta seeds that would tell a mean like this from none, at 95 %, four times of five."""
    mean = abs(float(np.mean(differences)))
    if len(differences) < 2 or mean == 0.0:
        return None
    return int(np.ceil((2.8 * float(np.std(differences, ddof=1)) / mean) ** 2))


def _curricula(seed: int, *, value_loss: bool, **scale: int) -> Finding:
    method = GROOVE(**_SETTINGS)
    regret, random = _rules(method, [0.5, 0.0], seed, **scale)
    gain = np.mean(regret - random, axis=1)
    found = {"levels by regret": regret, "random levels": random}
    numbers: dict[str, Any] = {
        "gain over random levels, by meta seed": gain.tolist(),
        "meta seeds that would decide": _enough(gain),
    }
    # Another program, which would make the smallest scale slow.
    if value_loss:
        by_loss = dataclasses.replace(method, score="value_loss")
        found["levels by value loss"] = _rules(by_loss, [0.5], seed, **scale)[0]
        other = np.mean(regret - found["levels by value loss"], axis=1)
        numbers["gain of regret over value loss"] = mean_of(other)
        numbers["meta seeds that would decide between scores"] = _enough(other)
    numbers["return in the mazes"] = {
        name: {maze: mean_of(ends[:, i]) for i, maze in enumerate(_MAZES)}
        for name, ends in found.items()
    }
    what = "return in the mazes after a lifetime, levels by regret less random levels"
    criteria = (
        Criterion(what, mean_of(gain), at_least=0.0),
        Criterion(f"{what}, the least of the meta seeds", exactly(np.min(gain)), at_least=0.0),
    )
    return Finding(criteria, numbers)


_SMALL = {"meta_seeds": 3, "tasks": 16, "lifetime": 50}
_TINY = {"meta_seeds": 2, "tasks": 2, "lifetime": 2}

CLAIMS = (
    Claim(
        "algorithmic-regret-tells-what-could-still-be-learned",
        "What an actor-critic gains on an agent that learns by the rule so far, once each, ranks "
        "levels by what the rule could still gain in them, as far as the best policy does: the "
        "rank correlation is at least 0.5. Agents by which this is known are others than those by "
        "which levels are scored. Nothing is tuned.",
        ("GROOVE",),
        "jackson2023discovering",
        "its section on algorithmic regret: the antagonist stands for the best policy",
        {
            "smoke": {**_TINY, "updates": 0, "levels": 4, "lifetimes_for_truth": 2},
            "small": {**_SMALL, "updates": 40, "levels": 64, "lifetimes_for_truth": 4},
        },
        _ranks,
    ),
    Claim(
        "rules-found-in-levels-of-high-regret-learn-mazes-better",
        "Update rules that are found with levels that come again by their algorithmic regret earn "
        "more after a lifetime in five mazes that no level is like than those found in random "
        "levels: on average with an interval above zero, and with every one of the meta seeds. "
        "Nothing is tuned. Three meta seeds are few; how many would decide is reported, and so "
        "are rules found with levels that come again by value loss.",
        ("GROOVE",),
        "jackson2023discovering",
        "its figures on generalisation, on the smallest levels that have structure",
        {
            "smoke": {**_TINY, "updates": 0, "tests": 2, "value_loss": False},
            "small": {**_SMALL, "updates": 150, "tests": 8, "value_loss": True},
        },
        _curricula,
        learned=(
            "Fails with seed 0 as not every meta seed gains; over the three, 0.03 (-0.06 to "
            "0.12), which tells nothing."
        ),
    ),
)
