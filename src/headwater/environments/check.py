"""What every environment has to keep to, as one check."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import SpecificationError
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.environments.adapters.host_interaction import spread_seeds
from headwater.environments.environment import (
    AbstractEnvironment,
    AbstractHostEnvironments,
    AbstractHostTask,
    HostStep,
)
from headwater.environments.interaction import begin, interact, random_action

_COPIES = 3
_NO_HORIZON = 200
"""Steps to check where there is no time limit."""


def check_environment(
    task: AbstractEnvironment | AbstractHostTask, *, steps: int | None = None, seed: int = 0
) -> None:
    """Acts at random in `task` and raises `SpecificationError` where it breaks its promises.

    Observations must have the promised size, be finite and within their bounds; rewards must be
    finite; the same seeds and actions must give the same steps; episodes must not outlast the time
    limit or stop before it without being terminal; a step must not be both terminal and truncated;
    and within an episode the next observation must be the one acted on next. Of a host task, also
    that what was saved can be continued, exactly where it says so.

    **Arguments:** `steps`: in each of three copies, slightly more than the time limit unless told.
    """
    horizon = task.spaces.horizon
    steps = steps or (_NO_HORIZON if horizon is None else horizon + 5)
    if isinstance(task, AbstractEnvironment):
        _check_pure(task, steps, seed)
    else:
        _check_host(task, steps, seed)


def _check_pure(task: AbstractEnvironment, steps: int, seed: int) -> None:
    @eqx.filter_jit
    def walk(key):
        start_key, walk_key = jax.random.split(key)
        start = begin(task, _COPIES, key=start_key)
        act = lambda observation, k: random_action(task.spaces, key=k)
        return start.observation, interact(task, start, act, steps=steps, key=walk_key)[1]

    def rows(number: int) -> tuple[np.ndarray, Transitions]:
        start, seen = walk(jax.random.key(number))
        return np.asarray(start), jax.tree.map(np.asarray, seen)

    start, seen = rows(seed)
    again_start, again = rows(seed)
    _require(task.name, np.array_equal(start, again_start), "a seed does not fix the start")
    _require(
        task.name,
        all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(seen), jax.tree.leaves(again))),
        "the same seed and actions do not give the same steps",
    )
    state, observation = task.reset(key=jax.random.key(seed))
    action = (
        jnp.zeros((), jnp.int32) if task.spaces.discrete else jnp.zeros(task.spaces.action_size)
    )
    reached, _ = task.step(state, action, key=jax.random.key(seed))
    same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, state, reached)
    _require(task.name, all(jax.tree.leaves(same)), "a step changes shape or type of the state")
    _require(task.name, observation.dtype == jnp.float32, "observations are not float32")
    _check_rows(
        task.name,
        task.spaces,
        np.asarray(seen.observation),
        np.asarray(seen.next_observation),
        np.asarray(seen.reward),
        np.asarray(seen.terminal),
        np.asarray(seen.truncated),
        np.ones(seen.reward.shape, bool),
    )


def _check_host(task: AbstractHostTask, steps: int, seed: int) -> None:
    actions = _random_actions(task.spaces, steps, seed)
    environments, again = task.open(_COPIES), task.open(_COPIES)
    try:
        seeds = spread_seeds(seed, _COPIES)
        start, first = _walk(environments, seeds, actions)
        again_start, second = _walk(again, seeds, actions)
        _require(task.name, np.array_equal(start, again_start), "a seed does not fix the start")
        for name in HostStep._fields:
            _require(
                task.name,
                np.array_equal(getattr(first, name), getattr(second, name)),
                f"the same seeds and actions do not give the same {name}",
            )
        before = np.concatenate([start[None], first.observation[:-1]])
        _check_rows(
            task.name,
            task.spaces,
            before,
            first.next_observation,
            first.reward,
            first.terminal,
            first.truncated,
            first.valid,
        )
        _check_continuation(task, environments, again, actions[: min(steps, 20)])
    finally:
        environments.close()
        again.close()


def _check_continuation(
    task: AbstractHostTask,
    environments: AbstractHostEnvironments,
    again: AbstractHostEnvironments,
    actions: np.ndarray,
) -> None:
    saved = environments.save()
    for name, column in saved.items():
        _require(task.name, column.dtype != object, f"saves '{name}' as Python objects")
    observation = again.load(saved)
    _require(
        task.name,
        observation.shape == (_COPIES, task.spaces.observation_size),
        "does not return the observations to act on after loading",
    )
    for action in actions:
        later = again.step(action)
        if environments.exact:
            here = environments.step(action)
            _require(
                task.name,
                all(np.array_equal(a, b) for a, b in zip(here, later)),
                "promises exact continuation, but goes on differently after loading",
            )


def _check_rows(
    name: str,
    spaces: Spaces,
    observation: np.ndarray,
    next_observation: np.ndarray,
    reward: np.ndarray,
    terminal: np.ndarray,
    truncated: np.ndarray,
    valid: np.ndarray,
) -> None:
    """Checks rows `[step, copy, …]`."""
    low, high = (
        np.asarray(bound, np.float32) for bound in (spaces.observation.low, spaces.observation.high)
    )
    for what, seen in (("observation", observation), ("next observation", next_observation)):
        _require(
            name,
            seen.shape[2:] == (spaces.observation_size,),
            f"shows {what}s of shape {seen.shape[2:]}, not ({spaces.observation_size},)",
        )
        _require(name, bool(np.isfinite(seen).all()), f"shows {what}s that are not finite")
        slack = 1e-4 * (1.0 + np.abs(seen))
        within = (seen >= low[None, None] - slack) & (seen <= high[None, None] + slack)
        _require(name, bool(within.all()), f"shows {what}s outside of their bounds")
    _require(name, bool(np.isfinite(reward).all()), "gives rewards that are not finite")
    _require(name, not (terminal & truncated).any(), "ends steps as both terminal and truncated")
    _check_episodes(
        name, spaces, observation, next_observation, terminal | truncated, truncated, valid
    )


def _check_episodes(
    name: str,
    spaces: Spaces,
    observation: np.ndarray,
    next_observation: np.ndarray,
    over: np.ndarray,
    truncated: np.ndarray,
    valid: np.ndarray,
) -> None:
    for copy in range(valid.shape[1]):
        rows = np.flatnonzero(valid[:, copy])
        length = 0
        for this, following in zip(rows, [*rows[1:], None]):
            length += 1
            ended = bool(over[this, copy])
            if spaces.horizon is not None:
                _require(name, length <= spaces.horizon, f"outlasts its {spaces.horizon} steps")
                early = bool(truncated[this, copy]) and length < spaces.horizon
                _require(name, not early, f"is truncated after {length} steps, before its limit")
                late = length == spaces.horizon and not ended
                _require(name, not late, f"does not end after {spaces.horizon} steps")
            if following is not None:
                joined = np.array_equal(observation[following, copy], next_observation[this, copy])
                _require(
                    name, ended or joined, "acts next on something else than the state reached"
                )
            length = 0 if ended else length


def _walk(
    environments: AbstractHostEnvironments, seeds: np.ndarray, actions: np.ndarray
) -> tuple[np.ndarray, HostStep]:
    start = environments.reset(seeds)
    steps = [environments.step(action) for action in actions]
    return start, HostStep(*(np.stack(column) for column in zip(*steps)))


def _random_actions(spaces: Spaces, steps: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if spaces.discrete:
        return random.integers(0, spaces.action_size, (steps, _COPIES), np.int32)
    return random.uniform(-1.0, 1.0, (steps, _COPIES, spaces.action_size)).astype(np.float32)


def _require(name: str, kept: bool, otherwise: str) -> None:
    if not kept:
        raise SpecificationError(f"{name}: {otherwise}")
