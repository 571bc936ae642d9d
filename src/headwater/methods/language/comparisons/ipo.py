"""Identity preference optimisation."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import CompletionComparisons
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.log_ratios import comparison_metrics, log_ratios
from headwater.ops.language.tokens import lengths
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class IPO(
    AbstractMethod[TokenProblem, CompletionComparisons, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Learns from comparisons by a squared loss, which stays regularised when labels are certain.

    With $\rho(y) = \log\pi(y|x) - \log\pi_{ref}(y|x)$,
    $L = (\rho(y^+) - \rho(y^-) - 1/(2\tau))^2$. Where DPO pushes two responses apart for ever if
    one always wins, here the log-ratios are to differ by a given number. The optimum maximises how
    often the policy's responses are preferred, less τ times the divergence from the reference.

    **Arguments:**

    - `beta`: τ (TRL's `beta`), how strongly the policy is held to the reference.
    - `normalise_lengths`: divide each ρ by the number of the response's tokens, as in the paper's
      experiments (their authors to TRL) and not in its text. τ then means something else: of two
      responses of n tokens the ρ are to differ by n/(2τ).
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Azar, Rowland, Piot, Guo, Calandriello, Valko, Munos (2023), arXiv:2310.12036.

    **Differences from the paper:** defaults are TRL's (`loss_type="ipo"`): lengths normalised,
    τ = 0.1, AdamW at 1e-6. For the paper's equations set `normalise_lengths=False`.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "azar2024general",
        summary="comparisons as a regression of log-ratios to a fixed gap",
        parents=("DPO",),
    )

    beta: float = non_negative(0.1)
    learning_rate: float = non_negative(1e-6)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")
    normalise_lengths: bool = flag(True)

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        return begin_tuning(problem.network, schedule_of(self), reference=True)

    def update(self, state: TuningState, data: CompletionComparisons, *, key: PRNGKeyArray):
        reference = state.reference

        def loss(network: AbstractTokenNetwork):
            chosen, rejected = log_ratios(network, reference, data)
            won, lost = chosen.ratio, rejected.ratio
            if self.normalise_lengths:
                won = won / jnp.maximum(lengths(data.chosen), 1)
                lost = lost / jnp.maximum(lengths(data.rejected), 1)
            missed = jnp.mean((won - lost - 0.5 / self.beta) ** 2)
            return missed, {"loss": missed, **comparison_metrics(chosen, rejected)}

        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network
