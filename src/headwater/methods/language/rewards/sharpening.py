"""Sharpening by regression: a policy that is its own reward."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.log_ratios import log_ratio
from headwater.ops.language.tokens import lengths
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class RLHFSharpening(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Moves probability to the responses that the policy itself found likeliest.

    The reward is $r(y) = \log\pi_{ref}(y|x)$, so that the best policy at a divergence weighed by
    β is $\pi_{ref}^{1 + 1/\beta}$. It is found by regression on pairs of responses that
    the reference wrote: $L = (\beta(\rho(y) - \rho(y')) - (r(y) - r(y')))^2$ with
    $\rho = \log\pi - \log\pi_{ref}$. No reward from outside is used.

    Batches are groups of responses `[prompt, sample, position]`, two or more to each prompt, of
    which all pairs count.

    **Arguments:**

    - `beta`: β, how strongly the policy is held to the reference; the smaller, the
      sharper.
    - `normalise_lengths`: divide the reward by the number of the response's tokens, so that short
      responses are not favoured.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Huang, Block, Foster, Rohatgi, Zhang, Simchowitz, Ash, Krishnamurthy (2025),
    arXiv:2412.01951.

    **Differences from the paper:** which only analyses it: the settings are ours, DPO's.
    """

    feed: ClassVar[Feed] = Feed.REFERENCE
    info: ClassVar[Info] = Info(
        "huang2025self",
        summary="regression to the reference's own log-probabilities as rewards",
        parents=("DPO",),
    )

    beta: float = non_negative(0.1)
    learning_rate: float = non_negative(1e-6)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")
    normalise_lengths: bool = flag(False)

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        return begin_tuning(problem.network, schedule_of(self), reference=True)

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        if data.tokens.ndim < 3 or data.tokens.shape[-2] < 2:
            raise SpecificationError(
                "RLHFSharpening compares responses to the same prompt, [prompt, sample, position]: "
                f"texts of shape {list(data.tokens.shape)} do not have two or more for each"
            )
        reference = state.reference

        def loss(network: AbstractTokenNetwork):
            own = log_ratio(network, reference, data)
            reward = jax.lax.stop_gradient(own.log_probability - own.ratio)
            if self.normalise_lengths:
                reward = reward / jnp.maximum(lengths(data), 1)
            missed = _mean_square_difference(self.beta * own.ratio - reward)
            return missed, {
                "loss": missed,
                "reward": jnp.mean(reward),
                "log_probability": jnp.mean(own.log_probability),
            }

        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network


def _mean_square_difference(values: Float[Array, "*batch sample"]) -> Float[Array, ""]:
    """Over all pairs of samples: twice the variance, of n - 1."""
    return 2.0 * jnp.mean(jnp.var(values, axis=-1, ddof=1))
