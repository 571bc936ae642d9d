"""Acting in copies of a pure-JAX environment, compiled."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import Observation, UnbatchedAction
from headwater.core.records import AuxiliaryTransitions, Transitions
from headwater.core.spaces import Spaces
from headwater.environments.environment import AbstractAuxiliaryRewards, AbstractEnvironment

Act = Callable[[Observation, PRNGKeyArray], UnbatchedAction]


class Copies(eqx.Module):
    """Where every copy of an environment is."""

    state: Any
    observation: Float[Array, "copy observation"]


def begin(environment: AbstractEnvironment, copies: int, *, key: PRNGKeyArray) -> Copies:
    """`copies` fresh episodes."""
    keys = jax.random.split(key, copies)
    return Copies(*jax.vmap(lambda k: environment.reset(key=k))(keys))


def interact(
    environment: AbstractEnvironment, at: Copies, act: Act, *, steps: int, key: PRNGKeyArray
) -> tuple[Copies, Transitions]:
    """Acts for `steps` steps in every copy, beginning a new episode where one ends.

    **Returns:** where the copies are now, and transitions of shape `[steps, copy]`.
    """

    def one(state, observation, key):
        act_key, step_key, reset_key = jax.random.split(key, 3)
        action = act(observation, act_key)
        reached, step = environment.step(state, action, key=step_key)
        row = Transitions(
            observation, action, step.reward, step.observation, step.terminal, step.truncated
        )
        over = step.terminal | step.truncated
        fresh = environment.reset(key=reset_key)
        following = jax.tree.map(
            lambda new, old: jnp.where(over, new, old), fresh, (reached, step.observation)
        )
        return following, row

    def every(carry, t):
        keys = jax.random.split(jax.random.fold_in(key, t), carry.observation.shape[0])
        following, rows = jax.vmap(one)(carry.state, carry.observation, keys)
        return Copies(*following), rows

    return jax.lax.scan(every, at, jnp.arange(steps))


def random_action(spaces: Spaces, *, key: PRNGKeyArray) -> UnbatchedAction:
    """An action drawn uniformly."""
    if spaces.discrete:
        return jax.random.randint(key, (), 0, spaces.action_size, jnp.int32)
    return jax.random.uniform(key, (spaces.action_size,), minval=-1.0, maxval=1.0)


def episode_returns(
    environment: AbstractEnvironment, act: Act, *, episodes: int, key: PRNGKeyArray
) -> Float[Array, " episode"]:
    """Undiscounted returns of `episodes` episodes, each followed to its end.

    **Arguments:** `environment`: must have a horizon, which bounds the compiled loop.
    """
    horizon = environment.spaces.horizon
    if horizon is None:
        raise ValueError(f"{environment.name} has no horizon: its episodes may never end")
    reset_key, walk_key = jax.random.split(key)
    start = begin(environment, episodes, key=reset_key)

    def one(state, observation, key):
        act_key, step_key = jax.random.split(key)
        reached, step = environment.step(state, act(observation, act_key), key=step_key)
        return (reached, step.observation), step.reward, step.terminal | step.truncated

    def every(carry, t):
        at, total, over = carry
        keys = jax.random.split(jax.random.fold_in(walk_key, t), episodes)
        following, reward, ended = jax.vmap(one)(at.state, at.observation, keys)
        total = total + jnp.where(over, 0.0, reward)
        return (Copies(*following), total, over | ended), None

    nothing = (start, jnp.zeros(episodes), jnp.zeros(episodes, bool))
    (_, total, _), _ = jax.lax.scan(every, nothing, jnp.arange(horizon))
    return total


def auxiliary_episodes(
    environment: AbstractEnvironment, act: Act, *, episodes: int, key: PRNGKeyArray
) -> tuple[AuxiliaryTransitions, Bool[Array, "step episode"]]:
    """`episodes` whole episodes of an environment whose steps bring several rewards.

    **Returns:** transitions `[step, episode]`, for as many steps as the horizon has, and which of
    them are of the episode: what stands behind its end means nothing.

    Raises `SpecificationError` if there is but one reward, or no horizon.
    """
    if not isinstance(environment, AbstractAuxiliaryRewards):
        raise SpecificationError(f"a step of {environment.name} brings one reward and no others")
    horizon = environment.spaces.horizon
    if horizon is None:
        raise SpecificationError(f"{environment.name} has no horizon: its episodes may never end")
    reset_key, walk_key = jax.random.split(key)
    start = begin(environment, episodes, key=reset_key)

    def one(state, observation, key):
        act_key, step_key = jax.random.split(key)
        action = act(observation, act_key)
        reached, step = environment.step(state, action, key=step_key)
        row = AuxiliaryTransitions(
            observation,
            action,
            step.reward,
            step.observation,
            step.terminal,
            step.truncated,
            environment.auxiliary(reached),
        )
        return (reached, step.observation), row

    def every(carry, t):
        at, over = carry
        keys = jax.random.split(jax.random.fold_in(walk_key, t), episodes)
        following, rows = jax.vmap(one)(at.state, at.observation, keys)
        return (Copies(*following), over | rows.terminal | rows.truncated), (rows, ~over)

    nothing = (start, jnp.zeros(episodes, bool))
    return jax.lax.scan(every, nothing, jnp.arange(horizon))[1]
