"""Episodes of finite processes, of one task and of several, and processes known whole."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.hypotheses import ValueClass
from headwater.core.records import Episodes
from headwater.testing.kinds.kind import ROWS, Kind, kinds_of, repeated_rows

STATES, ACTIONS, STEPS, _TASKS = 5, 4, 3, 2


@kinds_of(FiniteProblem, Episodes)
def _kinds() -> list[Kind]:
    # Methods refuse what they do not take.
    return [
        Kind("finite", replace(finite(), reward=None), _one_task, True, HARD_EPISODES),
        Kind("finite with known rewards", finite(), _one_task, True, HARD_EPISODES, True),
        Kind("finite tasks", finite(_TASKS), _several_tasks, False, HARD_EPISODES, True),
    ]


@kinds_of(ValueClass, Episodes)
def _kinds_of_value_classes() -> list[Kind]:
    # One episode for each step of the horizon, in this order.
    return [
        Kind(
            "value class", _value_class(), lambda key: episodes(key, (STEPS,)), False, HARD_EPISODES
        )
    ]


@kinds_of(FiniteProblem, FiniteProcess)
def _kinds_of_whole_tasks() -> list[Kind]:
    return [Kind("whole tasks", finite(_TASKS), _processes, False, _HARD_PROCESSES)]


def episodes(key, shape: tuple[int, ...]) -> Episodes:
    """Episodes of states, actions, rewards and costs drawn alike."""
    state_key, action_key, reward_key, cost_key = jax.random.split(key, 4)
    reward = jax.random.uniform(reward_key, (*shape, STEPS))
    return Episodes(
        state=jax.random.randint(state_key, (*shape, STEPS + 1), 0, STATES, jnp.int32),
        action=jax.random.randint(action_key, (*shape, STEPS), 0, ACTIONS, jnp.int32),
        reward=reward.at[..., 0].set(1.0),
        cost=jax.random.uniform(cost_key, (*shape, STEPS, 2)),
    )


HARD_EPISODES = {
    "no rewards": lambda d: replace(d, reward=jnp.zeros_like(d.reward)),
    "one action": lambda d: replace(d, action=jnp.zeros_like(d.action)),
    "one state": lambda d: replace(d, state=jnp.zeros_like(d.state)),
}


def _one_task(key) -> Episodes:
    return episodes(key, (ROWS,))


def _several_tasks(key) -> Episodes:
    return episodes(key, (_TASKS, ROWS))


def finite(tasks: int | None = None) -> FiniteProblem:
    """A problem with known rewards: of one task, or of several that share its sizes."""
    lead = () if tasks is None else (tasks,)
    keys = jax.random.split(jax.random.key(5))
    return FiniteProblem(
        STATES,
        ACTIONS,
        STEPS,
        initial=jax.random.dirichlet(keys[0], jnp.ones(STATES), lead),
        reward=jax.random.uniform(keys[1], (*lead, STEPS, STATES, ACTIONS)),
        tasks=tasks,
        budgets=jnp.asarray([0.5, 1.0]),
    )


def _processes(key) -> FiniteProcess:
    """Tasks of which a method sees everything, whose rewards are one or nothing."""
    keys = jax.random.split(key, 3)
    sizes = (_TASKS, STEPS, STATES, ACTIONS)
    return FiniteProcess(
        jax.random.dirichlet(keys[0], jnp.ones(STATES), sizes),
        jax.random.uniform(keys[1], sizes),
        jax.random.dirichlet(keys[2], jnp.ones(STATES), (_TASKS,)),
        noisy=True,
    )


_HARD_PROCESSES = {
    "no rewards": lambda d: replace(d, reward=jnp.zeros_like(d.reward)),
    "one state": lambda d: replace(
        d,
        transition=jnp.zeros_like(d.transition).at[..., 0].set(1.0),
        initial=jnp.zeros_like(d.initial).at[..., 0].set(1.0),
    ),
    "the same task": repeated_rows,
}


def _value_class() -> ValueClass:
    keys = jax.random.split(jax.random.key(6))
    shape = (STEPS, STATES, ACTIONS)
    return ValueClass(
        replace(finite(), reward=None),
        jax.random.uniform(keys[0], (7, *shape)),
        jax.random.uniform(keys[1], (9, *shape)),
    )
