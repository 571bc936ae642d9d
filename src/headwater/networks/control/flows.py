"""A network that reads flows: packets within their burst, then the bursts of the flow."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.problems.flow import FlowLayout, flow_layout
from headwater.core.spaces import Spaces
from headwater.networks.attention import NEVER, AttentionBlock, standardised
from headwater.networks.distributions import Categorical
from headwater.networks.mlp import MLP, Ensemble
from headwater.networks.normaliser import Normaliser

_REACH = 3.0
"""How far from the mean buckets are laid, in standard deviations; beyond lies the outermost."""
_SMALLEST_STD = 1e-3
_HIDDEN, _RANDOM = 0.8, 0.1
"""Shares of the chosen fields that are hidden, and shown at random; the rest is left as it is."""


class Corruption(NamedTuple):
    """Flows of which something was hidden.

    **Arguments:** `tokens`, `present`: what is shown; `chosen`: the fields that are to be told;
    `swapped`: of which flows one burst was exchanged for one of another flow.
    """

    tokens: Int[Array, "row burst packet field"]
    present: Bool[Array, "row burst packet"]
    chosen: Bool[Array, "row burst packet field"]
    swapped: Bool[Array, " row"]


class FlowEncoder(eqx.Module):
    """Features of a flow: a transformer over the packets of each burst, and one over the bursts.

    A packet is the sum of what is learned of the value of each of its fields, which is a token: its
    bucket among `num_buckets` between three deviations below the mean and above. Each burst has a
    token of its own. In a layer, this one and the packets of the burst look at each other, and then
    the tokens of the bursts do. An observation that is no flow is read as one packet.

    **Arguments:** `problem`; `size`: features that are kept, in [-1, 1]; `num_buckets`; `width`: of
    what is held of each token; `num_layers`, `num_heads`: of attention; `hierarchy`: if false, as
    many blocks in which all tokens of all bursts look at each other.

    Raises `SpecificationError` if `width` is no multiple of `num_heads`.
    """

    values: Float[Array, "token width"]
    packet_places: Float[Array, "packet width"]
    burst_places: Float[Array, "burst width"]
    summary: Float[Array, " width"]
    blocks: tuple[AttentionBlock, ...]
    attention: Float[Array, " width"]
    network: MLP
    layout: FlowLayout = eqx.field(static=True)
    is_flow: bool = eqx.field(static=True)
    num_buckets: int = eqx.field(static=True)
    hierarchy: bool = eqx.field(static=True)

    def __init__(
        self,
        problem: Spaces,
        size: int,
        *,
        num_buckets: int,
        width: int,
        num_layers: int,
        num_heads: int,
        hierarchy: bool,
        key: PRNGKeyArray,
    ):
        if width % num_heads:
            raise SpecificationError(
                f"width = {width} is no multiple of num_heads = {num_heads}: each head of a "
                "FlowEncoder has an equal part of it"
            )
        found = flow_layout(problem)
        self.layout = found or FlowLayout(1, 1, problem.observation_size + 1)
        self.is_flow, self.num_buckets, self.hierarchy = found is not None, num_buckets, hierarchy
        keys = jax.random.split(key, 6 + 2 * num_layers)
        fields = self.layout.fields
        shape = fields * (num_buckets + 1), width
        self.values = jax.random.normal(keys[0], shape) * fields**-0.5
        self.packet_places = 0.5 * jax.random.normal(keys[1], (self.layout.packets, width))
        self.burst_places = 0.5 * jax.random.normal(keys[2], (self.layout.bursts, width))
        self.summary = jax.random.normal(keys[3], (width,))
        self.attention = jax.random.normal(keys[4], (width,)) * width**-0.5
        self.network = MLP(width, size, (), key=keys[5])
        self.blocks = tuple(
            AttentionBlock(width, num_heads, activation="gelu", key=one) for one in keys[6:]
        )

    def tokens(
        self, observation: Float[Array, "*batch observation"]
    ) -> tuple[Int[Array, "*batch burst packet field"], Bool[Array, "*batch burst packet"]]:
        """The bucket of each field, and which packets there are, of standardised observations."""
        batch, layout = observation.shape[:-1], self.layout
        if self.is_flow:
            numbers = observation.reshape(*batch, *layout)
            fields, present = numbers[..., :-1], numbers[..., -1] > 0.5
        else:
            fields = observation.reshape(*batch, 1, 1, layout.fields)
            present = jnp.ones((*batch, 1, 1), bool)
        bucket = jnp.floor((fields + _REACH) / (2.0 * _REACH) * self.num_buckets)
        return jnp.clip(bucket, 0, self.num_buckets - 1).astype(jnp.int32), present

    def read(
        self,
        tokens: Int[Array, "*batch burst packet field"],
        present: Bool[Array, "*batch burst packet"],
    ) -> tuple[Float[Array, "*batch burst packet width"], Float[Array, "*batch burst width"]]:
        """What is held of each packet and of each burst; a token of `num_buckets` tells nothing."""
        code = jax.nn.one_hot(tokens, self.num_buckets + 1)
        packets = code.reshape(*code.shape[:-2], -1) @ self.values
        bursts = jnp.broadcast_to(
            self.burst_places + jnp.broadcast_to(self.summary, self.burst_places.shape),
            (*packets.shape[:-2], packets.shape[-1]),
        )
        packets = packets + jnp.broadcast_to(self.packet_places, packets.shape)
        packets = packets + jnp.broadcast_to(self.burst_places[:, None], packets.shape)
        there = jnp.any(present, axis=-1)
        x = jnp.concatenate([bursts[..., None, :], packets], axis=-2)
        seen = jnp.concatenate([there[..., None], present], axis=-1)
        if self.hierarchy:
            for within, among in zip(self.blocks[::2], self.blocks[1::2]):
                x = within(x, seen)
                x = jnp.concatenate([among(x[..., 0, :], there)[..., None, :], x[..., 1:, :]], -2)
        else:
            shape = x.shape
            x = x.reshape(*shape[:-3], -1, shape[-1])
            for block in self.blocks:
                x = block(x, seen.reshape(*shape[:-3], -1))
            x = x.reshape(shape)
        return x[..., 1:, :], x[..., 0, :]

    def pool(
        self,
        bursts: Float[Array, "*batch burst width"],
        present: Bool[Array, "*batch burst packet"],
    ) -> Float[Array, "*batch feature"]:
        """The features of flows, of what is held of those of their bursts that there are."""
        still = standardised(bursts)
        scores = jnp.where(jnp.any(present, axis=-1), still @ self.attention, NEVER)
        mixed = jnp.einsum("...b,...bw->...w", jax.nn.softmax(scores, axis=-1), still)
        return jnp.tanh(standardised(self.network(mixed)))

    def __call__(
        self, observation: Float[Array, "*batch observation"]
    ) -> Float[Array, "*batch feature"]:
        """The features of standardised observations."""
        tokens, present = self.tokens(observation)
        return self.pool(self.read(tokens, present)[1], present)


class FlowHeads(eqx.Module):
    """What tells something of a flow that was read.

    **Arguments:** `encoder`: that reads; `classes`, `tasks`: how many; `hidden_sizes`: of what
    tells the class.
    """

    values: MLP
    swapped: MLP
    classes: Ensemble

    def __init__(
        self,
        encoder: FlowEncoder,
        classes: int,
        tasks: int,
        hidden_sizes: tuple[int, ...],
        *,
        key: PRNGKeyArray,
    ):
        values_key, swapped_key, classes_key = jax.random.split(key, 3)
        width, size = encoder.network.weights[-1].shape
        self.values = MLP(width, encoder.layout.fields * encoder.num_buckets, (), key=values_key)
        self.swapped = MLP(size, 1, (), key=swapped_key)
        build = lambda key: MLP(size, classes, hidden_sizes, key=key)
        self.classes = Ensemble(build, tasks, key=classes_key)

    def mask_loss(
        self,
        packets: Float[Array, "row burst packet width"],
        tokens: Int[Array, "row burst packet field"],
        chosen: Bool[Array, "row burst packet field"],
    ) -> Float[Array, ""]:
        """Minus the mean log-probability of the chosen tokens, given what is held of packets."""
        logits = self.values(packets).reshape(*tokens.shape, -1)
        likely, counted = Categorical(logits).log_density(tokens), chosen.astype(jnp.float32)
        return -jnp.sum(likely * counted) / jnp.maximum(jnp.sum(counted), 1.0)

    def swap_loss(
        self, features: Float[Array, "row feature"], swapped: Bool[Array, " row"]
    ) -> Float[Array, ""]:
        """Minus the mean log-probability that a burst was exchanged, or that none was."""
        odds = self.swapped(features)[:, 0]
        return jnp.mean(optax.sigmoid_binary_cross_entropy(odds, swapped.astype(jnp.float32)))

    def logits(
        self, features: Float[Array, "*batch feature"], task: Int[Array, ""]
    ) -> Float[Array, "*batch choice"]:
        """Of the classes of one task."""
        every = self.classes(features)
        # A sum instead of an index, which every format of export can hold.
        return jnp.einsum("t,t...->...", jax.nn.one_hot(task, len(every)), every)


def packet_normaliser(problem: Spaces, enabled: bool) -> Normaliser:
    """Standardises each field alike in all packets, by those packets that there are.

    Where observations hold no flow, it is the usual `Normaliser`.
    """
    usual, layout, known = Normaliser(problem, enabled), flow_layout(problem), problem.statistics
    if layout is None or known is None or not enabled:
        return usual
    mean, std = (
        jnp.asarray(x).reshape(-1, layout.numbers)
        for x in (known.observation_mean, known.observation_std)
    )
    # Packets that are not there are zeros, which add nothing to sums.
    packets = jnp.maximum(jnp.sum(mean[:, -1]), 1e-6)
    first = jnp.sum(mean, axis=0) / packets
    second = jnp.sum(std**2 + mean**2, axis=0) / packets
    spread = jnp.sqrt(jnp.maximum(second - first**2, 0.0)) + _SMALLEST_STD
    # What says that a packet is there stays as it is.
    first, spread = first.at[-1].set(0.0), spread.at[-1].set(1.0)
    shape = (layout.bursts * layout.packets, layout.numbers)
    flat = (jnp.broadcast_to(x, shape).reshape(-1) for x in (first, spread))
    return eqx.tree_at(lambda n: (n.mean, n.std), usual, tuple(flat))


def corrupted(
    tokens: Int[Array, "row burst packet field"],
    present: Bool[Array, "row burst packet"],
    num_buckets: int,
    *,
    mask_share: float | Array,
    swap_share: float | Array,
    key: PRNGKeyArray,
) -> Corruption:
    """Flows of which fields are hidden, and in some of which a burst is that of another flow.

    Of the chosen fields eight in ten are hidden (a token of `num_buckets`), one is shown at random
    and one as it is. Nothing of an exchanged burst is chosen.

    **Arguments:** `mask_share`: of the fields that are chosen; `swap_share`: of the flows in which
    a burst is exchanged.
    """
    keys = jax.random.split(key, 7)
    rows, shape = len(tokens), tokens.shape
    there = jnp.any(present, axis=-1)

    def any_of(key: PRNGKeyArray) -> Int[Array, " row"]:
        return jnp.argmax(jnp.where(there, jax.random.uniform(key, there.shape), -1.0), axis=-1)

    other = (jnp.arange(rows) + jax.random.randint(keys[0], (), 1, max(rows, 2))) % rows
    burst = any_of(keys[1])[other]
    swapped = jax.random.uniform(keys[2], (rows,)) < swap_share
    at = jax.nn.one_hot(any_of(keys[3]), shape[1]) > 0.0
    here = at & jnp.broadcast_to(swapped[:, None], at.shape)
    within = jnp.broadcast_to(here[..., None], present.shape)
    packets = jnp.where(
        within, jnp.broadcast_to(present[other, burst][:, None], present.shape), present
    )
    inside = jnp.broadcast_to(within[..., None], shape)
    mixed = jnp.where(inside, jnp.broadcast_to(tokens[other, burst][:, None], shape), tokens)
    chosen = jax.random.uniform(keys[4], shape) < mask_share
    chosen = chosen & ~inside & jnp.broadcast_to(packets[..., None], shape)
    luck = jax.random.uniform(keys[5], shape)
    anything = jax.random.randint(keys[6], shape, 0, num_buckets)
    shown = jnp.where(luck < _HIDDEN, num_buckets, anything)
    shown = jnp.where(chosen & (luck < _HIDDEN + _RANDOM), shown, mixed)
    return Corruption(shown, packets, chosen, swapped)
