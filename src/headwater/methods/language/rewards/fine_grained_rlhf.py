"""Proximal policy optimisation with rewards of parts of responses."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, positive, share
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.value_head import with_value
from headwater.ops.language.rollouts import rewards_of, whitened
from headwater.parts.clipped_policy import (
    begin_with_value,
    improve_clipped,
    judge,
    last_tokens,
)
from headwater.parts.fine_tuning import Decay, TuningState, schedule_of


class FineGrainedRLHF(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""PPO that is told which part of a response was good: a reward where each part ends.

    Several judges look at parts of their own: half sentences for relevance, sentences for facts,
    the whole for completeness. The reward of choosing token $t$ is
    $r_t = \sum_k w_k\sum_j R_{kj}[t = T_{kj}] - \beta(\log\pi - \log\pi_{ref})$, where judge $k$
    gives its part $j$, which ends at $T_{kj}$, the reward $R_{kj}$. Everything else is PPO's:
    generalised advantages, clipped ratios, a clipped error of the value.

    The sum over judges and parts comes with the texts (`Completions.token_reward`, from an
    `AbstractTokenReward` such as `WeightedParts`), so that weights belong to the reward. Texts that
    have one reward each are learned from as PPO does.

    **Arguments:**

    - `kl_weight`: β.
    - `discount`, `gae_lambda`: γ and λ of generalised advantages.
    - `clip_range`, `value_clip_range`: of ratios, and how far values may move in an update.
    - `value_weight`: of the value's error in the loss.
    - `whiten_rewards`: scale the rewards of tokens to unit variance; their mean stays.
    - `temperature`: at which the responses are sampled.
    - `num_epochs`, `num_minibatches`: passes over each batch, and parts of it.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, counted in steps, see `Schedule`; with `None` for
      `decay_updates` the rate reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Wu et al. (2023), arXiv:2306.01693.

    **Differences from the paper:** the value is linear in the policy's last hidden states, not a
    network of its own; updates do not stop where the divergence is large; tokens are drawn from all
    and not from the 20 likeliest.
    """

    feed: ClassVar[Feed] = Feed.SAMPLED
    info: ClassVar[Info] = Info(
        "wu2023fine",
        summary="clipped policy gradient with a reward where each part of a response ends",
        parents=("TokenPPO",),
    )

    kl_weight: float = non_negative(0.3)
    discount: float = share(1.0)
    gae_lambda: float = share(0.95)
    clip_range: float = non_negative(0.2)
    value_clip_range: float = non_negative(0.2)
    value_weight: float = non_negative(1.0)
    temperature: float = positive(0.7, infinite=True)
    learning_rate: float = non_negative(1e-5)
    warmup_updates: float = non_negative(100.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")
    whiten_rewards: bool = flag(True)
    num_epochs: int = integer(4)
    num_minibatches: int = integer(1)

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        return begin_with_value(problem, schedule_of(self), "FineGrainedRLHF")

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        response = jnp.asarray(data.response)
        if data.token_reward is None:
            score = rewards_of(data, "FineGrainedRLHF")
            parts = jnp.where(last_tokens(response), score[..., None], 0.0)
        else:
            parts = jnp.where(response, jnp.asarray(data.token_reward, jnp.float32), 0.0)
        before = judge(state, data, self.temperature)
        divergence = before.log_probability - before.reference
        reward = parts - self.kl_weight * divergence
        if self.whiten_rewards:
            reward = whitened(reward, response, centred=False)
        state, metrics = improve_clipped(self, state, data, before, reward, response, key=key)
        total = jnp.mean(jnp.sum(jnp.where(response, divergence, 0.0), axis=-1))
        earned = jnp.mean(jnp.sum(parts, axis=-1))
        return state, {**metrics, "reward": earned, "divergence": total}

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return with_value(state.network).network
