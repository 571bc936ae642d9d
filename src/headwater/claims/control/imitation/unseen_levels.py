"""The generalisation gap of learning from logs: mazes that were seen, and mazes that never were."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import AbstractMethod, AbstractPolicy
from headwater.core.records import Transitions
from headwater.environments.interaction import random_action
from headwater.environments.levels.maze_levels import MazeLevels, shortest_way
from headwater.evaluation.levels.generalisation_gap import level_returns
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.evidence.logs import record
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.discrete_cql import DiscreteCQL
from headwater.methods.control.offline.iql import IQL
from headwater.methods.control.online.dqn import DQN
from headwater.runs.learn import learn, seed_key
from headwater.sources.collect import Collect
from headwater.sources.replay import Replay

_ERRORS = 0.1
"""Share of the logged actions that are at random."""
_HELD_OUT = 1_000
"""Number of the first level of an instance that no log of it has."""
_STEPS = 400
"""Of each piece of a log."""


def _methods(width: int) -> dict[str, AbstractMethod]:
    """As the paper has them where it says so, judged as its code does.

    Cloning and IQL draw an action from their policies, CQL takes the best one, but for one in a
    thousand.
    """
    common: dict[str, Any] = {
        "learning_rate": 1e-3,
        "hidden_sizes": (width, width),
        "normalise_observations": False,
    }
    return {
        "BC": BC(**common),
        "CQL": DiscreteCQL(conservative_weight=1.0, exploration_rate=0.001, **common),
        "IQL": IQL(expectile=0.8, beta=0.1, **common),
    }


def _log(task: MazeLevels, rows: int, key: jax.Array) -> Transitions:
    """What somebody does who knows the shortest ways, and errs at times."""

    def act(skill, observation, key):
        slip_key, any_key, way_key = jax.random.split(key, 3)
        other = random_action(task.spaces, key=any_key)
        way = shortest_way(task, observation, key=way_key)
        return jnp.where(jax.random.uniform(slip_key) < skill, other, way).astype(jnp.int32)

    errors = np.full(max(rows // _STEPS, 1), _ERRORS)
    log = record(task, act, errors, steps=min(rows, _STEPS), key=key)
    return jax.tree.map(jnp.asarray, log.transitions())


@eqx.filter_jit
def _learned(method, spaces, data: Transitions, updates: int, batch: int, key: jax.Array):
    state = learn(method, spaces, Replay(data, batch), updates, key=key).state
    return jax.tree.map(lambda x: x[None], state)


def _success(
    method: AbstractPolicy, state: Any, task: MazeLevels, judged: int, key, *, explore: bool
) -> dict[str, float]:
    """Shares of the levels learned from, and of others, in which the goal is reached."""
    numbers = {"seen": np.arange(judged) % task.levels, "unseen": _HELD_OUT + np.arange(judged)}
    return {
        kind: level_returns(method, state, task, each, key=key, explore=explore).mean()
        for kind, each in numbers.items()
    }


def _gap(
    seed: int,
    *,
    instances: int,
    levels: tuple[int, ...],
    more_at: int,
    compared_at: int,
    rows: int,
    times: int,
    updates: int,
    judged: int,
    width: int,
    batch: int = 128,
) -> Finding:
    methods = _methods(width)
    found: dict[str, list[dict[str, float]]] = {}

    def note(name: str, index: int, method: Any, task: MazeLevels, data: Transitions):
        key = seed_key(seed, index, 1)
        state = _learned(method, task.spaces, data, updates, batch, key)
        common = (method, state, task, judged, key)
        found.setdefault(name, []).append(_success(*common, explore=True))
        if isinstance(method, BC):
            greedy = _success(*common, explore=False)
            found.setdefault(f"{name}, greedy", []).append(greedy)

    for index in range(instances):
        for count in levels:
            # As an array, the number of a level is no part of compiled programs.
            first = jnp.asarray(10_000 * (instances * seed + index), jnp.int32)
            task = MazeLevels(first, count)
            data = _log(task, rows, seed_key(seed, index, 2))
            for name, method in methods.items():
                if name == "BC" or count == compared_at:
                    note(f"{name}, {count} levels", index, method, task, data)
            if count == more_at:
                data = _log(task, times * rows, seed_key(seed, index, 3))
                more_rows = f"BC, {count} levels, {times} times the rows"
                note(more_rows, index, methods["BC"], task, data)

    success = {
        name: {kind: np.asarray([each[kind] for each in all_of]) for kind in ("seen", "unseen")}
        for name, all_of in found.items()
    }
    fewest, most = (success[f"BC, {count} levels"] for count in (levels[0], levels[-1]))
    few, more = (
        success[f"BC, {more_at} levels{rest}"] for rest in ("", f", {times} times the rows")
    )
    clone, conservative = (success[f"{name}, {compared_at} levels"] for name in ("BC", "CQL"))
    curves = {
        f"BC, {kind} levels": (
            list(levels),
            np.stack([success[f"BC, {count} levels"][kind] for count in levels], axis=1),
        )
        for kind in ("seen", "unseen")
    }
    return Finding(
        (
            Criterion(
                f"unseen levels: success from {levels[-1]} levels less that from {levels[0]}, BC",
                mean_of(most["unseen"] - fewest["unseen"]),
                at_least=0.30,
            ),
            Criterion(
                f"seen levels: success from {levels[0]} levels less that from {levels[-1]}, BC",
                mean_of(fewest["seen"] - most["seen"]),
                at_most=0.10,
            ),
            Criterion(
                f"unseen levels: what {times} times the rows of {more_at} levels add, BC",
                mean_of(more["unseen"] - few["unseen"]),
                at_most=0.10,
            ),
            Criterion(
                f"unseen levels: success of BC less that of CQL, from {compared_at} levels",
                mean_of(clone["unseen"] - conservative["unseen"]),
                at_least=0.0,
            ),
        ),
        {
            kind: {name: mean_of(each[kind]) for name, each in success.items()}
            for kind in ("seen", "unseen")
        },
        curves,
        across="levels in the log",
        up="share of levels in which the goal is reached",
        logarithmic="x",
    )


def _online(
    seed: int,
    *,
    instances: int,
    levels: int,
    rows: int,
    updates: int,
    online_updates: int,
    judged: int,
    width: int,
    copies: int = 32,
    batch: int = 128,
) -> Finding:
    methods: dict[str, Any] = _methods(width)
    del methods["IQL"]
    # From a pilot: with a discount of 0.95 it learned less.
    acting = DQN(
        discount=0.9,
        learning_rate=1e-3,
        final_exploration_rate=0.1,
        exploration_decay_updates=online_updates / 2,
        target_update_interval=200,
        hidden_sizes=(width, width),
    )
    found: dict[str, list[dict[str, float]]] = {}
    for index in range(instances):
        task = MazeLevels(jnp.asarray(10_000 * (instances * seed + index), jnp.int32), levels)
        key = seed_key(seed, index, 1)
        data = _log(task, rows, seed_key(seed, index, 2))
        for name, method in methods.items():
            state = _learned(method, task.spaces, data, updates, batch, key)
            success = _success(method, state, task, judged, key, explore=True)
            found.setdefault(name, []).append(success)
        state = _acted(acting, task, online_updates, batch, copies, key)
        found.setdefault("DQN", []).append(
            _success(acting, state, task, judged, key, explore=False)
        )
    success = {
        kind: {name: np.asarray([each[kind] for each in all_of]) for name, all_of in found.items()}
        for kind in ("seen", "unseen")
    }
    return Finding(
        tuple(
            Criterion(
                f"unseen levels: success of DQN, which acts, less that of {name}",
                mean_of(success["unseen"]["DQN"] - success["unseen"][name]),
                at_least=0.0,
            )
            for name in methods
        ),
        {kind: {name: mean_of(each) for name, each in of.items()} for kind, of in success.items()},
    )


@eqx.filter_jit
def _acted(method: DQN, task: MazeLevels, updates: int, batch: int, copies: int, key: jax.Array):
    source = Collect(
        task, 50_000, batch, steps_per_draw=copies, copies=copies, random_steps=40 * copies
    )
    state = learn(method, task.spaces, source, updates, key=key).state
    return jax.tree.map(lambda x: x[None], state)


CLAIMS = (
    Claim(
        "levels-and-not-rows-close-the-gap-of-clones",
        "Of logs of 40,000 steps in mazes, those of 400 mazes let cloning reach the goal of mazes "
        "that it never saw at least 30 points more often than those of 5, and of the mazes in the "
        "log at most 10 points less often. Four times the steps in 20 mazes add at most 10 points. "
        "From 100 mazes, cloning does at least as well in new ones as conservative Q-learning, "
        "each acting as in the paper's code: cloning draws its actions, Q-learning takes the best.",
        ("BC", "DiscreteCQL", "IQL"),
        "mediratta2024generalization",
        "its experiments with the number of levels and with the size of data sets, on mazes of "
        "seven by seven cells instead of Procgen; not its comparison with online learning",
        {
            "smoke": {
                "instances": 1,
                "levels": (2,),
                "more_at": 2,
                "compared_at": 2,
                "rows": 100,
                # One, so that the log and its clone are compiled once.
                "times": 1,
                "updates": 2,
                "judged": 4,
                "width": 8,
                "batch": 16,
            },
            "small": {
                "instances": 5,
                "levels": (5, 20, 100, 400),
                "more_at": 20,
                "compared_at": 100,
                "rows": 40_000,
                "times": 4,
                "updates": 4_000,
                "judged": 400,
                "width": 128,
            },
        },
        _gap,
        learned="Settings were chosen on two instances of seed 100. That cloning is before CQL is "
        "no matter of what was learned: the paper's code draws the actions of cloning from its "
        "policy and takes CQL's best ones. Where both take the best one, cloning comes to 0.26 in "
        "new mazes and CQL to 0.25 (0.29 and 0.26 with seed 1); where it draws, to 0.46. In a new "
        "maze a policy without noise walks into a wall, or to and fro, until the episode is over. "
        "IQL draws too, and does as cloning does.",
    ),
    Claim(
        "learning-online-meets-unseen-levels-better",
        "Q-learning that acts in the 100 mazes of a log, for 640,000 steps instead of the 40,000 "
        "that were logged, reaches the goal of mazes that it never saw at least as often as "
        "cloning the log and as conservative Q-learning from it.",
        ("DQN", "BC", "DiscreteCQL"),
        "mediratta2024generalization",
        "its comparison of online with offline learning, with deep Q-learning instead of PPO and "
        "mazes instead of Procgen",
        {
            "smoke": {
                "instances": 1,
                "levels": 2,
                "rows": 100,
                "updates": 2,
                "online_updates": 4,
                "judged": 4,
                "width": 8,
                "copies": 2,
                "batch": 16,
            },
            "small": {
                "instances": 3,
                "levels": 100,
                "rows": 40_000,
                "updates": 4_000,
                "online_updates": 20_000,
                "judged": 400,
                "width": 128,
            },
        },
        _online,
        learned="It fails by 35 and 15 points (33 and 14 with seed 1), and not for want of "
        "learning: of the mazes that it acted in, Q-learning solves 92 per cent (90), of others 10 "
        "(12). CQL, from a sixteenth of the steps, solves 26 per cent of others. PPO, the paper's "
        "online learner, draws its actions as cloning does, which is worth 20 points in new mazes; "
        "it is not in the catalogue for vectors, and would decide what the paper says.",
    ),
)
