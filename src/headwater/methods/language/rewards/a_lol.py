"""Advantage-leftover-lunch reinforcement learning."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.rollouts import rewards_of
from headwater.ops.language.tokens import token_log_probabilities
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class ALoL(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Imitates what was better than expected, as much as it was, and never samples.

    $L = -A\,\bar w\log\pi(y|x)$, averaged over responses, where $A$ is what the texts carry as
    their reward and $\bar w = \mathrm{clip}(\pi(y|x)/\pi_{ref}(y|x), 1-c, 1+c)$ is held fixed.

    The paper's recipe: fine-tune by maximum likelihood; that is the reference and the start. Take
    $A = R - V(x)$, with $V$ fitted to rewards of the reference's own responses, drop what is not
    positive, and draw rows in proportion to $A$ (`datasets.completion_advantages`). With rewards
    in the place of $A$ and rows drawn uniformly this is R-LoL, and weighted cloning without
    importance weights.

    **Arguments:**

    - `importance_sampling_level`: the ratio of the whole "sequence" (A-LoL), of each "token" (A-LoL
      seq), or "none" (reference-free).
    - `clip_range`: c.
    - `kl_weight`: of $\log\pi - \log\pi_{ref}$ of the responses in the loss; with
      `importance_sampling_level="none"` it is A-LoL KL. On stored responses this estimates no
      divergence: it takes as much off every advantage, so that large weights drive likelihoods
      down.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Baheti, Lu, Brahman, Le Bras, Sap, Riedl (2024), arXiv:2305.14718.

    **Differences from the paper:** the value is a ridge regression on the reference's last hidden
    state of the prompt instead of an attention head.
    """

    feed: ClassVar[Feed] = Feed.ADVANTAGES
    info: ClassVar[Info] = Info(
        "baheti2024leftover",
        summary="likelihood of stored responses weighted by their advantage",
        parents=("SFT", "AWR"),
    )

    clip_range: float = non_negative(0.9)
    kl_weight: float = non_negative(0.0)
    learning_rate: float = non_negative(2e-5)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")
    importance_sampling_level: Literal["sequence", "token", "none"] = choice("sequence")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        return begin_tuning(problem.network, schedule_of(self), reference=True)

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        advantage = rewards_of(data, "ALoL")
        reference = token_log_probabilities(state.reference, data)

        def loss(network: AbstractTokenNetwork):
            own = token_log_probabilities(network, data)
            change = jax.lax.stop_gradient(own) - reference
            if self.importance_sampling_level == "sequence":
                change = jnp.sum(change, axis=-1, keepdims=True)
            ratio = (
                jnp.exp(change)
                if self.importance_sampling_level != "none"
                else jnp.ones_like(change)
            )
            weight = jnp.clip(ratio, 1.0 - self.clip_range, 1.0 + self.clip_range)
            likelihood = jnp.sum(weight * own, axis=-1)
            divergence = jnp.mean(jnp.sum(own - reference, axis=-1))
            value = -jnp.mean(advantage * likelihood) + self.kl_weight * divergence
            return value, {"loss": value, "importance": jnp.mean(weight), "log_ratio": divergence}

        state, metrics = tune(state, schedule_of(self), loss)
        return state, {**metrics, "advantage": jnp.mean(advantage)}

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network
