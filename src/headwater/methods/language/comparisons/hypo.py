"""Hybrid preference optimisation."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import ComparisonsAndCompletions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.log_ratios import comparison_metrics, log_ratio, log_ratios
from headwater.ops.language.rollouts import leave_one_out
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class HyPO(
    AbstractMethod[TokenProblem, ComparisonsAndCompletions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""DPO on stored comparisons, and the divergence from the reference on the policy's own texts.

    DPO's loss says nothing of responses that nobody compared, so its divergence from the reference
    is not under control. Here $\lambda\,KL(\pi\|\pi_{ref})$ is added, of which fresh samples
    give the gradient: $\lambda\,(\rho_i - \overline{\rho}_{-i})\nabla\log\pi(y_i|x)$, where
    the mean is over the other samples to the same prompt. The samples need no labels.

    **Arguments:**

    - `beta`: β of DPO's loss.
    - `kl_weight`: λ, of the divergence measured on the policy's own texts.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Song, Swamy, Singh, Bagnell, Sun (2024), arXiv:2406.01462.

    **Differences from the paper:** the settings are those reported for TL;DR, which we could not
    check. With a single sample for each prompt there is no mean to subtract.
    """

    feed: ClassVar[Feed] = Feed.BOTH
    info: ClassVar[Info] = Info(
        "song2024importance",
        summary="DPO with the divergence held down on the policy's own, unlabelled texts",
        parents=("DPO",),
    )

    beta: float = non_negative(0.05)
    kl_weight: float = non_negative(1e-4)
    learning_rate: float = non_negative(3e-6)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        return begin_tuning(problem.network, schedule_of(self), reference=True)

    def update(self, state: TuningState, data: ComparisonsAndCompletions, *, key: PRNGKeyArray):
        reference = state.reference

        def loss(network: AbstractTokenNetwork):
            chosen, rejected = log_ratios(network, reference, data.comparisons)
            margin = self.beta * (chosen.ratio - rejected.ratio)
            classified = -jnp.mean(jax.nn.log_sigmoid(margin))
            own = log_ratio(network, reference, data.completions)
            several = own.ratio.ndim > 1 and own.ratio.shape[-1] > 1
            weight = jax.lax.stop_gradient(leave_one_out(own.ratio) if several else own.ratio)
            held = jnp.mean(weight * own.log_probability)
            return classified + self.kl_weight * held, {
                "loss": classified,
                "divergence": jnp.mean(own.ratio),
                **comparison_metrics(chosen, rejected),
            }

        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network
