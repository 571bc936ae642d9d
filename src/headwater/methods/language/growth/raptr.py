"""Random part training."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive, real
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractLayered, AbstractTokenNetwork, TokenProblem
from headwater.ops.language.accumulation import texts_in_parts
from headwater.ops.language.tokens import averaged, of_tokens
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class RaPTr(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Trains a random sub-network of a decoder at each update: some layers, in their order.

    The first and the last layer are always among them, the others are drawn uniformly; layers that
    are left out cost nothing. Stages with growing `path_length` and a last one with all layers
    (`progressive_stages`) train the whole decoder for less. With all layers this is `SFT`.

    **Arguments:**

    - `path_length`: layers in a sub-network; all of them if the decoder has no more.
    - `scale_power`: what a layer adds is multiplied by (layers / depth) to this power; 0 leaves it,
      1/2 keeps the variance of the sum.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Panigrahi, Saunshi, Lyu, Miryoosefi, Reddi, Kale, Kumar (2024), arXiv:2402.05913.

    **Differences from the paper:** how sub-networks are scaled is a setting; by default not at all.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "panigrahi2025efficient",
        summary="trains random sub-networks of growing depth, at the cost of their layers",
        parents=("SFT",),
    )

    path_length: int = integer(3)
    scale_power: float = real(0.0)
    learning_rate: float = non_negative(2e-3)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def __check_init__(self):
        if self.path_length < 2:
            raise SpecificationError(
                f"path_length = {self.path_length}: a sub-network has at least the first and "
                "the last layer"
            )

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        if not isinstance(problem.network, AbstractLayered):
            raise SpecificationError(
                f"RaPTr leaves out layers, which {type(problem.network).__name__} does not have"
            )
        return begin_tuning(problem.network, schedule_of(self), reference=False)

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        response = jnp.asarray(data.response)
        texts = Completions(jnp.asarray(data.tokens), response)
        assert isinstance(state.network, AbstractLayered)
        layers = state.network.layer_count
        scale = (layers / self.path_length) ** jnp.asarray(self.scale_power)
        path = None
        if self.path_length < layers:
            path = _path(layers, self.path_length, key)

        def loss(network: AbstractTokenNetwork):
            assert isinstance(network, AbstractLayered)

            def along(texts: Completions):
                if path is None:
                    return of_tokens(network.logits(texts.tokens), texts)
                return of_tokens(network.logits_along(texts.tokens, path, scale), texts)

            own = texts_in_parts(along, texts, network.gradient_accumulation)
            value = -averaged(own, response, "token")
            return value, {"loss": value, "tokens": jnp.sum(response).astype(jnp.float32)}

        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network


def _path(layers: int, depth: int, key: PRNGKeyArray) -> Int[Array, " depth"]:
    """The first, the last, and others between them drawn uniformly, in their order."""
    between = jax.random.permutation(key, layers - 2)[: depth - 2] + 1
    ends = jnp.asarray([0, layers - 1])
    return jnp.sort(jnp.concatenate([between, ends]))
