"""What a policy over arms earns, exact in the mean rewards of a bandit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.finite import draw_index
from headwater.core.method import AbstractLikelihood, AbstractMethod, AbstractPolicy, Agent
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.datasets.dataset import Dataset
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


class ArmsAsActions(AbstractPolicy[Any], AbstractLikelihood[Any]):
    """A policy over arms as one over actions, for estimators that judge policies by logs.

    **Arguments:** `method`: the policy over arms; `problem`: what it was told; `features`: of the
    arms, if they are the same in every round; otherwise observations go on with them.
    """

    method: AbstractMethod
    problem: Arms
    features: Float[Array, "arm feature"] | None

    def act(self, state: Any, observation: Array, *, key: PRNGKeyArray, explore: bool):
        chances = self._probabilities(state, observation, key=key, explore=explore)
        drawn = draw_index(chances, jax.random.uniform(key)) if explore else jnp.argmax(chances)
        return drawn.astype(jnp.int32), ()

    def log_probability(self, state: Any, observation: Array, action: Any) -> Float[Array, ""]:
        chances = self._probabilities(state, observation, key=jax.random.key(0), explore=True)
        return jnp.log(chances[action])

    def _probabilities(self, state, observation, *, key, explore: bool):
        size, features = self.problem.context_size, self.features
        if features is None:
            shape = (self.problem.arms, self.problem.feature_size)
            features = observation[size:].reshape(shape)
        agent = Agent(self.method, state)
        return agent.probabilities(observation[:size], features, key=key, explore=explore)


def as_transitions(
    method: AbstractMethod, data: Pulls, problem: Arms
) -> tuple[ArmsAsActions, Dataset]:
    """Logged rounds as episodes of one step, and the policy that chooses among their actions.

    For `evaluate_off_policy`. **Arguments:** `data`: `[row]`, checked; `problem`: what the method
    was told.
    """
    same = data.features.shape[0] == 1 or not problem.feature_size
    rows = len(data.arm)
    shown = [np.asarray(data.context)]
    if not same:
        shown.append(np.asarray(data.features).reshape(rows, -1))
    observations = np.concatenate(shown, axis=1)
    if not observations.shape[1]:
        observations = np.zeros((rows, 1), np.float32)
    log = Dataset.from_arrays(
        observations,
        np.asarray(data.arm),
        np.asarray(data.reward),
        np.ones(rows, bool),
        discrete=True,
        action_count=problem.arms,
        propensities=np.minimum(np.asarray(data.propensity), 1.0),
    )
    return ArmsAsActions(method, problem, jnp.asarray(data.features[0]) if same else None), log


@eqx.filter_jit
def _greedy_rewards(bandit: AbstractBandit, method: AbstractMethod, states: Any) -> Array:
    known = bandit.problem
    differ = known.context_size or (known.feature_size and known.features is None)
    rounds = CONTEXTS if differ else 1
    key = jax.random.key(0)

    def one(state):
        return expected_reward(bandit, Agent(method, state), rounds=rounds, key=key)[None]

    return jax.vmap(one)(states)
