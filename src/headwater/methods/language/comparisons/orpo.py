"""Odds ratio preference optimisation."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import CompletionComparisons
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.tokens import averaged, lengths, token_log_probabilities
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune

_CERTAIN = -1e-6
"""Log-probabilities of tokens above it, on average, count as this: odds of certainty are infinite.
"""


class ORPO(
    AbstractMethod[TokenProblem, CompletionComparisons, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Fine-tunes on chosen responses and makes rejected ones less likely, without a reference.

    With $\ell(y) = \log\pi(y|x)/|y|$ and the odds $\log o(y) = \ell(y) - \log(1-\exp\ell(y))$,
    $L = L_{SFT}(y^+) - \beta\log\sigma(\log o(y^+) - \log o(y^-))$. The first term is that of
    `SFT`, averaged over the tokens of all chosen responses. One network is held in memory, not two.

    **Arguments:**

    - `beta`: λ of the paper, which TRL calls `beta` too: weight of the term that compares.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Hong, Lee, Thorne (2024), arXiv:2403.07691.

    **Differences from the paper:** AdamW at TRL's rate. TRL's first term also counts the tokens of
    prompts; here, as in `SFT`, those of responses alone. Mean log-probabilities within 1e-6 of
    zero, where odds are infinite, count as -1e-6.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "hong2024orpo",
        summary="fine-tuning on chosen responses with a penalty on the odds of rejected ones",
        parents=("SFT", "DPO"),
    )

    beta: float = non_negative(0.1)
    learning_rate: float = non_negative(1e-6)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        return begin_tuning(problem.network, schedule_of(self), reference=False)

    def update(self, state: TuningState, data: CompletionComparisons, *, key: PRNGKeyArray):
        def loss(network: AbstractTokenNetwork):
            chosen, rejected = (
                token_log_probabilities(network, part) for part in (data.chosen, data.rejected)
            )
            won = jnp.sum(chosen, axis=-1) / jnp.maximum(lengths(data.chosen), 1)
            lost = jnp.sum(rejected, axis=-1) / jnp.maximum(lengths(data.rejected), 1)
            ratio = _log_odds(won) - _log_odds(lost)
            compared = -jnp.mean(jax.nn.log_sigmoid(ratio))
            cloned = -averaged(chosen, jnp.asarray(data.chosen.response), "token")
            total = cloned + self.beta * compared
            return total, {
                "loss": total,
                "chosen_negative_log_probability": cloned,
                "log_odds_ratio": jnp.mean(ratio),
                "accuracy": jnp.mean((won > lost).astype(jnp.float32)),
            }

        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network


def _log_odds(log_probability: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    bounded = jnp.minimum(log_probability, _CERTAIN)
    return bounded - jnp.log(-jnp.expm1(bounded))
