"""REINFORCE with the other responses to the same prompt as the baseline."""

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
    clipped_loss,
    epochs,
    leave_one_out,
    rewards_of,
    sampler_gap,
    sampling_log_probabilities,
)
from headwater.ops.language.tokens import divergence_surrogate, token_log_probabilities
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class RLOO(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Policy gradient on whole responses, each judged against the others to the same prompt.

    With $\rho = \log\pi_{old}(y|x) - \log\pi_{ref}(y|x)$ the reward is $R' = R - \beta\rho$, the
    advantage $A_i = R'_i - \frac{1}{k-1}\sum_{j\ne i}R'_j$, and with
    $w = \pi(y|x)/\pi_{old}(y|x)$ the loss $-\min(wA, \mathrm{clip}(w, 1-\epsilon, 1+\epsilon)A)$,
    averaged over responses. On fresh responses $w = 1$: its gradient is REINFORCE's, unbiased for
    the expected reward less β times KL(π‖reference).

    Learns from `[prompt, sample, position]` with two or more samples. The policy that wrote them is
    known by the log-probabilities that come with them; without these it is taken to be the policy
    at the beginning of the update.

    **Arguments:**

    - `kl_weight`: β, the price of KL to the reference.
    - `kl_in`: "reward", as above; "loss", with $\beta w\rho^2/2$ added instead, $w$ held
      fixed, which has the same expected gradient, where k1 and k3 would not.
    - `clip_range`, `upper_clip_range`: ε below and above.
    - `normalise_advantages`: to mean 0 and deviation 1 over the batch.
    - `temperature`: at which the responses are sampled.
    - `num_epochs`: steps on each batch.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, counted in steps, see `Schedule`; with `None` for
      `decay_updates` the rate reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Ahmadian, Cremer, Gallé, Fadaee, Kreutzer, Pietquin, Üstün, Hooker (2024),
    arXiv:2402.14740.

    **Differences from the paper:** clipping and settings are TRL's (`beta`, `epsilon`,
    `epsilon_high`, `normalize_advantages`, `num_iterations`).
    """

    feed: ClassVar[Feed] = Feed.SAMPLED
    info: ClassVar[Info] = Info(
        "ahmadian2024back",
        summary="policy gradient with a leave-one-out baseline, whole responses as actions",
        parents=("REINFORCE",),
    )

    kl_weight: float = non_negative(0.05)
    clip_range: float = non_negative(0.2)
    upper_clip_range: float = non_negative(0.2)
    temperature: float = positive(1.0, infinite=True)
    learning_rate: float = non_negative(1e-6)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")
    kl_in: Literal["reward", "loss"] = choice("reward")
    normalise_advantages: bool = flag(False)
    num_epochs: int = integer(1)

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        return begin_tuning(problem.network, schedule_of(self), reference=True)

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        reward = rewards_of(data, "RLOO", groups=True)
        response = jnp.asarray(data.response)
        sampled = sampling_log_probabilities(state.network, data, self.temperature)
        old = jnp.sum(sampled, axis=-1)
        reference = token_log_probabilities(state.reference, data, self.temperature)
        reference = jnp.sum(reference, axis=-1)
        priced = reward
        if self.kl_in == "reward":
            priced = reward - self.kl_weight * (old - reference)
        advantage = leave_one_out(priced)
        if self.normalise_advantages:
            advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage, ddof=1) + 1e-4)

        def loss(network: AbstractTokenNetwork):
            log_probabilities = token_log_probabilities(network, data, self.temperature)
            own = jnp.sum(log_probabilities, axis=-1)
            gains, bounded = clipped_loss(
                own - old, advantage, self.clip_range, self.upper_clip_range
            )
            value = jnp.mean(gains)
            if self.kl_in == "loss":
                weight = jnp.exp(jax.lax.stop_gradient(own) - old)
                kl_loss = jnp.mean(weight * divergence_surrogate(own, reference))
                value = value + self.kl_weight * kl_loss
            return value, {
                "loss": value,
                "clipped": jnp.mean(bounded.astype(jnp.float32)),
                "sampler_gap": sampler_gap(log_probabilities, sampled, response),
            }

        state, metrics = epochs(lambda s: tune(s, schedule_of(self), loss), state, self.num_epochs)
        measured = {
            "reward": jnp.mean(reward),
            "reward_deviation": jnp.mean(jnp.std(reward, axis=-1)),
            "divergence": jnp.mean(old - reference),
        }
        return state, {**metrics, **measured}

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network
