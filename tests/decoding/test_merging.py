"""The algebra of merges, number by number: scale and sign of each against its definition."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.decoding.merging import (
    grafted,
    largest_changes,
    with_adapters_of,
    with_changes,
    with_elected_changes,
)
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.low_rank_adapters import Adapted, Matrix
from headwater.networks.token_table import PrefixTable

BASE, FIRST, SECOND = (PrefixTable(3, 3, key=jax.random.key(i)) for i in range(3))


def numbers(network) -> np.ndarray:
    return np.asarray(network.table, np.float64)


def test_changes_are_added_with_their_weights_and_signs():
    base, first, second = map(numbers, (BASE, FIRST, SECOND))
    for weights in ((1.0, 0.0), (0.5, 0.5), (-1.0, 0.3), (2.0, 2.0)):
        expected = base + weights[0] * (first - base) + weights[1] * (second - base)
        found = numbers(with_changes(BASE, (FIRST, SECOND), weights))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # What is added is taken away again by the same weight with the other sign.
    there = with_changes(BASE, (FIRST,), (0.7,))
    moved = with_changes(BASE, (there,), (-1.0,))
    np.testing.assert_allclose(numbers(moved), base - 0.7 * (first - base), atol=1e-5)


def test_signs_are_elected_by_hand():
    base = PrefixTable(2, 1)
    network = lambda *table: eqx.tree_at(lambda n: n.table, base, jnp.asarray(table))
    first = network([4.0, -3.0], [0.1, 2.0])
    second = network([-1.0, -5.0], [2.0, 0.1])
    # The largest halves: 4 and -3, and -5 and 2.
    found = with_elected_changes(base, (first, second), share=0.5, weight=2.0)
    np.testing.assert_allclose(found.table, [[8.0, -8.0], [4.0, 0.0]])
    # Everything: 4 beats -1, -3 and -5 agree, and so do small and large ones.
    found = with_elected_changes(base, (first, second), share=1.0)
    np.testing.assert_allclose(found.table, [[4.0, -4.0], [1.05, 1.05]])


def test_a_graft_has_the_numbers_of_the_tuned_network_where_it_is_told():
    mask = largest_changes(BASE, FIRST, 0.1)
    sizes = np.abs(numbers(FIRST) - numbers(BASE))
    expected = sizes >= np.sort(sizes.ravel())[-12]
    assert sizes.size == 117 and expected.sum() == 12
    np.testing.assert_array_equal(mask.table, expected)
    found = numbers(grafted(BASE, FIRST, mask))
    np.testing.assert_array_equal(found, np.where(expected, numbers(FIRST), numbers(BASE)))


def test_adapters_are_added_exactly_whatever_their_scales_and_signs(key):
    decoder = Decoder(Architecture(7, 8, 8, 2, 2, hidden=8), key=key, deviation=0.3)
    matrices: tuple[Matrix, ...] = ("query", "down")
    made = []
    for i, (rank, alpha) in enumerate(((1, 3.0), (2, 1.0))):
        adapted = Adapted(decoder, key=jax.random.key(i), rank=rank, alpha=alpha, matrices=matrices)
        # Second halves begin at zero, where every merge would be right.
        place = lambda n: (n.decoder.blocks.query.out_of, n.decoder.blocks.down.out_of)
        drawn = [jax.random.normal(jax.random.key(9 + i), x.shape) for x in place(adapted)]
        made.append(eqx.tree_at(place, adapted, tuple(drawn)))
    weights = (0.5, -2.0)
    merged = with_adapters_of(made, weights).merged()
    for name in ("query", "down", "key"):
        at = lambda d, name=name: np.asarray(getattr(d.blocks, name).weight, np.float64)
        changes = [at(n.merged()) - at(decoder) for n in made]
        expected = at(decoder) + weights[0] * changes[0] + weights[1] * changes[1]
        np.testing.assert_allclose(at(merged), expected, atol=1e-5)
    # The last matrix has no adapter.
    assert np.abs(changes[0]).max() == 0.0
    with pytest.raises(SpecificationError, match="adapters on different matrices"):
        with_adapters_of([made[0], Adapted(decoder, key=key, matrices=("key",))], weights)


def test_weights_that_are_missing_are_named():
    with pytest.raises(SpecificationError, match="2 networks and 1 weights"):
        with_changes(BASE, (FIRST, SECOND), (1.0,))
    with pytest.raises(SpecificationError, match="share = 0"):
        with_elected_changes(BASE, (FIRST,), share=0.0)
