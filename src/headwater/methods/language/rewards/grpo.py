"""Group relative policy optimisation."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.rollouts import (
    Scale,
    clipped_loss,
    epochs,
    group_advantage,
    rewards_of,
    sampler_gap,
    sampling_log_probabilities,
)
from headwater.ops.language.tokens import (
    Average,
    averaged,
    divergence_estimate,
    divergence_surrogate,
    lengths,
    token_log_probabilities,
)
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class GRPO(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Learns from rewards of groups of responses, without a critic.

    $A_i = (R_i - \mathrm{mean}_j R_j) / (\mathrm{std}_j R_j + 10^{-4})$ over the responses to one
    prompt; with $w_{it} = \pi(y_{it})/\pi_{old}(y_{it})$ every token has the loss
    $-\min(w_{it}A_i, \mathrm{clip}(w_{it}, 1-\epsilon, 1+\epsilon)A_i) + \beta w_{it}d_{it}$.

    Groups that all succeed or all fail teach nothing; the metric `silent_groups` is their share.

    Learns from `[prompt, sample, position]` with two or more samples. The policy that wrote them is
    known by the log-probabilities that come with them; without these it is taken to be the policy
    at the beginning of the update.

    **Arguments:**

    - `kl_weight`: β; with `None` (0 in TRL) no reference is held.
    - `kl_estimator`: $d$. "k3" is the paper's and TRL's, $e^{-\rho} - 1 + \rho$ with
      $\rho = \log\pi - \log\pi_{ref}$ of the token; "surrogate" is $\rho^2/2$.
    - `kl_bias_correction`: whether $d$ is multiplied by $w$, as in TRL. Then either estimator has
      the gradient of KL(π‖reference), in later epochs too ("k3" by the gradient of $w$, which the
      surrogate leaves out). Without, as in the paper, that of "k3" is of KL(reference‖π), and that
      of "surrogate" right only on fresh responses.
    - `clip_range`, `upper_clip_range`: ε below and above.
    - `loss_aggregation`: "token" over all tokens of the batch (DAPO), "sequence" over the tokens of
      each response and then over responses (the paper; prefers short successes and long failures),
      "constant" over `max_completion_length` (Dr. GRPO).
    - `max_completion_length`: what sums over a response are divided by, for "constant".
    - `scale_rewards`: what advantages are divided by; "none" in Dr. GRPO.
    - `importance_sampling_level`: of each "token", or the geometric mean over the "sequence"
      (GSPO).
    - `temperature`: at which the responses are sampled.
    - `num_epochs`: steps on each batch.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, counted in steps, see `Schedule`; with `None` for
      `decay_updates` the rate reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Shao, Wang, Zhu, Xu, Song and others (2024), arXiv:2402.03300; Dr. GRPO: Liu et
    al. (2025), arXiv:2503.20783; DAPO: Yu et al. (2025), arXiv:2503.14476; with rewards by rules,
    CLS-RL: Li et al. (2025), arXiv:2503.16188.

    **Differences from the paper:** defaults are TRL's (`beta` 0 where the paper has 0.04,
    `loss_type` "dapo", `use_bias_correction_kl`); one epoch.
    """

    feed: ClassVar[Feed] = Feed.SAMPLED
    info: ClassVar[Info] = Info(
        "shao2024deepseekmath",
        summary="clipped policy gradient with advantages from groups of responses to one prompt",
        parents=("TokenPPO", "RLOO"),
    )

    kl_weight: float | None = non_negative(None)
    clip_range: float = non_negative(0.2)
    upper_clip_range: float = non_negative(0.2)
    temperature: float = positive(1.0, infinite=True)
    learning_rate: float = non_negative(1e-6)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")
    kl_estimator: Literal["k3", "surrogate"] = choice("k3")
    kl_bias_correction: bool = flag(True)
    loss_aggregation: Average = choice("token")
    max_completion_length: int = integer(512)
    scale_rewards: Scale = choice("group")
    importance_sampling_level: Literal["token", "sequence"] = choice("token")
    num_epochs: int = integer(1)

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        held = self.kl_weight is not None
        return begin_tuning(problem.network, schedule_of(self), reference=held)

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        reward, response = rewards_of(data, "GRPO", groups=True), jnp.asarray(data.response)
        advantage = group_advantage(reward, self.scale_rewards)[..., None]
        advantage = jnp.broadcast_to(advantage, response.shape)
        old = sampling_log_probabilities(state.network, data, self.temperature)
        held = state.network if self.kl_weight is None else state.reference
        reference = token_log_probabilities(held, data, self.temperature)

        def loss(network: AbstractTokenNetwork):
            own = token_log_probabilities(network, data, self.temperature)
            change = own - old
            if self.importance_sampling_level == "sequence":
                count = jnp.maximum(lengths(data), 1)[..., None]
                change = jnp.sum(change, axis=-1, keepdims=True) / count
                change = jnp.broadcast_to(change, response.shape)
            gains, bounded = clipped_loss(change, advantage, self.clip_range, self.upper_clip_range)
            value = averaged(
                gains, response, self.loss_aggregation, float(self.max_completion_length)
            )
            measured = {}
            if self.kl_weight is not None:
                estimate = divergence_estimate(own - reference, "k3")
                kl_loss, weight = estimate, jnp.exp(change)
                if self.kl_estimator == "surrogate":
                    kl_loss = divergence_surrogate(own, reference)
                    weight = jax.lax.stop_gradient(weight)
                if self.kl_bias_correction:
                    kl_loss = weight * kl_loss
                kl_loss = averaged(
                    kl_loss, response, self.loss_aggregation, float(self.max_completion_length)
                )
                value = value + self.kl_weight * kl_loss
                measured = {"divergence": averaged(estimate, response, "token")}
            return value, {
                "loss": value,
                "clipped": averaged(bounded.astype(jnp.float32), response, "token"),
                "sampler_gap": sampler_gap(own, old, response),
                **measured,
            }

        state, metrics = epochs(lambda s: tune(s, schedule_of(self), loss), state, self.num_epochs)
        deviation = jnp.std(reward, axis=-1)
        measured = {
            "reward": jnp.mean(reward),
            "reward_deviation": jnp.mean(deviation),
            "silent_groups": jnp.mean((deviation < 1e-6).astype(jnp.float32)),
        }
        return state, {**metrics, **measured}

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network
