"""Transitions of logs, and single steps of streams."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp

from headwater.core.records import LoggedPairs, StagedTransitions, Transition, Transitions
from headwater.core.spaces import Box, Discrete, Spaces, Statistics
from headwater.testing.kinds.kind import ROWS, TERMINAL, TRUNCATED, Kind, kinds_of, repeated_rows

OBSERVATION, _ACTION, _CHOICES = 3, 2, 4


@kinds_of(Spaces, Transitions)
def _kinds() -> list[Kind]:
    return [
        Kind(
            name, problem, lambda key, d=problem.discrete: transitions(key, (ROWS,), d), True, _HARD
        )
        for name, problem in problems().items()
    ]


@kinds_of(Spaces, StagedTransitions)
def _kinds_of_stages() -> list[Kind]:
    return [
        Kind(
            f"stages of {name}",
            problem,
            lambda key, d=problem.discrete: StagedTransitions(
                transitions(key, (ROWS,), d), jnp.arange(ROWS) == 0
            ),
            False,
            {
                name: lambda d, change=change: replace(d, transitions=change(d.transitions))
                for name, change in _HARD.items()
            },
        )
        for name, problem in problems().items()
    ]


@kinds_of(Spaces, Transition)
def _kinds_of_steps() -> list[Kind]:
    return [
        Kind(
            f"a stream of {name}",
            problem,
            lambda key, d=problem.discrete: _one_step(key, d),
            False,
            _HARD_STEPS,
        )
        for name, problem in problems().items()
    ]


@functools.cache
def problems() -> dict[str, Spaces]:
    """The spaces of both kinds of actions."""
    return {
        "continuous": _spaces(Box((-2.0, 0.0), (2.0, 1.0))),
        "discrete": _spaces(Discrete(_CHOICES)),
    }


def _spaces(action: Box | Discrete) -> Spaces:
    statistics = Statistics(
        observation_mean=jnp.asarray([0.1, -0.2, 0.3]),
        observation_std=jnp.asarray([1.0, 0.5, 2.0]),
        return_low=jnp.asarray(-3.0),
        return_high=jnp.asarray(4.0),
        reward_mean=jnp.asarray(0.2),
        reward_std=jnp.asarray(1.5),
        terminal_share=jnp.asarray(0.1),
        return_to_go_mean=jnp.asarray(0.5),
    )
    box = Box((-10.0,) * OBSERVATION, (10.0,) * OBSERVATION)
    return Spaces(box, action, horizon=20, statistics=statistics)


def transitions(key, shape: tuple[int, ...], discrete: bool) -> Transitions:
    """Rows of a log with everything that a log may have; the first end episodes in both ways."""
    keys = jax.random.split(key, 6)
    pairs_key, pair_action_key = jax.random.split(keys[0])

    def action(key):
        if discrete:
            return jax.random.randint(key, shape, 0, _CHOICES, jnp.int32)
        return jax.random.uniform(key, (*shape, _ACTION), minval=-0.9, maxval=0.9)

    row = jnp.broadcast_to(jnp.arange(shape[0]).reshape(-1, *(1 for _ in shape[1:])), shape)
    return Transitions(
        observation=jax.random.normal(keys[0], (*shape, OBSERVATION)),
        action=action(keys[1]),
        reward=jax.random.normal(keys[2], shape),
        next_observation=jax.random.normal(keys[3], (*shape, OBSERVATION)),
        terminal=row < TERMINAL.stop,
        truncated=(row >= TRUNCATED.start) & (row < TRUNCATED.stop),
        next_action=action(keys[4]),
        return_to_go=jax.random.normal(keys[5], shape),
        whole_log=LoggedPairs(
            jax.random.normal(pairs_key, (*shape, OBSERVATION)), action(pair_action_key)
        ),
    )


def _one_step(key, discrete: bool) -> Transition:
    """A step of a stream, which once in four times ends an episode in one of the two ways."""
    step_key, end_key = jax.random.split(key)
    row = jax.tree.map(lambda x: x[0], transitions(step_key, (1,), discrete))
    end = jax.random.randint(end_key, (), 0, 8)
    return Transition(
        row.observation, row.action, row.reward, row.next_observation, end == 0, end == 1
    )


def edge(action):
    """Continuous actions moved to the bounds."""
    if jnp.issubdtype(action.dtype, jnp.integer):
        return action
    return jnp.where(action < 0.0, -1.0, 1.0)


_HARD = {
    "all terminal": lambda d: replace(d, terminal=jnp.ones_like(d.terminal)),
    "no rewards": lambda d: replace(
        d, reward=jnp.zeros_like(d.reward), return_to_go=jnp.zeros_like(d.reward)
    ),
    "one action": lambda d: replace(
        d, action=jnp.zeros_like(d.action), next_action=jnp.zeros_like(d.action)
    ),
    "repeated rows": repeated_rows,
    "actions at the edge": lambda d: replace(
        d, action=edge(d.action), next_action=edge(d.next_action)
    ),
    "large rewards": lambda d: replace(d, reward=1e6 * d.reward, return_to_go=1e6 * d.return_to_go),
}

_HARD_STEPS = {
    "all terminal": lambda d: replace(d, terminal=jnp.ones_like(d.terminal)),
    "no rewards": lambda d: replace(d, reward=jnp.zeros_like(d.reward)),
    "one observation": lambda d: jax.tree.map(jnp.zeros_like, d),
    "actions at the edge": lambda d: replace(d, action=edge(d.action)),
    "large rewards": lambda d: replace(d, reward=1e6 * d.reward),
}
