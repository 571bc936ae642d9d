"""Proximal policy optimisation of a language model."""

from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, positive, share
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.value_head import with_value
from headwater.ops.language.rollouts import rewards_of, whitened
from headwater.ops.language.tokens import divergence_estimate
from headwater.parts.clipped_policy import (
    begin_with_value,
    improve_clipped,
    judge,
    last_tokens,
)
from headwater.parts.fine_tuning import Decay, TuningState, schedule_of


class TokenPPO(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Clipped policy gradient with a value of every prefix: the token is the action.

    Choosing token $t$ earns $r_t = -\beta d_t$, and the last one the reward of the response too,
    $d_t$ estimating KL(π‖reference). Generalised advantages $A$, standardised, and returns
    $G = A + V$ are held fixed for `num_epochs`; the loss is
    $-\min(wA, \mathrm{clip}(w, 1-\epsilon, 1+\epsilon)A)$ plus $c$ times the clipped squared error
    of $V$ to $G$, each averaged over the tokens of responses.

    The value is linear in the policy's last hidden states. The policy that wrote the texts is known
    by the log-probabilities that come with them; without these it is taken to be the policy at the
    beginning of the update.

    **Arguments:**

    - `kl_weight`: β.
    - `kl_estimator`: $d$, "k1" or "k3"; in a reward both are right.
    - `discount`, `gae_lambda`: γ and λ of generalised advantages.
    - `clip_range`, `value_clip_range`: ε of ratios, and how far values may move in an update.
    - `value_weight`: $c$.
    - `whiten_rewards`: scale the rewards of tokens to unit variance; their mean stays.
    - `temperature`: at which the responses are sampled.
    - `num_epochs`, `num_minibatches`: passes over each batch, and parts of it.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, counted in steps, see `Schedule`; with `None` for
      `decay_updates` the rate reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Schulman, Wolski, Dhariwal, Radford, Klimov (2017), arXiv:1707.06347; for
    language: Stiennon et al. (2020), arXiv:2009.01325.

    **Differences from the paper:** defaults are TRL's (`kl_coef`, `kl_estimator`, `gamma`, `lam`,
    `cliprange`, `cliprange_value`, `vf_coef`, `num_ppo_epochs`, `num_mini_batches`), where the
    value is a network of its own and responses are sampled at temperature 0.7.
    """

    feed: ClassVar[Feed] = Feed.SAMPLED
    info: ClassVar[Info] = Info(
        "schulman2017proximal",
        summary="clipped policy gradient with a value of every prefix, each token an action",
        parents=("TRPO", "Actor-critic"),
    )

    kl_weight: float = non_negative(0.05)
    discount: float = share(1.0)
    gae_lambda: float = share(0.95)
    clip_range: float = non_negative(0.2)
    value_clip_range: float = non_negative(0.2)
    value_weight: float = non_negative(0.1)
    temperature: float = positive(1.0, infinite=True)
    learning_rate: float = non_negative(5e-5)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")
    kl_estimator: Literal["k1", "k3"] = choice("k1")
    whiten_rewards: bool = flag(False)
    num_epochs: int = integer(4)
    num_minibatches: int = integer(1)

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        return begin_with_value(problem, schedule_of(self), "TokenPPO")

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        score, response = rewards_of(data, "TokenPPO"), jnp.asarray(data.response)
        before = judge(state, data, self.temperature)
        divergence = divergence_estimate(
            before.log_probability - before.reference, self.kl_estimator
        )
        reward = jnp.where(last_tokens(response), score[..., None], 0.0)
        reward = reward - self.kl_weight * divergence
        if self.whiten_rewards:
            reward = whitened(reward, response, centred=False)
        state, metrics = improve_clipped(self, state, data, before, reward, response, key=key)
        total = jnp.mean(jnp.sum(jnp.where(response, divergence, 0.0), axis=-1))
        return state, {**metrics, "reward": jnp.mean(score), "divergence": total}

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return with_value(state.network).network
