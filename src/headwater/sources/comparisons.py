"""Pairs of episodes and which of the two a judge prefers, fresh or logged."""

import abc
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.finite import AbstractFiniteSimulator
from headwater.core.method import Agent
from headwater.core.records import EpisodeComparisons, Episodes
from headwater.core.source import AbstractSource
from headwater.ops.linear.preference import trajectory_features
from headwater.sources.episodes import Played, play_each
from headwater.sources.replay import NoState


class AbstractJudge(eqx.Module):
    """Says which of two episodes is better."""

    @abc.abstractmethod
    def prefers_first(
        self, first: Episodes, second: Episodes, *, key: PRNGKeyArray
    ) -> Bool[Array, "*batch"]:
        """The answer for every pair; `key`: what the judge's moods are drawn from."""


class BradleyTerryJudge(AbstractJudge):
    """A simulated judge: prefers the first with probability `sigmoid` of how much more it earns.

    **Arguments:** `reward`: what a step is worth to this judge, whatever the process pays; the
    larger the differences, the surer the answers.
    """

    reward: Float[Array, "horizon state action"]

    def prefers_first(self, first: Episodes, second: Episodes, *, key: PRNGKeyArray):
        worth = self.reward[..., None]
        better = trajectory_features(first, worth) - trajectory_features(second, worth)
        return jax.random.bernoulli(key, jax.nn.sigmoid(better[..., 0]))


class FreshComparisons(AbstractSource[Played, EpisodeComparisons]):
    """One episode with each policy of the pairs that the method explores with, and the answers.

    The method's policies are `[*pairs, 2, horizon, state, action]`. Every pair comes with its
    answer; a method that would not have asked does not look at it. Rewards are zero, since only the
    judge knows them.

    **Arguments:** `simulator`: what to act in; `judge`.
    """

    simulator: AbstractFiniteSimulator
    judge: AbstractJudge

    def init(self, *, key: PRNGKeyArray) -> Played:
        return Played(jnp.zeros((), jnp.int32))

    def draw(self, state: Played, agent: Agent, *, key: PRNGKeyArray):
        policies = agent.policy(explore=True)
        data = compare(self.simulator, self.judge, policies, key=key)
        return Played(state.steps + 2 * data.first.action.size), data

    def environment_steps(self, state: Played):
        return state.steps


class LoggedComparisons(AbstractSource[NoState, EpisodeComparisons]):
    """All logged comparisons in every draw: the source of methods that learn in one step.

    **Arguments:** `data`: any number of comparisons.
    """

    data: EpisodeComparisons

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        return state, self.data


def compare(
    simulator: AbstractFiniteSimulator,
    judge: AbstractJudge,
    policies: Float[Array, "*pairs horizon state action"],
    *,
    key: PRNGKeyArray,
) -> EpisodeComparisons:
    """One episode with each policy, and the judge's answer for each pair.

    **Arguments:** `policies`: `[*pairs, 2, horizon, state, action]`.

    Raises `SpecificationError` if the policies do not come in pairs.
    """
    if policies.ndim < 4 or policies.shape[-4] != 2:
        raise SpecificationError(
            f"policies of shape {policies.shape} cannot be compared: they must be [*pairs, 2, "
            "horizon, state, action]"
        )
    play_key, judge_key = jax.random.split(key)
    data = play_each(simulator, policies, key=play_key)
    # Whatever the process pays is not for the learner's eyes.
    data = replace(data, reward=jnp.zeros_like(data.reward), cost=None)
    axis = policies.ndim - 4
    first, second = (jax.tree.map(lambda x, i=i: x.take(i, axis), data) for i in (0, 1))
    return EpisodeComparisons(first, second, judge.prefers_first(first, second, key=judge_key))


def log_comparisons(
    simulator: AbstractFiniteSimulator,
    judge: AbstractJudge,
    first: Float[Array, "horizon state action"],
    second: Float[Array, "horizon state action"],
    *,
    comparisons: int,
    key: PRNGKeyArray,
) -> EpisodeComparisons:
    """A log of `comparisons` answers about episodes of policy `first` and of policy `second`."""
    pair = jnp.stack([first, second])
    policies = jnp.broadcast_to(pair, (comparisons, *pair.shape))
    return compare(simulator, judge, policies, key=key)
