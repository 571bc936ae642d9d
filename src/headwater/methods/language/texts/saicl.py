"""Learning to answer from demonstrations in the prompt that do not see each other."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.decoders.structured import StructuredDecoder
from headwater.ops.language.accumulation import texts_in_parts
from headwater.ops.language.tokens import averaged, of_tokens
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class SAICL(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Maximum likelihood of answers behind demonstrations that are read apart from each other.

    A prompt is demonstrations, each with `separator` at its end, and a query with `answer` at its
    end: with the defaults and bytes as tokens, lines of which the last ends with `>`. A
    demonstration sees itself and the query, and the query sees all of the prompt, so that what
    demonstrations have to do with each other goes through it. Positions begin anew in each, so that
    their order does not matter. What is learned is how to learn from demonstrations; what comes out
    is a `StructuredDecoder`, and its `decoder` read as a whole text is another model. Where the
    tokenizer begins texts with a token of its own, begin prompts with a separator, so that this
    token is in no demonstration.

    **Arguments:**

    - `separator`, `answer`: tokens that end a demonstration, and the query. A text without `answer`
      is read as the decoder reads it.
    - `demonstration_tokens`, `query_tokens`: in a demonstration, and in query and response
      together, at most. With both, texts that keep to them take time that grows with the number of
      demonstrations and not with its square; what is learned is the same.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Cai, Huang, Lee, Wang (2023), arXiv:2307.02690.

    **Differences from the paper:** one decoder reads the prompt and writes the response, where the
    paper has T5's encoder and decoder; rotary or learned positions and not relative biases, the
    query's behind those of the longest demonstration.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "cai2023scaling",
        summary="answers from demonstrations that do not see each other, in any order",
        parents=("SFT",),
    )

    separator: int = integer(10, low=0)
    answer: int = integer(62, low=0)
    demonstration_tokens: int | None = integer(None)
    query_tokens: int | None = integer(None)
    learning_rate: float = non_negative(2e-5)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        network = problem.network
        if isinstance(network, StructuredDecoder):
            network = network.decoder
        if not isinstance(network, Decoder):
            raise SpecificationError(
                f"SAICL changes what a decoder sees, and {type(network).__name__} is no decoder"
            )
        structured = StructuredDecoder(  # pyright: ignore[reportCallIssue]
            network,
            self.separator,
            self.answer,
            demonstration_tokens=self.demonstration_tokens,
            query_tokens=self.query_tokens,
        )
        return begin_tuning(structured, schedule_of(self), reference=False)

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        texts = Completions(jnp.asarray(data.tokens), jnp.asarray(data.response))

        def loss(network: AbstractTokenNetwork):
            def of_texts(texts: Completions):
                assert isinstance(network, StructuredDecoder)
                place = jnp.arange(1, texts.tokens.shape[-1] + 1)
                place = jnp.broadcast_to(place, texts.response.shape)
                length = jnp.max(jnp.where(texts.response, place, 1), axis=-1)
                return of_tokens(network.logits(texts.tokens, length), texts)

            own = texts_in_parts(of_texts, texts, network.gradient_accumulation)
            value = -averaged(own, texts.response, "token")
            return value, {"loss": value}

        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network
