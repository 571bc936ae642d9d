"""Proximal policy optimisation of a language model."""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, positive, share
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.value_head import begin_with_value, first_policy, with_value
from headwater.ops.language.fine_tuning import Tuned, schedule_of, tune
from headwater.ops.language.proximal import (
    clipped_value_loss,
    generalised_advantage,
    last_tokens,
    minibatch_epochs,
)
from headwater.ops.language.rollouts import clipped_loss, rewards_of, sampler_gap, whitened
from headwater.ops.language.tokens import averaged, divergence_estimate, token_log_probabilities


class PPO(
    AbstractMethod[TokenProblem, Completions, Tuned],
    AbstractTokenPolicy[Tuned],
):
    r"""Clipped policy gradient with a value of every prefix: the token is the action.

    Choosing token $t$ earns $r_t = -\beta d_t$, and the last one the reward of the response too,
    $d_t$ estimating KL(π‖reference). Generalised advantages $A$, standardised, and returns
    $G = A + V$ are held fixed for `epochs`; the loss is
    $-\min(wA, \mathrm{clip}(w, 1-\epsilon, 1+\epsilon)A)$ plus $c$ times the clipped squared error
    of $V$ to $G$, each averaged over the tokens of responses.

    The value is linear in the policy's last hidden states. The policy that wrote the texts is known
    by the log-probabilities that come with them; without these it is taken to be the policy at the
    beginning of the update.

    **Arguments:**

    - `divergence_weight`: β.
    - `divergence_estimator`: $d$, "k1" or "k3"; in a reward both are right.
    - `discount`, `trace_decay`: γ and λ of generalised advantages.
    - `clip_range`, `value_clip_range`: ε of ratios, and how far values may move in an update.
    - `value_weight`: $c$.
    - `whiten_rewards`: scale the rewards of tokens to unit variance; their mean stays.
    - `temperature`: at which the responses are sampled.
    - `epochs`, `minibatches`: passes over each batch, and parts of it.
    - `learning_rate`, `warm_up_updates`, `decay_updates`, `weight_decay`, `largest_gradient`: of
      AdamW, counted in steps; infinitely many `decay_updates` keep the rate constant.

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

    divergence_weight: float = non_negative(0.05)
    discount: float = share(1.0)
    trace_decay: float = share(0.95)
    clip_range: float = non_negative(0.2)
    value_clip_range: float = non_negative(0.2)
    value_weight: float = non_negative(0.1)
    temperature: float = positive(1.0, infinite=True)
    learning_rate: float = non_negative(5e-5)
    warm_up_updates: float = non_negative(0.0)
    decay_updates: float = positive(float("inf"), infinite=True)
    weight_decay: float = non_negative(0.0)
    largest_gradient: float = positive(1.0, infinite=True)
    divergence_estimator: Literal["k1", "k3"] = choice("k1")
    whiten_rewards: bool = flag(False)
    epochs: int = integer(4)
    minibatches: int = integer(1)

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> Tuned:
        return begin_with_value(problem, schedule_of(self), "PPO")

    def update(self, state: Tuned, data: Completions, *, key: PRNGKeyArray):
        score, response = rewards_of(data, "PPO"), jnp.asarray(data.response)
        before = with_value(state.network).judge(data, self.temperature)
        old, value = before.log_probability, before.value
        if data.log_probability is not None:
            old = jnp.where(response, jnp.asarray(data.log_probability), 0.0)
        reference = token_log_probabilities(first_policy(state), data, self.temperature)
        divergence = divergence_estimate(old - reference, self.divergence_estimator)
        reward = jnp.where(last_tokens(response), score[..., None], 0.0)
        reward = reward - self.divergence_weight * divergence
        if self.whiten_rewards:
            reward = whitened(reward, response, centred=False)
        advantage = generalised_advantage(reward, value, response, self.discount, self.trace_decay)
        target = advantage + value
        advantage = whitened(advantage, response)

        def step(state: Tuned, rows):
            data, old, advantage, value, target = rows
            response = data.response

            def loss(network: AbstractTokenNetwork):
                own, now = with_value(network).judge(data, self.temperature)
                gains, bounded = clipped_loss(
                    own - old, advantage, self.clip_range, self.clip_range
                )
                errors = clipped_value_loss(now, value, target, self.value_clip_range)
                policy_loss = averaged(gains, response, "token")
                value_loss = averaged(errors, response, "token")
                return policy_loss + self.value_weight * value_loss, {
                    "policy_loss": policy_loss,
                    "value_loss": value_loss,
                    "clipped": averaged(bounded.astype(jnp.float32), response, "token"),
                    "sampler_gap": sampler_gap(own, old, response),
                }

            return tune(state, schedule_of(self), loss)

        rows = jax.tree.map(
            lambda x: x.reshape(-1, x.shape[-1]),
            (Completions(jnp.asarray(data.tokens), response), old, advantage, value, target),
        )
        state, metrics = minibatch_epochs(
            step, state, rows, epochs=self.epochs, minibatches=self.minibatches, key=key
        )
        total = jnp.mean(jnp.sum(jnp.where(response, divergence, 0.0), axis=-1))
        return state, {**metrics, "reward": jnp.mean(score), "divergence": total}

    def network(self, state: Tuned) -> AbstractTokenNetwork:
        return with_value(state.network).network
