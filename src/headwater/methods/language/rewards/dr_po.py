"""Dataset reset policy optimisation."""

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
    texts,
)
from headwater.parts.fine_tuning import Decay, TuningState, schedule_of


class DRPO(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""PPO on responses that begin as good stored ones do (`sources.language.resets.Resets`).

    A text is given up to some place of a stored response and the policy goes on from there, so that
    rewards far away are met early; later, from earlier places, what follows is known. As
    `TokenPPO`, but the value is learned on the whole text, given tokens and prompts too, over which
    advantages are estimated, while the policy's loss is averaged over its own tokens alone.

    Evaluate from the prompts. Where at least one token is always given, as in the released code, no
    policy learns its first one: let some responses begin at the prompt.

    **Arguments:**

    - `kl_weight`: β, the price of KL to the reference for the policy's own tokens.
    - `discount`, `gae_lambda`: γ and λ of generalised advantages.
    - `clip_range`, `value_clip_range`: ε of ratios, and how far values may move in an update.
    - `value_weight`: of the error of the value in the loss.
    - `whiten_rewards`: scale the rewards of tokens to unit variance; their mean stays.
    - `temperature`: at which the responses are sampled (the paper: 0.7).
    - `num_epochs`, `num_minibatches`: passes over each batch, and parts of it.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, counted in steps, see `Schedule`; with `None` for
      `decay_updates` the rate reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Chang, Zhan, Oertell, Brantley, Misra, Lee, Sun (2024), arXiv:2404.08495.

    **Differences from the paper:** the value is linear in the policy's last hidden states. That the
    value is learned where the policy is not is in the released code. The theory's natural
    policy gradient with regression is not this.
    """

    feed: ClassVar[Feed] = Feed.RESETS
    info: ClassVar[Info] = Info(
        "chang2024dataset",
        summary="PPO from beginnings of stored responses",
        parents=("TokenPPO",),
    )

    kl_weight: float = non_negative(0.05)
    discount: float = share(1.0)
    gae_lambda: float = share(0.95)
    clip_range: float = non_negative(0.2)
    value_clip_range: float = non_negative(0.2)
    value_weight: float = non_negative(0.1)
    temperature: float = positive(1.0, infinite=True)
    learning_rate: float = non_negative(3e-6)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")
    whiten_rewards: bool = flag(True)
    num_epochs: int = integer(4)
    num_minibatches: int = integer(1)

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        return begin_with_value(problem, schedule_of(self), "DRPO")

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        score, response = rewards_of(data, "DRPO"), jnp.asarray(data.response)
        before = judge(state, data, self.temperature)
        divergence, text = before.log_probability - before.reference, texts(response)
        reward = jnp.where(last_tokens(response), score[..., None], 0.0)
        reward = reward - self.kl_weight * divergence
        if self.whiten_rewards:
            reward = whitened(reward, text, centred=False)
        state, metrics = improve_clipped(self, state, data, before, reward, text, key=key)
        total = jnp.mean(jnp.sum(jnp.where(response, divergence, 0.0), axis=-1))
        return state, {**metrics, "reward": jnp.mean(score), "divergence": total}

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return with_value(state.network).network
