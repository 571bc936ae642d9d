"""Experts that are drawn at random and taught to agree."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.decoders.changes import with_one_expert
from headwater.networks.decoders.decoder import Decoder
from headwater.ops.language.accumulation import texts_in_parts
from headwater.ops.language.tokens import (
    averaged,
    next_log_probabilities,
    of_tokens,
    preceding,
)
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune
from headwater.parts.language.experts import decoder_of, expert_decoder


class THOR(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Maximum likelihood with experts that are drawn at random, and taught to agree.

    Each update reads the batch twice; for each time one expert of every layer is drawn, for the
    whole batch. $L = L_1 + L_2 + \alpha\,\tfrac12(KL(p_1\|p_2) + KL(p_2\|p_1))$, averaged over
    tokens of responses. Routers are not read.

    What is learned is used with one expert of each layer, drawn once (`drawn_experts`) or anew for
    each text: any is meant to do as well. `network` takes the first ones.

    **Arguments:**

    - `num_experts`: copies made of every feed-forward part where the decoder has no experts.
    - `consistency_weight`: α, of the disagreement; the authors' script for translation has 5.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Zuo, Liu, Jiao, Kim, Hassan, Zhang, Zhao, Gao (2022), arXiv:2110.04260.

    **Differences from the paper:** a decoder and not an encoder with a decoder; every layer has
    experts, where the authors' code has them in every second one.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "zuo2022taming",
        summary="experts drawn at random and taught to agree, without a router",
        parents=("SFT",),
    )

    num_experts: int = integer(2)
    consistency_weight: float = non_negative(5.0)
    learning_rate: float = non_negative(2e-5)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        network = expert_decoder(problem, "THOR", self.num_experts, key=key)
        return begin_tuning(network, schedule_of(self), reference=False)

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        response = jnp.asarray(data.response)
        texts = Completions(jnp.asarray(data.tokens), response)
        keys = jax.random.split(key)

        def loss(network: AbstractTokenNetwork):
            drawn = [drawn_experts(decoder_of(network), key=key) for key in keys]

            def read(texts: Completions):
                logits = [decoder.logits(texts.tokens) for decoder in drawn]
                first, second = (next_log_probabilities(each) for each in logits)
                own = jnp.stack([of_tokens(each, texts) for each in logits], axis=-1)
                return own, _disagreement(first, second)

            own, apart = texts_in_parts(read, texts, network.gradient_accumulation)
            first, second = (-averaged(own[..., i], response, "token") for i in range(2))
            apart = averaged(apart, response, "token")
            value = 0.5 * (first + second)
            metrics = {"loss": value, "disagreement": apart}
            return 2.0 * value + self.consistency_weight * apart, metrics

        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        network = decoder_of(state.network)
        return with_one_expert(network, jnp.zeros(network.layer_count, jnp.int32))


def drawn_experts(decoder: Decoder, *, key: PRNGKeyArray) -> Decoder:
    """The decoder of one expert of each layer, drawn uniformly."""
    a = decoder.architecture
    return with_one_expert(decoder, jax.random.randint(key, (a.layers,), 0, a.experts))


def _disagreement(
    first: Float[Array, "*batch position vocabulary"],
    second: Float[Array, "*batch position vocabulary"],
) -> Float[Array, "*batch position"]:
    """Half of the sum of both divergences, at the token that each prediction is of."""
    difference = (jnp.exp(first) - jnp.exp(second)) * (first - second)
    return preceding(0.5 * jnp.sum(difference, axis=-1))
