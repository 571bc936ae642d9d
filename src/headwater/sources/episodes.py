"""Whole episodes of finite processes, fresh or logged."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import DataError, SpecificationError
from headwater.core.feed import Feed
from headwater.core.finite import (
    AbstractFiniteSimulator,
    AbstractPartialView,
    FiniteProcess,
    draw_index,
)
from headwater.core.method import Agent
from headwater.core.records import Episodes
from headwater.core.source import AbstractSource
from headwater.sources.replay import NoState


class Played(eqx.Module):
    """Environment steps taken so far, and whether all that was shown is what was declared.

    **Arguments:** `wrong_state`, `wrong_reward`: the first of each that was not, and if there was
    none, a right one (both `None` for a `FiniteProcess`, which was checked when it was made).
    """

    steps: Int[Array, ""]
    wrong_state: Int[Array, ""] | None = None
    wrong_reward: Float[Array, ""] | None = None


class FreshEpisodes(AbstractSource[Played, Episodes]):
    """One episode with each of the policies that the method explores with; used once.

    **Arguments:** `simulator`: what to act in; for several tasks, one whose arrays have a leading
    task axis; `tasks`: how many, if there are several; the method's policies then have the tasks
    along their first axis.
    """

    simulator: AbstractFiniteSimulator
    tasks: int | None = eqx.field(static=True, default=None)

    def init(self, *, key: PRNGKeyArray) -> Played:
        steps = jnp.zeros((), jnp.int32)
        if isinstance(self.simulator, FiniteProcess):
            return Played(steps)
        _check_shown(self.simulator)
        low = jnp.asarray(bounds_of(self.simulator)[0], jnp.float32)
        return Played(steps, jnp.zeros((), jnp.int32), low)

    def draw(self, state: Played, agent: Agent, *, key: PRNGKeyArray):
        if agent.method.feed is Feed.STORED:
            name = type(agent.method).__name__
            raise SpecificationError(
                f"{name} learns from a log, and would learn each time from its own last episodes "
                "alone: make the log first, with hw.log_episodes(process, policy, episodes=…, "
                "key=…), and give it as data"
            )
        policies = agent.policy(explore=True)
        if self.tasks is None:
            data = play_each(self.simulator, policies, key=key)
        else:
            keys = jax.random.split(key, self.tasks)
            each = eqx.filter_vmap(lambda s, p, k: play_each(s, p, key=k))
            data = each(self.simulator, policies, keys)
        steps = state.steps + data.action.size
        if state.wrong_state is None or state.wrong_reward is None:
            return Played(steps), data
        low, high = bounds_of(self.simulator)
        before = state.wrong_reward
        outside = (data.reward < low) | (data.reward > high) | jnp.isnan(data.reward)
        missing = (data.state < 0) | (data.state >= self.simulator.states)
        # What is not there or out of range must not be learned from as if it were: rewards that are
        # no numbers withhold what would be certified, also where nobody asks `check`.
        bad = outside | missing[..., :-1] | missing[..., 1:]
        shown = dataclasses.replace(data, reward=jnp.where(bad, jnp.nan, data.reward))
        return Played(
            steps,
            _first(missing, data.state, state.wrong_state, state.wrong_state != 0),
            _first(outside, data.reward, before, ~((before >= low) & (before <= high))),
        ), shown

    def environment_steps(self, state: Played) -> Int[Array, ""]:
        return state.steps

    def check(self, state: Played) -> None:
        if state.wrong_state is None or state.wrong_reward is None:
            return
        name, count = type(self.simulator).__name__, self.simulator.states
        states, rewards = (np.ravel(x) for x in (state.wrong_state, state.wrong_reward))
        # Zero is a state, so that a wrong one is never zero.
        if np.any(states != 0):
            raise DataError(
                f"{name} led to state {states[states != 0][0]}, which is not one of 0 … "
                f"{count - 1}: count states from zero, or say that there are more"
            )
        low, high = bounds_of(self.simulator)
        wrong = ~((rewards >= low) & (rewards <= high))
        if np.any(wrong):
            raise DataError(
                f"{name} gave the reward {rewards[wrong][0]:g}, outside of its declared range "
                f"{float(low):g} to {float(high):g}: declare it, as `reward_range = (lowest, "
                "highest)` of the simulator"
            )


class WholeLog(AbstractSource[NoState, Episodes]):
    """All logged episodes in every draw: the source of methods that learn in one step.

    **Arguments:** `data`: any number of episodes.
    """

    data: Episodes

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        return state, self.data


def bounds_of(simulator: AbstractFiniteSimulator) -> tuple[Any, Any]:
    """The lowest and the highest reward that a simulator declares."""
    low, high = (0.0, 1.0) if simulator.reward_range is None else simulator.reward_range
    return low, high


def _first(wrong: Array, values: Array, before: Array, found: Array) -> Array:
    """The first of the values that is wrong, unless one was `found` before."""
    flat, values = jnp.ravel(wrong), jnp.ravel(values)
    new = jnp.where(jnp.any(flat), values[jnp.argmax(flat)], before)
    return jnp.where(found, before, new).astype(before.dtype)


def _check_shown(simulator: AbstractFiniteSimulator) -> None:
    """Raises `SpecificationError` if a simulator's states or rewards are of another kind."""
    name = type(simulator).__name__
    number = jax.ShapeDtypeStruct((), jnp.int32)
    key = jax.random.key(0)
    if isinstance(simulator, AbstractPartialView):
        first = jax.eval_shape(lambda: simulator.show(simulator.reset(key=key)))
        step = None
    else:
        first = jax.eval_shape(lambda: simulator.reset(key=key))
        step = jax.eval_shape(
            lambda time, state, action: simulator.step(time, state, action, key=key),
            *(number, number, number),
        )
    shown = {"reset": first, **({} if step is None else {"step": step.state})}
    for where, state in shown.items():
        shape, dtype = getattr(state, "shape", None), getattr(state, "dtype", None)
        if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.integer):
            found = type(state).__name__ if shape is None else f"{dtype} of shape {shape}"
            raise SpecificationError(
                f"{name}.{where} gives a state that is a {found}: it must be one whole number, "
                "such as jnp.int32(0)"
            )


def play_each(
    simulator: AbstractFiniteSimulator,
    policies: Float[Array, "*episodes horizon state action"],
    *,
    key: PRNGKeyArray,
) -> Episodes:
    """One episode with each policy; the result has the leading axes of `policies`."""
    *lead, horizon, states, actions = policies.shape
    if not lead:
        return play(simulator, policies, key=key)
    flat = policies.reshape(-1, horizon, states, actions)
    keys = jax.random.split(key, flat.shape[0])
    data = jax.vmap(lambda policy, key: play(simulator, policy, key=key))(flat, keys)
    return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), data)


def play(
    simulator: AbstractFiniteSimulator,
    policy: Float[Array, "horizon state action"],
    *,
    key: PRNGKeyArray,
) -> Episodes:
    """One episode."""
    start_key, action_key, key = jax.random.split(key, 3)
    steps = policy.shape[0]

    def show(state):
        return simulator.show(state) if isinstance(simulator, AbstractPartialView) else state

    def one(state, step):
        time, uniform, key = step
        shown = show(state)
        action = draw_index(policy[time, shown], uniform)
        seen = simulator.step(time, state, action, key=key)
        return seen.state, (shown, action, seen.reward, seen.cost)

    first = simulator.reset(key=start_key)
    times = jnp.arange(steps, dtype=jnp.int32)
    uniform = jax.random.uniform(action_key, (steps,))
    last, (states, actions, rewards, costs) = jax.lax.scan(
        one, first, (times, uniform, jax.random.split(key, steps))
    )
    return Episodes(jnp.append(states, show(last)), actions, rewards, costs)


def log_episodes(
    simulator: AbstractFiniteSimulator,
    policy: Float[Array, "horizon state action"],
    *,
    episodes: int,
    key: PRNGKeyArray,
) -> Episodes:
    """A log of `episodes` episodes of one policy."""
    keys = jax.random.split(key, episodes)
    return jax.vmap(lambda key: play(simulator, policy, key=key))(keys)
