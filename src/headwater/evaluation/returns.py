"""Returns of policies, measured by acting: compiled where the environment is pure JAX."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod, AbstractPolicy
from headwater.environments.adapters.host_interaction import host_episode_returns
from headwater.environments.environment import AbstractEnvironment, AbstractHostTask
from headwater.environments.interaction import episode_returns


def evaluate_returns(
    method: AbstractMethod | AbstractPolicy,
    states: Any,
    task: AbstractEnvironment | AbstractHostTask,
    *,
    episodes: int,
    key: PRNGKeyArray,
    explore: bool = False,
) -> np.ndarray:
    """Undiscounted returns of whole episodes, `[seed, episode]` in float64.

    The compiled program is kept for each method, environment and number of episodes, so that
    calling this again during training costs no compilation. With the same `key` every method
    meets the same initial states.

    **Arguments:** `method`: must be able to act; `states`: its states, every leaf with a leading
    seed axis; `task`: needs a time limit; `episodes`: per seed; `key`: of the environments;
    `explore`: act as in data collection instead of greedily.

    Raises `SpecificationError` if the method cannot act, the task has no time limit, or there is
    nothing to evaluate.
    """
    name = type(method).__name__
    if not isinstance(method, AbstractPolicy):
        raise SpecificationError(
            f"{name} is not a policy, so it has no returns: evaluate one that is"
        )
    if episodes < 1:
        raise SpecificationError(f"episodes = {episodes}: at least one is needed for a return")
    if isinstance(task, AbstractEnvironment):
        if task.spaces.horizon is None:
            raise SpecificationError(
                f"{task.name} has no time limit, so its episodes may never end: give it a horizon"
            )
        returns = _pure_returns(method, states, task, episodes, key, explore)
        return np.asarray(returns, np.float64)
    seeds = jax.tree.leaves(states)[0].shape[0]
    start_key, act_key = jax.random.split(key)

    def act(observations: np.ndarray, t: int) -> np.ndarray:
        # As an array: a Python number would be compiled in, once for every step.
        step = np.asarray(t, np.int32)
        return np.asarray(_host_actions(method, states, observations, act_key, step, explore))

    start = int(jax.random.randint(start_key, (), 0, 2**31 - 1))
    returns = host_episode_returns(task, act, seeds=seeds, episodes=episodes, seed=start)
    return np.asarray(returns, np.float64)


@eqx.filter_jit
def _pure_returns(method, states, environment, episodes, key, explore):
    seeds = jax.tree.leaves(states)[0].shape[0]

    def one_seed(state, key):
        def act(observation, key):
            return method.act(state, observation, key=key, explore=explore)[0]

        return episode_returns(environment, act, episodes=episodes, key=key)

    # Folded in, so that a seed meets the same episodes however many others there are.
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(seeds))
    return jax.vmap(one_seed)(states, keys)


@eqx.filter_jit
def _host_actions(method, states, observations, key, t, explore):
    seeds, copies = observations.shape[:2]
    keys = jax.random.split(jax.random.fold_in(key, t), (seeds, copies))

    def one(state, observation, key):
        return method.act(state, observation, key=key, explore=explore)[0]

    return jax.vmap(jax.vmap(one, in_axes=(None, 0, 0)))(states, observations, keys)
