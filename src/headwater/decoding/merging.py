"""Networks made of others that began as the same one, number by number.

All networks have one form: the same layers, widths and precision. What training never changes
(`trainable`) is that of the network they began as.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.tokens import AbstractTokenNetwork
from headwater.networks.low_rank_adapters import Adapted, AdaptedLinear

Network = TypeVar("Network", bound=AbstractTokenNetwork)


def with_changes(base: Network, networks: Sequence[Network], weights: Sequence[float]) -> Network:
    r"""Task arithmetic (Ilharco et al., 2023, arXiv:2212.04089): $\theta_0 + \sum_i w_i\Delta_i$.

    $\Delta_i$ is what training changed in the network $i$. A negative weight takes a skill away;
    weights that add up to one are an average of the networks. Raises `SpecificationError` if there
    is not one weight for each network.
    """
    _one_weight_each(networks, weights)
    return _made(base, networks, lambda changes: sum(w * d for w, d in zip(weights, changes)))


def with_elected_changes(
    base: Network, networks: Sequence[Network], *, share: float = 0.2, weight: float = 1.0
) -> Network:
    r"""TIES (Yadav et al., 2023, arXiv:2306.01708): changes that disagree in sign do not cancel.

    Of each network the `share` of changes that are largest is kept, over all arrays together; for
    each number the sign is elected that the sum of what was kept has, and what was kept with that
    sign is averaged. That, `weight` times, is added. Raises `SpecificationError` for a share that
    is none.
    """
    if not 0.0 < share <= 1.0:
        raise SpecificationError(f"share = {share:g}: take more than 0 and at most 1")
    masks = [largest_changes(base, network, share) for network in networks]
    trimmed = [grafted(base, network, mask) for network, mask in zip(networks, masks)]

    def elected(changes: Sequence[Array]) -> Array:
        stacked = jnp.stack(changes)
        sign = jnp.sign(jnp.sum(stacked, axis=0))
        agrees = (jnp.sign(stacked) == sign[None]) & (stacked != 0.0)
        count = jnp.maximum(jnp.sum(agrees, axis=0), 1)
        return weight * jnp.sum(jnp.where(agrees, stacked, 0.0), axis=0) / count

    return _made(base, trimmed, elected)


def grafted(base: Network, tuned: Network, mask: PyTree[Bool[Array, "..."]]) -> Network:
    """`base` with the numbers of `tuned` where `mask` is true.

    **Arguments:** `mask`: of the form of the network's trainable arrays, as `largest_changes`
    returns it.
    """
    numbers, fixed = eqx.partition(base, base.trainable())
    others = eqx.filter(tuned, base.trainable())
    chosen = jax.tree.map(lambda m, old, new: jnp.where(m, new, old), mask, numbers, others)
    return eqx.combine(chosen, fixed)


def largest_changes(base: Network, tuned: Network, share: float) -> PyTree[Bool[Array, "..."]]:
    """Where training changed numbers most: so large a share of all, rounded up, ties included."""
    numbers = eqx.filter(base, base.trainable())
    others = eqx.filter(tuned, base.trainable())
    sizes = jax.tree.map(lambda old, new: jnp.abs(_float(new) - _float(old)), numbers, others)
    return largest(sizes, share)


def largest(scores: PyTree[Float[Array, "..."]], share: float) -> PyTree[Bool[Array, "..."]]:
    """Where the scores of all arrays together are largest: so large a share, rounded up.

    Scores that are equal to the least of them are all among them.
    """
    flat = jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(scores)])
    count = min(max(math.ceil(share * flat.size), 1), flat.size)
    least = jnp.sort(flat)[flat.size - count]
    return jax.tree.map(lambda x: x >= least, scores)


def with_adapters_of(networks: Sequence[Adapted], weights: Sequence[float]) -> Adapted:
    r"""One network with adapters that add $\sum_i w_i s_i A_i B_i$ to each matrix, exactly.

    The ranks add up. Averages of the $A_i$ and of the $B_i$ would not do it: their product has
    terms of two adapters, and loses the sign of negative weights.

    **Arguments:** `networks`: with adapters on the same matrices of one decoder; `weights`: of
    each. Raises `SpecificationError` if there is not one weight for each network, or where they
    have adapters on different matrices.
    """
    _one_weight_each(networks, weights)
    first = networks[0]
    parts = [jax.tree.leaves(n, is_leaf=_is_adapted) for n in networks]
    places = [[i for i, part in enumerate(each) if _is_adapted(part)] for each in parts]
    if any(place != places[0] or len(each) != len(parts[0]) for place, each in zip(places, parts)):
        raise SpecificationError(
            "these networks have adapters on different matrices: merge each into its decoder first"
        )

    def joined(i: int) -> AdaptedLinear:
        linears = [each[i] for each in parts]
        into = jnp.concatenate([linear.into for linear in linears], axis=-1)
        scaled = [w * linear.scale * linear.out_of for w, linear in zip(weights, linears)]
        return AdaptedLinear(linears[0].inner, into, jnp.concatenate(scaled, axis=-2), 1.0)

    leaves = [joined(i) if i in places[0] else part for i, part in enumerate(parts[0])]
    structure = jax.tree.structure(first, is_leaf=_is_adapted)
    return jax.tree.unflatten(structure, leaves)


def _is_adapted(part: object) -> bool:
    return isinstance(part, AdaptedLinear)


def _one_weight_each(networks: Sequence, weights: Sequence[float]) -> None:
    if not networks or len(networks) != len(weights):
        raise SpecificationError(
            f"{len(networks)} networks and {len(weights)} weights: give one weight for each of at "
            "least one network"
        )


def _float(x: Array) -> Array:
    return jnp.asarray(x, jnp.float32)


def _made(base: Network, networks: Sequence[Network], change) -> Network:
    """`base` and, in every trainable array, what `change` makes of the networks' changes."""
    numbers, fixed = eqx.partition(base, base.trainable())
    others = [eqx.filter(network, base.trainable()) for network in networks]
    moved = jax.tree.map(
        lambda old, *new: (_float(old) + change([_float(x) - _float(old) for x in new])).astype(
            old.dtype
        ),
        numbers,
        *others,
    )
    return eqx.combine(moved, fixed)
