"""Supervised fine-tuning."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.tokens import averaged, token_log_probabilities
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class SFT(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Imitates the responses that it is shown: maximum likelihood.

    $L = -\sum_i\sum_t m_{it}\log\pi(y_{it}|x_i, y_{i,<t}) / \sum_i\sum_t m_{it}$, where the mask
    $m$ is 1 on tokens of responses, the ending one included. Long responses count for more, as they
    have more tokens. Rewards are not looked at.

    **Arguments:**

    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Ouyang et al. (2022), arXiv:2203.02155, its first step.

    **Differences from the paper:** settings are TRL's; batches and schedule are the caller's.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "ouyang2022training",
        summary="maximum likelihood of demonstrated responses",
        parents=("Behavioural cloning",),
    )

    learning_rate: float = non_negative(2e-5)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        return begin_tuning(problem.network, schedule_of(self), reference=False)

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        response = jnp.asarray(data.response)

        def loss(network: AbstractTokenNetwork):
            log_probabilities = token_log_probabilities(network, data)
            value = -averaged(log_probabilities, response, "token")
            return value, {"loss": value, "tokens": jnp.sum(response).astype(jnp.float32)}

        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network
