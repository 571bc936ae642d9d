"""Memory-efficient zeroth-order optimisation."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.tokens import averaged, per_token, token_log_probabilities
from headwater.ops.language.zeroth_order import descended, random_seed, replayed, slope


class MeZOState(eqx.Module):
    """The network and the number of updates: there is no optimiser and no gradient."""

    network: AbstractTokenNetwork
    step: Int[Array, ""]


class MeZO(
    AbstractMethod[TokenProblem, Completions, MeZOState],
    AbstractTokenPolicy[MeZOState],
):
    r"""Fine-tunes by looking at losses alone, in the memory that reading takes.

    Draws a seed and from it noise $z$ like the weights; $g = (L(\theta+\epsilon z) -
    L(\theta-\epsilon z)) / 2\epsilon$; then $\theta \leftarrow \theta - \eta (g z + w\theta)$. The
    loss need not be differentiable.

    The metrics `seed`, `slope` ($g$) and `rate` ($\eta$) of every update are all that a run is:
    `replay` makes its weights from the first ones, to the bit. They have to be logged at every
    update (`logs=updates`).

    **Arguments:**

    - `loss`: "likelihood", the loss of `SFT`; "errors", the share of tokens that are not the
      likeliest, which has no gradient.
    - `perturbation_scale`: ε.
    - `learning_rate`, `decay_updates`: η; it falls linearly to zero until then; with `None`
      until `train` or a sweep ends; elsewhere it is constant.
    - `weight_decay`: w, on all that is trained.

    **Reference:** Malladi, Gao, Nichani, Damian, Lee, Chen, Arora (2023), arXiv:2305.17333.

    **Differences from the paper:** the weights are perturbed afresh on either side, not in place
    three times, so that no rounding adds up; weight decay does not spare biases and norms.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "malladi2023fine",
        summary="fine-tuning by two forward passes along random directions",
        parents=("SFT",),
    )

    perturbation_scale: float = positive(1e-3)
    learning_rate: float = non_negative(1e-6)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    loss: Literal["likelihood", "errors"] = choice("likelihood")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> MeZOState:
        return MeZOState(problem.network, jnp.zeros((), jnp.int32))

    def update(self, state: MeZOState, data: Completions, *, key: PRNGKeyArray):
        trained, fixed = eqx.partition(state.network, state.network.trainable())
        response, seed = jnp.asarray(data.response), random_seed(key)

        def loss(trained):
            network = eqx.combine(trained, fixed)
            if self.loss == "likelihood":
                return -averaged(token_log_probabilities(network, data), response, "token")
            # The first token follows nothing, so that it cannot be guessed.
            guessed = response.at[..., 0].set(False)
            return averaged(per_token(network, data, _wrong), guessed, "token")

        along, value = slope(loss, trained, seed, self.perturbation_scale)
        end = jnp.inf if self.decay_updates is None else self.decay_updates
        rate = self.learning_rate * jnp.maximum(1.0 - state.step / end, 0.0)
        trained = descended(trained, seed, along, rate, self.weight_decay)
        state = MeZOState(eqx.combine(trained, fixed), state.step + 1)
        return state, {
            "loss": value,
            "seed": seed.astype(jnp.float32),
            "slope": along,
            "rate": rate,
        }

    def network(self, state: MeZOState) -> AbstractTokenNetwork:
        return state.network

    def replay(
        self,
        network: AbstractTokenNetwork,
        seeds: Float[Array, " update"],
        slopes: Float[Array, " update"],
        rates: Float[Array, " update"],
    ) -> AbstractTokenNetwork:
        """The network after updates of which these metrics were logged, from the first network."""
        trained, fixed = eqx.partition(network, network.trainable())
        trained = replayed(trained, seeds.astype(jnp.int32), slopes, rates, self.weight_decay)
        return eqx.combine(trained, fixed)


def _wrong(logits: Float[Array, "*batch position vocabulary"], data: Completions):
    """1 for each token that is not the likeliest after those before it."""
    guesses = jnp.argmax(logits[..., :-1, :], axis=-1)
    wrong = (guesses != jnp.asarray(data.tokens)[..., 1:]).astype(jnp.float32)
    return jnp.concatenate([jnp.zeros_like(wrong[..., :1]), wrong], axis=-1)
