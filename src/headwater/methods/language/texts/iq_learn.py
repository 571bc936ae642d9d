"""Inverse reinforcement learning from demonstrated texts."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, positive, share
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.accumulation import texts_in_parts
from headwater.ops.language.tokens import averaged, of_tokens, preceding
from headwater.parts.clipped_policy import last_tokens
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class ImitatedTexts(eqx.Module):
    """A network in training, and the tokens that end a response (none: its last token does)."""

    tuned: TuningState
    ends: Int[Array, " end"]


class IQLearnLM(
    AbstractMethod[TokenProblem, Completions, ImitatedTexts],
    AbstractTokenPolicy[ImitatedTexts],
):
    r"""Imitates responses by the reward that explains them: likelihood and temporal differences.

    Logits are read as $Q(s, a)$ of a text so far $s$ and a token $a$, so that
    $V(s) = \log\sum_a \exp Q(s, a)$ and $\log\pi = Q - V$. With $r_t = Q(s_t, a_t) - \gamma
    V(s_{t+1})$, where $V$ of an ended text is 0, the loss of a token is
    $-\log\pi(a_t|s_t) + \lambda r_t^2 - \eta H(\pi(\cdot|s_t))$, averaged over the tokens of
    responses. At $\lambda = \eta = 0$ this is maximum likelihood. With $\gamma = 1$ the minimum
    has $r = (1 - \rho_\pi/\rho)/(2\lambda)$, the reward that explains the demonstrations: positive
    where they are more frequent ($\rho$) than the policy makes them ($\rho_\pi$). Gradients go
    through $V(s_{t+1})$ too. A response that was cut off, and has no ending token, goes on: what
    follows it has the value that the network says.

    The level of the logits matters here, where nothing else looks at it.

    **Arguments:**

    - `temporal_difference_weight`: λ, a quarter of the inverse weight of the χ² divergence.
    - `discount`: γ.
    - `entropy_weight`: η, what the paper compares with.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Wulfmeier et al. (2024), arXiv:2409.01369; inverse soft Q-learning: Garg et al.
    (2021), arXiv:2106.12142.

    **Differences from the paper:** the version from stored texts only, without samples of the
    policy; λ = 0.1 is ours, as are the defaults of the optimiser (those of `SFT`).
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "wulfmeier2024imitating",
        summary="maximum likelihood with a temporal-difference term on the logits",
        parents=("SFT",),
    )

    temporal_difference_weight: float = non_negative(0.1)
    discount: float = share(1.0)
    entropy_weight: float = non_negative(0.0)
    learning_rate: float = non_negative(2e-5)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> ImitatedTexts:
        tuned = begin_tuning(problem.network, schedule_of(self), reference=False)
        ends = [token for token in np.atleast_1d(problem.end) if token >= 0]
        return ImitatedTexts(tuned, jnp.asarray(ends, jnp.int32))

    def update(self, state: ImitatedTexts, data: Completions, *, key: PRNGKeyArray):
        response = jnp.asarray(data.response)
        texts = Completions(jnp.asarray(data.tokens), response)

        def loss(network: AbstractTokenNetwork):
            def read(texts: Completions):
                logits = network.logits(texts.tokens).astype(jnp.float32)
                log_policy = jax.nn.log_softmax(logits, axis=-1)
                entropies = preceding(-jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1))
                return of_tokens(logits, texts), self._rewards(logits, texts, state.ends), entropies

            own, rewards, entropies = texts_in_parts(read, texts, network.gradient_accumulation)
            likelihood = averaged(own, response, "token")
            difference = averaged(rewards**2, response, "token")
            entropy = averaged(entropies, response, "token")
            value = self.temporal_difference_weight * difference - likelihood
            value = value - self.entropy_weight * entropy
            return value, {
                "loss": value,
                "log_likelihood": likelihood,
                "squared_reward": difference,
                "reward": averaged(rewards, response, "token"),
                "entropy": entropy,
            }

        tuned, metrics = tune(state.tuned, schedule_of(self), loss)
        return ImitatedTexts(tuned, state.ends), metrics

    def network(self, state: ImitatedTexts) -> AbstractTokenNetwork:
        return state.tuned.network

    def token_rewards(
        self, state: ImitatedTexts, data: Completions
    ) -> Float[Array, "*batch position"]:
        """The reward $r_t$ that the policy implies of each token of the responses, else zero."""
        logits = self.network(state).logits(jnp.asarray(data.tokens)).astype(jnp.float32)
        return self._rewards(logits, data, state.ends)

    def _rewards(self, logits: Array, data: Completions, ends: Int[Array, " end"]) -> Array:
        tokens, response = jnp.asarray(data.tokens), jnp.asarray(data.response)
        if ends.size:
            ended = jnp.any(tokens[..., None] == ends.reshape(*(1,) * tokens.ndim, -1), axis=-1)
        else:
            ended = last_tokens(response)
        value = jax.nn.logsumexp(logits, axis=-1)
        # What was chosen: its log-probability less what normalised it, which is V before it.
        chosen = of_tokens(logits, data) + preceding(value)
        return jnp.where(response, chosen - self.discount * jnp.where(ended, 0.0, value), 0.0)
