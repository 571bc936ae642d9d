"""Training a policy with a reward, and looking at what it does."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod, Agent
from headwater.core.records import Transitions
from headwater.core.source import AbstractSource
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.interaction import Act, Copies, begin
from headwater.environments.reward_programs.machine import RewardProgram
from headwater.environments.reward_programs.rewarded import RewardedByProgram, StepFeatures
from headwater.runs.learn import learn


class Practice(eqx.Module):
    """A policy that was trained, and episodes of it.

    **Arguments:** `policy`: what the learner keeps of it; `steps`: `[step, episode]`, with the
    reward of the task itself; `features`: of every step; `inside`: false for steps after the end
    of an episode, which do not count.
    """

    policy: Any
    steps: Transitions
    features: Float[Array, "step episode feature"]
    inside: Bool[Array, "step episode"]


Learner = Callable[[RewardProgram, PRNGKeyArray], Practice]
"""Trains a policy with a reward, as a pure function that can be mapped."""


def practise(
    policy: Any,
    task: AbstractEnvironment,
    features: StepFeatures,
    act: Act,
    *,
    episodes: int,
    key: PRNGKeyArray,
) -> Practice:
    """Lets a policy act for whole episodes. **Arguments:** `act`: how it does.

    Raises `SpecificationError` for a task without a time limit.
    """
    horizon = task.spaces.horizon
    if horizon is None:
        raise SpecificationError(
            f"{task.name} has no time limit, so its episodes may never end: give it a horizon"
        )
    begin_key, walk_key = jax.random.split(key)

    def one(state, observation, key):
        act_key, step_key = jax.random.split(key)
        action = act(observation, act_key)
        reached, step = task.step(state, action, key=step_key)
        ends = (step.terminal, step.truncated)
        row = Transitions(observation, action, step.reward, step.observation, *ends)
        return (reached, step.observation), row

    # What comes after the end of an episode does not count, so that none is begun anew.
    def every(at, t):
        keys = jax.random.split(jax.random.fold_in(walk_key, t), episodes)
        following, rows = jax.vmap(one)(at.state, at.observation, keys)
        return Copies(*following), rows

    at = begin(task, episodes, key=begin_key)
    _, steps = jax.lax.scan(every, at, jnp.arange(horizon))
    over = steps.terminal | steps.truncated
    ended = jnp.cumsum(over, axis=0) - over > 0
    compute = jax.vmap(jax.vmap(features.compute))
    seen = compute(steps.observation, steps.action, steps.next_observation)
    return Practice(policy, steps, jnp.asarray(seen, jnp.float32), ~ended)


class MethodLearner(eqx.Module):
    """A `Learner` that is a method of the catalogue, fed by a source.

    **Arguments:** `method`: that acts; `task`; `features`; `source`: of the task with the reward,
    such as `lambda task: Collect(task, …)`; `updates`; `episodes`: to look at.
    """

    method: AbstractMethod
    task: AbstractEnvironment
    features: StepFeatures
    source: Callable[[AbstractEnvironment], AbstractSource] = eqx.field(static=True)
    updates: int = eqx.field(static=True)
    episodes: int = eqx.field(static=True, default=8)

    def __call__(self, program: RewardProgram, key: PRNGKeyArray) -> Practice:
        learn_key, look_key = jax.random.split(key)
        rewarded = RewardedByProgram(self.task, program, self.features)
        source, spaces = self.source(rewarded), self.task.spaces
        state = learn(self.method, spaces, source, self.updates, key=learn_key).state
        agent = Agent(self.method, state)

        def act(observation, key):
            return agent.act(observation, key=key, explore=False)[0]

        return practise(state, self.task, self.features, act, episodes=self.episodes, key=look_key)
