"""What a policy over arms earns, exact in the mean rewards of a bandit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.method import AbstractMethod, Agent
from headwater.core.records import Pulls
from headwater.environments.bandits.bandit import AbstractBandit

CONTEXTS = 512
"""Rounds over which an evaluation takes its mean, where rounds differ."""


def regret_of_pulls(agent: Agent, data: Pulls) -> dict[str, Float[Array, ""]]:
    """Measures what pulls earned, and their exact regret where it is known: a `Stage.measure`."""
    found = {"reward": jnp.mean(data.reward)}
    return found if data.regret is None else {**found, "regret": jnp.mean(data.regret)}


class ExactReward:
    """The expected reward per round of the arms that look best, for `run(evaluate=…)`.

    One number per seed: the mean over `CONTEXTS` rounds, the same in every evaluation, of exact
    expectations.

    **Arguments:** `bandit`: a stationary one.
    """

    def __init__(self, bandit: AbstractBandit):
        self._bandit = bandit

    def __call__(self, method: AbstractMethod, states: Any, key: PRNGKeyArray) -> np.ndarray:
        return np.asarray(_greedy_rewards(self._bandit, method, states), np.float64)


def expected_reward(
    bandit: AbstractBandit, agent: Agent, *, rounds: int, key: PRNGKeyArray, explore: bool = False
) -> Float[Array, ""]:
    """What `agent` earns per round in expectation, over `rounds` drawn with `key`."""
    state = bandit.reset()

    def one(key):
        show_key, policy_key = jax.random.split(key)
        context, features = bandit.show(state, key=show_key)
        chosen = agent.probabilities(context, features, key=policy_key, explore=explore)
        return chosen @ bandit.mean_reward(state, context, features)

    return jnp.mean(jax.lax.map(one, jax.random.split(key, rounds)))


@eqx.filter_jit
def _greedy_rewards(bandit: AbstractBandit, method: AbstractMethod, states: Any) -> Array:
    known = bandit.problem
    differ = known.context_size or (known.feature_size and known.features is None)
    rounds = CONTEXTS if differ else 1
    key = jax.random.key(0)

    def one(state):
        return expected_reward(bandit, Agent(method, state), rounds=rounds, key=key)[None]

    return jax.vmap(one)(states)
