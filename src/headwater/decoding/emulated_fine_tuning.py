"""Several token networks that write together."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.tokens import AbstractIncremental, AbstractTokenNetwork, Cache
from headwater.ops.language.generation import narrowed, reader_of
from headwater.ops.language.tokens import next_log_probabilities


class Combined(AbstractTokenNetwork, AbstractIncremental):
    r"""Weighted sums of several networks' log-probabilities, normalised anew for each token.

    **Arguments:** `networks`: of one vocabulary; `weights`: one for each, of any sign; `top_p`: if
    given, only the first network's likeliest tokens that hold this probability can come, so that
    differences between other networks, which are noise where a token is improbable, add nothing
    else. Raises `SpecificationError` if there are no networks, if their vocabularies differ or the
    weights are not as many.
    """

    networks: tuple[AbstractTokenNetwork, ...]
    weights: Float[Array, " network"]
    top_p: float | None = eqx.field(static=True)

    def __init__(
        self,
        networks: Sequence[AbstractTokenNetwork],
        weights: Float[Array, " network"],
        top_p: float | None = None,
    ):
        sizes = [network.vocabulary for network in networks]
        if not sizes or len(set(sizes)) > 1 or len(weights) != len(sizes):
            raise SpecificationError(
                "networks are combined if they have one vocabulary and a weight each: these have "
                f"{sizes} tokens and {len(weights)} weights"
            )
        self.networks, self.weights, self.top_p = tuple(networks), jnp.asarray(weights), top_p

    @property
    def vocabulary(self) -> int:
        """Of each network."""
        return self.networks[0].vocabulary

    @property
    def context(self) -> int:
        """The shortest of all."""
        return min(network.context for network in self.networks)

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        return self._together([network.logits(tokens) for network in self.networks])

    def trainable(self) -> PyTree[bool]:
        # It is put together of networks that have been trained.
        return jax.tree.map(lambda _: False, self)

    def read(
        self, tokens: Int[Array, "row position"], length: Int[Array, " row"], capacity: int
    ) -> tuple[Cache, Float[Array, "row vocabulary"]]:
        readings = [reader_of(each).read(tokens, length, capacity) for each in self.networks]
        caches, logits = zip(*readings)
        return caches, self._together(logits)

    def read_one(
        self, cache: Cache, token: Int[Array, " row"], position: Int[Array, " row"]
    ) -> tuple[Cache, Float[Array, "row vocabulary"]]:
        readings = [
            reader_of(each).read_one(own, token, position)
            for each, own in zip(self.networks, cache)
        ]
        caches, logits = zip(*readings)
        return caches, self._together(logits)

    def _together(self, logits: Sequence[Array]) -> Array:
        each = [next_log_probabilities(one) for one in logits]
        together = jnp.tensordot(self.weights, jnp.stack(each), 1)
        allowed = narrowed(each[0], None, self.top_p)
        return jnp.where(jnp.isfinite(allowed), together, -jnp.inf)


def emulated(
    base: AbstractTokenNetwork,
    tuned: AbstractTokenNetwork | Sequence[AbstractTokenNetwork],
    untuned: AbstractTokenNetwork,
    *,
    strengths: float | Sequence[float] = 1.0,
    top_p: float | None = None,
) -> Combined:
    r"""Emulated fine-tuning: `base` as if it had been fine-tuned like a network of another size.

    $\log p \propto \log p_{base} + \sum_i w_i (\log p_{tuned,i} - \log p_{untuned})$
    for each token. With a large `base` and small others fine-tuning is scaled up, with sizes
    exchanged down; several `tuned` networks are mixed when they write (Mitchell, Rafailov, Sharma,
    Finn, Manning, 2023, arXiv:2310.12962).

    **Arguments:** `base`; `tuned`: one network or several, each `untuned` after its training;
    `strengths`: of each; `top_p`: see `Combined`.
    """
    several = [tuned] if isinstance(tuned, AbstractTokenNetwork) else list(tuned)
    weights = [strengths] * len(several) if isinstance(strengths, int | float) else list(strengths)
    weights = jnp.asarray([1.0, *weights, -sum(weights)], jnp.float32)
    return Combined([base, *several, untuned], weights, top_p)
