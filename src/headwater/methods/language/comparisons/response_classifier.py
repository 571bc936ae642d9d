"""A classifier of responses, as a reward."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, non_negative, positive
from headwater.core.method import AbstractCompletionScorer, AbstractMethod, Info
from headwater.core.records import Completions, LabelledCompletions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.reward_head import WithReward, with_reward
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class ResponseClassifier(
    AbstractMethod[TokenProblem, LabelledCompletions, TuningState],
    AbstractCompletionScorer[TuningState],
):
    r"""Learns whether a text is of the desirable kind, to reward texts that nobody has labelled.

    $L = -\log\sigma(\pm z(y))$ with plus for desirable texts, where the log-odds $z$ are linear in
    the network's hidden state after the last token. The reward is $2\sigma(z) - 1$: positive where
    the desirable kind is the more probable one.

    Such a reward knows nothing of what a text should be about: alone it is best served by texts
    that have nothing to do with their prompt. Add one that does (`reward=[RUN, yours]`).

    **Arguments:**

    - `response_alone`: the text is the response without its prompt. So texts without prompts can
      be learned from, simplified and original sentences for example, and responses to any prompt
      judged.
    - `bounded`: the reward is as above, else it is $z$.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Rahman, Irbaz, North, Williams, Zampieri and Lybarger (2024), arXiv:2401.15043.

    **Differences from the paper:** the classifier begins as the policy's own network, not as an
    encoder of its own.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "rahman2024health",
        summary="a reward that says of which of two labelled kinds a text is",
        parents=("RewardModel",),
    )

    response_alone: bool = flag(True)
    bounded: bool = flag(True)
    learning_rate: float = non_negative(1e-4)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        problem.require_hidden("ResponseClassifier")
        return begin_tuning(WithReward(problem.network), schedule_of(self), reference=False)

    def update(self, state: TuningState, data: LabelledCompletions, *, key: PRNGKeyArray):
        sign = jnp.where(jnp.asarray(data.desirable), 1.0, -1.0)

        def loss(network: AbstractTokenNetwork):
            margin = sign * self._log_odds(network, data.completions)
            missed = -jnp.mean(jax.nn.log_sigmoid(margin))
            return missed, {
                "loss": missed,
                "accuracy": jnp.mean((margin > 0).astype(jnp.float32)),
            }

        return tune(state, schedule_of(self), loss)

    def rate(self, state: TuningState, data: Completions) -> Float[Array, "*batch"]:
        log_odds = self._log_odds(state.network, data)
        return jnp.tanh(0.5 * log_odds) if self.bounded else log_odds

    def rating_network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network

    def _log_odds(self, network: AbstractTokenNetwork, data: Completions):
        read = _alone(data) if self.response_alone else data
        return with_reward(network).rate(read)


def _alone(data: Completions) -> Completions:
    """The responses without their prompts, from position 0."""
    tokens, response = jnp.asarray(data.tokens), jnp.asarray(data.response)
    width = tokens.shape[-1]
    start = jnp.argmax(response, axis=-1)[..., None]
    place = start + jnp.arange(width).reshape(*(1,) * (tokens.ndim - 1), width)
    index = jnp.minimum(place, width - 1)
    moved, chosen = (jnp.take_along_axis(x, index, axis=-1) for x in (tokens, response))
    return Completions(moved, chosen & (place < width))
