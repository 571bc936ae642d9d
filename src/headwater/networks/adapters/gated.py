"""Adapters that a gate opens for some tokens, and linear maps that choose among several of them."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.tokens import AbstractTokenNetwork
from headwater.networks.decoders.blocks import AbstractLinear, Linear, Norm
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.experts import largest
from headwater.networks.low_rank_adapters import MATRICES, Adapted, AdaptedLinear

_STANDARDISE = Norm(None, None, 1e-5)
"""A layer norm without weights."""


class GatedLinear(AbstractLinear):
    r"""A linear map `W` with an adapter behind a gate $v$: `x W + σ(x·v) · scale · (x A) B`."""

    adapted: AdaptedLinear
    gate: Float[Array, "*layer fan_in"]

    def __call__(self, x: Float[Array, "*batch fan_in"]) -> Float[Array, "*batch fan_out"]:
        plain = self.adapted.inner(x)
        added = self.adapted(x) - plain
        opened = jax.nn.sigmoid(x.astype(jnp.float32) @ self.gate)[..., None]
        return plain + (opened * added.astype(jnp.float32)).astype(x.dtype)


class Gated(AbstractTokenNetwork):
    """A decoder with trained adapters, in front of each of which a gate learns.

    Gates begin at zero, where they let half of what an adapter adds pass.

    **Arguments:** `adapted`: the decoder with its adapters, which are frozen here; `gates`: one
    vector for each layer and adapted matrix, in the order of `MATRICES` (default: zeros).
    """

    adapted: Adapted
    gates: tuple[Float[Array, "layer fan_in"], ...]

    def __init__(self, adapted: Adapted, gates: Sequence[Array] | None = None):
        self.adapted = adapted
        if gates is None:
            gates = [jnp.zeros(linear.into.shape[:-1]) for linear in adapters_of(adapted).values()]
        self.gates = tuple(gates)

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.adapted.vocabulary

    @property
    def context(self) -> int:
        """Positions at most."""
        return self.adapted.context

    @property
    def gradient_accumulation(self) -> int:
        """Of the decoder."""
        return self.adapted.gradient_accumulation

    def logits(
        self, tokens: Int[Array, "*batch position"]
    ) -> Float[Array, "*batch position vocabulary"]:
        linears = {
            name: GatedLinear(linear, gate)
            for (name, linear), gate in zip(adapters_of(self.adapted).items(), self.gates)
        }
        return _with_linears(self.adapted.decoder, linears).logits(tokens)

    def trainable(self) -> PyTree[bool]:
        nothing = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda n: n.gates, nothing, tuple(True for _ in self.gates))


class RoutedLinear(AbstractLinear):
    r"""A linear map with several adapters, of which the likeliest few are added for each token.

    The score of adapter $e$ for a token $x$ is $\bar x\cdot\bar v_e/\sqrt d + p_e$, where
    $\bar x$ and $\bar v_e$ are standardised over their $d$ numbers. The adapters with the highest
    scores are weighted by the softmax of these.

    **Arguments:** `inner`: the frozen map; `into`, `out_of`: of each adapter, its scale in the
    latter; `gate`: $v_e$; `preference`: $p_e$, the same for all tokens; `active`: how many adapters
    are added; `standardised`: if false, tokens and gates are taken as they are.
    """

    inner: Linear
    into: Float[Array, "*layer expert fan_in rank"]
    out_of: Float[Array, "*layer expert rank fan_out"]
    gate: Float[Array, "*layer expert fan_in"]
    preference: Float[Array, "*layer expert"]
    active: int = eqx.field(static=True)
    standardised: bool = eqx.field(static=True, default=True)

    def __call__(self, x: Float[Array, "*batch fan_in"]) -> Float[Array, "*batch fan_out"]:
        flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
        inner = jnp.einsum("td,edr->ter", flat, self.into)
        added = jnp.einsum("ter,ero,te->to", inner, self.out_of, self.weights(flat))
        return self.inner(x) + added.reshape(*x.shape[:-1], -1).astype(x.dtype)

    def weights(self, x: Float[Array, "token fan_in"]) -> Float[Array, "token expert"]:
        """Of each adapter for each token, zero for those that are not added."""
        gate = self.gate
        if self.standardised:
            x, gate = _STANDARDISE(x), _STANDARDISE(gate)
        scores = x @ gate.T / x.shape[-1] ** 0.5
        scores = scores + jnp.broadcast_to(self.preference, scores.shape)
        chosen = largest(scores, self.active)
        return jax.nn.softmax(jnp.where(chosen, scores, -jnp.inf), axis=-1)


def routed(experts: Sequence[Gated], *, active: int = 2, standardised: bool = True) -> Decoder:
    """A decoder that chooses among the adapters of several experts for each token and matrix.

    **Arguments:** `experts`: trained apart from each other on one decoder, with adapters of one
    rank on the same matrices; `active`: how many are added for a token; `standardised`: see
    `RoutedLinear`. Raises `SpecificationError` where they have adapters on different matrices, and
    for more active experts than there are.
    """
    if not 1 <= active <= len(experts):
        raise SpecificationError(
            f"{active} of {len(experts)} experts cannot be active: take at least 1 and at most all"
        )
    found = [adapters_of(expert.adapted) for expert in experts]
    shapes = [{name: linear.into.shape for name, linear in each.items()} for each in found]
    if any(each != shapes[0] for each in shapes):
        raise SpecificationError(
            "these experts have adapters on different matrices, or of different ranks: train them "
            "alike"
        )

    def joined(index: int, name: str) -> RoutedLinear:
        linears = [each[name] for each in found]
        layers = linears[0].into.shape[0]
        return RoutedLinear(
            linears[0].inner,
            jnp.stack([linear.into for linear in linears], axis=1),
            jnp.stack([linear.scale * linear.out_of for linear in linears], axis=1),
            jnp.stack([expert.gates[index] for expert in experts], axis=1),
            jnp.zeros((layers, len(experts))),
            active,
            standardised,
        )

    linears = {name: joined(index, name) for index, name in enumerate(found[0])}
    return _with_linears(experts[0].adapted.decoder, linears)


def preferring(decoder: Decoder, preference: Float[Array, " expert"]) -> Decoder:
    """The routed decoder with this preference in every matrix, in place of those that it has."""

    def changed(part):
        if not isinstance(part, RoutedLinear):
            return part
        given = jnp.broadcast_to(preference, part.preference.shape)
        return eqx.tree_at(lambda p: p.preference, part, given)

    return jax.tree.map(changed, decoder, is_leaf=lambda part: isinstance(part, RoutedLinear))


def adapters_of(adapted: Adapted) -> dict[str, AdaptedLinear]:
    """The matrices that have adapters, by name, in the order of `MATRICES`."""
    linears = {name: getattr(adapted.decoder.blocks, name) for name in MATRICES}
    return {name: each for name, each in linears.items() if isinstance(each, AdaptedLinear)}


def _with_linears(decoder: Decoder, linears: dict) -> Decoder:
    """The decoder with other maps in place of the matrices of these names."""
    names = list(linears)
    place = lambda d: [getattr(d.blocks, name) for name in names]
    return eqx.tree_at(place, decoder, [linears[name] for name in names])
