"""VPT's labeller: actions inferred from later observations too, and what cloning them is worth.

Demonstrators go to the corners of a grid that symbols mean. How a move shows is the same
everywhere and learned from few actions; what each of many symbols means takes many episodes.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from headwater.core.records import Transitions
from headwater.environments.exploration.late_grid import LateGrid, towards_the_corner
from headwater.evaluation.returns import evaluate_returns
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.imitation.inverse_dynamics import InverseDynamics
from headwater.runs.learn import learn, seed_key
from headwater.sources.action_windows import ActionWindowReplay
from headwater.sources.replay import Replay

_TASK = LateGrid()
_ERRORS = 0.05
"""Share of the demonstrators' actions that are at random."""
_BACK, _AHEAD = 2, 2
_EPISODES = 200


@eqx.filter_jit
def _demonstrated(keys: Array, episodes: int) -> tuple[Transitions, Array]:
    """Episodes `[set, episode, step]` of demonstrators, and where each is still going on."""

    def episode(key):
        start_key, walk_key = jax.random.split(key)

        def one(carry, key):
            state, observation, over = carry
            act_key, step_key = jax.random.split(key)
            action = towards_the_corner(_TASK, state, key=act_key, errors=_ERRORS)
            reached, step = _TASK.step(state, action, key=step_key)
            row = (observation, action, step.reward, step.observation, step.terminal)
            ended = over | step.terminal | step.truncated
            return (reached, step.observation, ended), (Transitions(*row, step.truncated), ~over)

        begun = (*_TASK.reset(key=start_key), jnp.zeros((), bool))
        return jax.lax.scan(one, begun, jax.random.split(walk_key, _TASK.horizon))[1]

    return jax.vmap(lambda key: jax.vmap(episode)(jax.random.split(key, episodes)))(keys)


class _Log:
    """Rows of demonstrators, with the episode of each: all of one number of rows."""

    def __init__(self, rows: Transitions, going_on: np.ndarray, count: int):
        flat = jax.tree.map(lambda x: np.asarray(x)[going_on][:count], rows)
        assert len(flat.reward) == count, "too few episodes for so many rows"
        over = flat.terminal | flat.truncated
        # The last episode may be cut; its last row is like one after which nothing was recorded.
        begins = np.concatenate([[True], over[:-1]])
        starts = np.flatnonzero(begins)
        number = np.cumsum(begins) - 1
        self.rows: Transitions = jax.tree.map(jnp.asarray, flat)
        self.first = starts[number]
        self.last = np.append(starts[1:], count)[number] - 1
        # What is done in the last step of an episode takes place after it, and never shows.
        self.shows = np.arange(count) != self.last


def _windows(log: _Log, drawn: int, future: int, batch: int) -> ActionWindowReplay:
    """Windows around the first `drawn` actions."""
    data = log.rows
    return ActionWindowReplay(
        data.observation,
        data.next_observation,
        data.action,
        jnp.asarray(log.first),
        jnp.asarray(log.last),
        jnp.arange(drawn),
        _BACK,
        future,
        batch,
    )


def _stacked(each: list[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *each)


@eqx.filter_jit
def _labels(method: InverseDynamics, sources: ActionWindowReplay, keys: Array, updates) -> Array:
    """The action inferred for every row of each log."""

    def one(source, key):
        state = learn(method, _TASK.spaces, source, updates, key=key).state
        return method.label(state, source.windows(jnp.arange(source.first.shape[0])))[0]

    return jax.vmap(one)(sources, keys)


@eqx.filter_jit
def _clones(method: BC, data: Transitions, keys: Array, updates: int, batch: int) -> Any:
    """What is cloned from each log."""

    def one(data, key):
        return learn(method, _TASK.spaces, Replay(data, batch), updates, key=key).state

    return jax.vmap(one)(data, keys)


def _inferred(
    seed: int,
    *,
    instances: int,
    labelled: int,
    rows: int,
    updates: int,
    width: int = 64,
    batch: int = 128,
) -> Finding:
    keys = jnp.stack([seed_key(seed, index) for index in range(instances)])
    # An episode takes six steps or more on the average.
    found, going_on = _demonstrated(keys, rows // 4)
    logs = [
        _Log(jax.tree.map(lambda x, i=i: x[i], found), np.asarray(going_on[i]), rows)
        for i in range(instances)
    ]
    settings = {"learning_rate": 1e-3, "hidden_sizes": (width, width)}
    settings |= {"normalise_observations": False}
    true = np.stack([np.asarray(log.rows.action) for log in logs])
    unlabelled = np.arange(rows) >= labelled
    labels, right = {}, {}
    for future in (_AHEAD, 0):
        method = InverseDynamics(history=_BACK, future=future, **settings)
        sources = _stacked([_windows(log, labelled, future, batch) for log in logs])
        labels[future] = np.asarray(_labels(method, sources, keys, updates))
        right[future] = np.asarray(
            [
                np.mean((label == action)[log.shows & unlabelled])
                for label, action, log in zip(labels[future], true, logs)
            ]
        )
    known = np.broadcast_to(np.arange(rows) % labelled, (instances, rows))
    filled = np.where(unlabelled, labels[_AHEAD], true)
    # Every log has as many rows, so that one program serves all: few are repeated. Rows whose
    # action never shows have no label worth cloning.
    shown = np.stack([np.resize(np.flatnonzero(log.shows), rows) for log in logs])
    cloned = {
        "the labelled rows alone": (known, true),
        "labelled and inferred": (shown, filled),
        "all logged": (shown, true),
    }
    success = {}
    for name, (chosen, actions) in cloned.items():
        data = [
            jax.tree.map(lambda x, c=c: x[c], dataclasses.replace(log.rows, action=jnp.asarray(a)))
            for log, c, a in zip(logs, chosen, actions)
        ]
        states = _clones(BC(**settings), _stacked(data), keys, updates, batch)
        returns = evaluate_returns(
            BC(**settings),
            states,
            _TASK,
            episodes=_EPISODES,
            key=jax.random.key(seed),
            explore=True,
        )
        success[name] = returns.mean(1)
    gained = success["labelled and inferred"] - success["the labelled rows alone"]
    return Finding(
        (
            Criterion("share of right labels", mean_of(right[_AHEAD]), at_least=0.95),
            Criterion(
                "share of right labels less that without later observations",
                mean_of(right[_AHEAD] - right[0]),
                at_least=0.10,
            ),
            Criterion(
                "success with inferred actions less that of the labelled rows alone",
                mean_of(gained),
                at_least=0.25,
            ),
        ),
        {
            "share of right labels": {
                "two later observations": mean_of(right[_AHEAD]),
                "none": mean_of(right[0]),
            },
            "success": {name: mean_of(each) for name, each in success.items()},
        },
    )


CLAIMS = (
    Claim(
        "later-observations-tell-actions-that-many-clone",
        "Of demonstrators whose moves show a step late, inverse dynamics that learned from 500 "
        "rows with actions, and looks two observations back and two ahead, tells at least 95 % of "
        "the actions of 19,500 other rows, and at least 10 points more than where it looks back "
        "alone. Cloning all rows with these labels then succeeds at least 25 points more often "
        "than cloning the 500 alone.",
        ("InverseDynamics", "BC"),
        "baker2022video",
        "its labeller and its cloning of labels, on a grid instead of Minecraft; not its "
        "reinforcement learning",
        {
            "smoke": {
                "instances": 2,
                "labelled": 20,
                "rows": 60,
                "updates": 2,
                "width": 8,
                "batch": 16,
            },
            "small": {"instances": 5, "labelled": 500, "rows": 20_000, "updates": 2_000},
        },
        _inferred,
    ),
)
