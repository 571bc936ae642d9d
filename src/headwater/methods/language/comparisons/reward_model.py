"""Reward models learned from comparisons."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, non_negative, positive
from headwater.core.method import AbstractCompletionScorer, AbstractMethod, Info
from headwater.core.records import CompletionComparisons, Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.reward_head import WithReward, with_reward
from headwater.ops.language.log_ratios import Utility, utility
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class RewardModel(
    AbstractMethod[TokenProblem, CompletionComparisons, TuningState],
    AbstractCompletionScorer[TuningState],
):
    r"""Learns a reward of responses under which the chosen ones come out higher.

    $L = -U(r(y^+) - r(y^-))$, where r is linear in the network's hidden state after the last token
    of the response. With $U = \log\sigma$ this is the likelihood of Bradley and Terry.

    Where rankings are fitted perfectly and rewards are bounded, the best rewards of n ranked
    responses depend on U and not on the prompt: all prompts get the same histogram of rewards. A
    utility that depends on the kind of prompt prevents that.

    **Arguments:**

    - `utility`: U (`Utility`): `"logistic"`; `"linear"` sends rewards to both ends; `"log"` and
      `"inverse"` spread them.
    - `open_utility`: U where the data say that a prompt is open-ended, that is has many good
      answers.
    - `bounded`: rewards lie in (0, 1), through a sigmoid.
    - `centring_weight`: of the squared sum of the two rewards, which keeps their mean near zero
      (TRL's `center_rewards_coefficient`).
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Song, Cai, Lee, Su (2023), arXiv:2305.17608, for the utilities; the logistic one:
    Ouyang et al. (2022), arXiv:2203.02155.

    **Differences from the paper:** settings are TRL's, and so is the unbounded logistic default.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "song2023reward",
        summary="a reward under which chosen responses come out higher, by utility of prompt",
    )

    utility: Utility = choice("logistic")
    open_utility: Utility = choice("logistic")
    bounded: bool = flag(False)
    centring_weight: float = non_negative(0.0)
    learning_rate: float = non_negative(1e-4)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        problem.require_hidden("RewardModel")
        return begin_tuning(WithReward(problem.network), schedule_of(self), reference=False)

    def update(self, state: TuningState, data: CompletionComparisons, *, key: PRNGKeyArray):
        def loss(network: AbstractTokenNetwork):
            chosen, rejected = self._rate(network, data.chosen), self._rate(network, data.rejected)
            margin = chosen - rejected
            worth = utility(margin, self.utility)
            if data.open_ended is not None:
                worth = jnp.where(data.open_ended, utility(margin, self.open_utility), worth)
            missed = -jnp.mean(worth)
            centred = jnp.mean((chosen + rejected) ** 2)
            return missed + self.centring_weight * centred, {
                "loss": missed,
                "margin": jnp.mean(margin),
                "accuracy": jnp.mean((margin > 0).astype(jnp.float32)),
            }

        return tune(state, schedule_of(self), loss)

    def rate(self, state: TuningState, data: Completions) -> Float[Array, "*batch"]:
        return self._rate(state.network, data)

    def rating_network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network

    def _rate(self, network: AbstractTokenNetwork, data: Completions):
        reward = with_reward(network).rate(data)
        return jax.nn.sigmoid(reward) if self.bounded else reward
