"""Kahneman–Tversky optimisation."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions, LabelledCompletions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.log_ratios import log_ratio
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class KTO(
    AbstractMethod[TokenProblem, LabelledCompletions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Learns from responses that are each called desirable or undesirable, without pairs.

    With $\rho(y) = \log\pi(y|x) - \log\pi_{ref}(y|x)$ and the sign $s$ of the label,
    $L = \lambda_s(1 - \sigma(\beta s(\rho(y) - z)))$, averaged over responses. The reference point
    $z = \max(0, \overline{\rho(y_{i-1}|x_i)})$ estimates the divergence from the reference: every
    prompt of the batch is followed by the response of the row before it, and no gradient goes
    through it. Gains and losses saturate on both sides, so that labels which cannot be learned
    weigh little.

    **Arguments:**

    - `beta`: β, how strongly the policy is held to the reference.
    - `desirable_weight`, `undesirable_weight`: λ of responses with either label. The paper advises
      to choose them so that weight times number of rows is between 1 and 4/3 times as much for
      desirable rows as for undesirable ones.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Ethayarajh, Xu, Muennighoff, Jurafsky, Kiela (2024), arXiv:2402.01306.

    **Differences from the paper:** AdamW at TRL's rate. TRL goes through rows in their order and
    takes neighbours in the file; here rows are drawn, and neighbours are those of the batch, which
    may have the same prompt. A response that does not fit behind the other prompt is cut.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "ethayarajh2024kto",
        summary="responses labelled one by one, as gains and losses against a reference point",
        parents=("DPO",),
    )

    beta: float = non_negative(0.1)
    desirable_weight: float = non_negative(1.0)
    undesirable_weight: float = non_negative(1.0)
    learning_rate: float = non_negative(1e-6)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        return begin_tuning(problem.network, schedule_of(self), reference=True)

    def update(self, state: TuningState, data: LabelledCompletions, *, key: PRNGKeyArray):
        if data.desirable.shape[0] < 2:
            raise SpecificationError(
                "KTO puts the response of one row behind the prompt of another: give batches of at "
                "least 2 rows"
            )
        reference = state.reference
        desirable = jnp.asarray(data.desirable)
        weight = jnp.where(desirable, self.desirable_weight, self.undesirable_weight)
        sign = jnp.where(desirable, 1.0, -1.0)
        other = log_ratio(state.network, reference, _mismatched(data)).ratio
        point = jnp.maximum(jnp.mean(other), 0.0)

        def loss(network: AbstractTokenNetwork):
            ratio = log_ratio(network, reference, data.completions).ratio
            gain = jax.nn.sigmoid(self.beta * sign * (ratio - point))
            missed = jnp.mean(weight * (1.0 - gain))
            return missed, {
                "loss": missed,
                "divergence": point,
                "desirable_log_ratio": _mean(ratio, desirable),
                "undesirable_log_ratio": _mean(ratio, ~desirable),
            }

        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network


def _mean(values, mask):
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)


def _mismatched(data: LabelledCompletions) -> Completions:
    """Every prompt with the response of the row before it, as far as that fits."""
    texts = data.completions
    tokens, response = jnp.asarray(texts.tokens), jnp.asarray(texts.response)
    width = tokens.shape[-1]
    start = jnp.argmax(response, axis=-1)[:, None]
    place = jnp.arange(width)[None]
    # Where a token of the new response stands in the text that it comes from.
    source = place - start + jnp.roll(start, 1, axis=0)
    index = jnp.clip(source, 0, width - 1)
    others = (jnp.roll(tokens, 1, axis=0), jnp.roll(response, 1, axis=0))
    token, chosen = (jnp.take_along_axis(x, index, axis=-1) for x in others)
    after = place >= start
    return Completions(
        jnp.where(after, token, tokens),
        jnp.where(after & (source < width), chosen, False),
        packing=data.mismatched,
    )
