"""REINFORCE on whole responses."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, positive, share
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.rollouts import rewards_of
from headwater.ops.language.tokens import token_log_probabilities
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class ReinforceState(eqx.Module):
    """The network in training and what is known of the rewards.

    **Arguments:** `mean`, `square`: weighted sums of rewards and of their squares; `weight`: sum of
    the weights.
    """

    tuned: TuningState
    mean: Float[Array, ""]
    square: Float[Array, ""]
    weight: Float[Array, ""]


class Reinforce(
    AbstractMethod[TokenProblem, Completions, ReinforceState],
    AbstractTokenPolicy[ReinforceState],
):
    r"""Policy gradient on whole responses, with rewards standardised by running statistics.

    $L = -A\log\pi(y|x)$ with $A = (R' - m)/(s + 10^{-4})$ and
    $R' = R - \beta(\log\pi(y|x) - \log\pi_{ref}(y|x))$, averaged over responses; $m$ and $s$ are
    the mean and the deviation of $R'$ in batches so far, this one included, recent ones counting
    for more. Knows nothing of which responses belong to the same prompt.

    Responses have to be fresh: nothing makes up for another policy having written them.

    **Arguments:**

    - `kl_weight`: β, the price of KL to the reference, in the reward.
    - `statistics_rate`: weight of a new batch in the statistics.
    - `temperature`: at which the responses are sampled.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Williams (1992); as in Tajwar, Singh, Sharma, Rafailov, Schneider, Xie, Ermon,
    Finn, Kumar (2024), arXiv:2404.14367, with running statistics.

    **Differences from the paper:** AdamW, with the settings of `RLOO`.
    """

    feed: ClassVar[Feed] = Feed.SAMPLED
    info: ClassVar[Info] = Info(
        "williams1992simple",
        summary="policy gradient with rewards standardised by running statistics",
        parents=("REINFORCE",),
    )

    kl_weight: float = non_negative(0.05)
    statistics_rate: float = share(0.05)
    temperature: float = positive(1.0, infinite=True)
    learning_rate: float = non_negative(1e-6)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> ReinforceState:
        tuned = begin_tuning(problem.network, schedule_of(self), reference=True)
        zero = jnp.zeros((), jnp.float32)
        return ReinforceState(tuned, zero, zero, zero)

    def update(self, state: ReinforceState, data: Completions, *, key: PRNGKeyArray):
        reward, tuned = rewards_of(data, "Reinforce"), state.tuned
        own = token_log_probabilities(tuned.network, data, self.temperature)
        reference = token_log_probabilities(tuned.reference, data, self.temperature)
        divergence = jnp.sum(own - reference, axis=-1)
        priced = reward - self.kl_weight * divergence

        keep, rate = 1.0 - self.statistics_rate, self.statistics_rate
        weight = keep * state.weight + rate
        mean = keep * state.mean + rate * jnp.mean(priced)
        square = keep * state.square + rate * jnp.mean(priced**2)
        centre = mean / weight
        deviation = jnp.sqrt(jnp.maximum(square / weight - centre**2, 0.0))
        advantage = (priced - centre) / (deviation + 1e-4)

        def loss(network: AbstractTokenNetwork):
            log_probabilities = token_log_probabilities(network, data, self.temperature)
            value = -jnp.mean(advantage * jnp.sum(log_probabilities, axis=-1))
            return value, {"loss": value}

        tuned, metrics = tune(tuned, schedule_of(self), loss)
        measured = {
            "reward": jnp.mean(reward),
            "baseline": centre,
            "divergence": jnp.mean(divergence),
        }
        return ReinforceState(tuned, mean, square, weight), {**metrics, **measured}

    def network(self, state: ReinforceState) -> AbstractTokenNetwork:
        return state.tuned.network
