"""Direct preference optimisation."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import between, choice, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import CompletionComparisons
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.log_ratios import comparison_metrics, log_ratios
from headwater.ops.language.tokens import lengths
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class DPO(
    AbstractMethod[TokenProblem, CompletionComparisons, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Learns from comparisons by one supervised loss, without a reward model and without sampling.

    With $\rho(y) = \log\pi(y|x) - \log\pi_{ref}(y|x)$ and $h = \beta\rho(y^+) - \beta^-\rho(y^-)$,
    $L = -(1-\epsilon)\log\sigma(h) - \epsilon\log\sigma(-h) - \alpha\log\pi(y^+|x)$. Its optimum,
    when the labels follow Bradley and Terry with reward $R$, is
    $\pi \propto \pi_{ref}\exp(R/\beta)$.

    The log-probability of a chosen response may well fall in training: only the difference is
    asked for. The metrics `chosen_log_ratio` and `rejected_log_ratio` show it.

    **Arguments:**

    - `beta`: β, how strongly the policy is held to the reference.
    - `rejected_weight`: β⁻/β; 1 is DPO, less is Flex-DPO (Yan et al., 2024), which does not push
      rejected responses down as far.
    - `cloning_weight`: α; 0 is DPO, more is SFT-DPO: also fine-tunes on what was chosen. The
      last term is averaged over the tokens of all chosen responses, as in TRL.
    - `label_smoothing`: ε, share of labels believed to be wrong.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Rafailov, Sharma, Mitchell, Ermon, Manning, Finn (2023), arXiv:2305.18290; its
    two regularisers: Yan et al. (2024), arXiv:2406.07327.

    **Differences from the paper:** AdamW at TRL's rate in place of RMSprop at 5e-7.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "rafailov2023direct",
        summary="comparisons as a classification loss on log-ratios to a reference",
    )

    beta: float = non_negative(0.1)
    rejected_weight: float = non_negative(1.0)
    cloning_weight: float = non_negative(0.0)
    label_smoothing: float = between(0.0, 0.5, 0.0)
    learning_rate: float = non_negative(1e-6)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        return begin_tuning(problem.network, schedule_of(self), reference=True)

    def update(self, state: TuningState, data: CompletionComparisons, *, key: PRNGKeyArray):
        reference = state.reference

        def loss(network: AbstractTokenNetwork):
            chosen, rejected = log_ratios(network, reference, data)
            margin = self.beta * (chosen.ratio - self.rejected_weight * rejected.ratio)
            right, wrong = jax.nn.log_sigmoid(margin), jax.nn.log_sigmoid(-margin)
            classified = -jnp.mean(
                (1.0 - self.label_smoothing) * right + self.label_smoothing * wrong
            )
            tokens = jnp.maximum(jnp.sum(lengths(data.chosen)), 1)
            cloned = -jnp.sum(chosen.log_probability) / tokens
            return classified + self.cloning_weight * cloned, {
                "loss": classified,
                "chosen_negative_log_probability": cloned,
                **comparison_metrics(chosen, rejected),
            }

        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network
