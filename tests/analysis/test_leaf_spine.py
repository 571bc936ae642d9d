"""Loads of links: by hand, against the bound of spraying, and where the guarantee ends."""

import numpy as np
import pytest

from headwater.analysis.leaf_spine import Flows, LeafSpine, link_loads
from headwater.core.errors import DataError, SpecificationError
from headwater.testing import check_analysis

NETWORK = LeafSpine(leaves=3, hosts=4, spines=4)


def between(first: int, second: int, count: int, size: float = 12.0) -> Flows:
    """So many flows from the hosts of one leaf to those of another."""
    hosts = np.arange(count) % NETWORK.hosts
    return Flows(4 * first + hosts, 4 * second + hosts, np.full(count, size))


@pytest.mark.parametrize(
    ("count", "parts"),
    # Six flows over four spines: four whole ones, and two in two parts each; three: in four each.
    [(1, 4), (2, 4), (3, 12), (4, 4), (5, 8), (6, 8), (7, 16), (8, 8)],
)
def test_every_spine_carries_the_same(count, parts):
    loads = link_loads(between(0, 2, count), NETWORK, routing="ethereal", seed=count)
    np.testing.assert_allclose(loads.up[0], 3.0 * count)
    np.testing.assert_allclose(loads.down[2], 3.0 * count)
    assert loads.up[1:].sum() == loads.down[:2].sum() == 0.0 and loads.parts == parts


def test_loads_by_hand():
    flows = Flows([0, 1, 5, 0], [4, 5, 4, 1], [8.0, 4.0, 2.0, 1.0])
    expected = (
        np.asarray([[3.0] * 4, [0.0] * 4, [0.0] * 4]),
        np.asarray([[0.0] * 4, [3.0] * 4, [0.0] * 4]),
        np.asarray([9.0, 4, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]),
        np.asarray([0.0, 1, 0, 0, 10, 4, 0, 0, 0, 0, 0, 0]),
        8,
    )
    arguments = {"flows": flows, "network": NETWORK, "routing": "spraying"}
    check_analysis(link_loads, arguments, expected)
    loads = link_loads(flows, NETWORK, routing="spraying")
    assert loads.largest == 3.0 and loads.completion == 10.0


def test_one_path_carries_as_much_as_spraying_where_sizes_are_equal():
    draw = np.random.default_rng(0)
    source = draw.integers(12, size=300)
    flows = Flows(source, (source + draw.integers(4, 9, size=300)) % 12, np.full(300, 5.0))
    sprayed = link_loads(flows, NETWORK, routing="spraying")
    for routing in ("ethereal", "ecmp"):
        loads = link_loads(flows, NETWORK, routing=routing)
        assert loads.up.sum() == pytest.approx(sprayed.up.sum())
        np.testing.assert_allclose(loads.sent, sprayed.sent)
        same = np.allclose(loads.up, sprayed.up) and np.allclose(loads.down, sprayed.down)
        assert same is (routing == "ethereal")
    assert loads.parts == np.sum(source // 4 != flows.destination // 4)
    unequal = flows._replace(size=draw.exponential(size=300))
    assert (
        link_loads(unequal, NETWORK).largest
        > 1.01 * link_loads(unequal, NETWORK, routing="spraying").largest
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"source": [0, 12]}, "flow 2: source 12 is not one of the hosts 0 … 11"),
        ({"destination": [-1, 2]}, "flow 1: destination -1 is not one of the hosts 0 … 11"),
        ({"size": [1.0, 0.0]}, "flow 2: size 0 is no positive number of bytes"),
        ({"size": [1.0]}, r"sizes have shape \(1,\) and type float64, but sources have shape \(2,"),
        ({"source": [0.5, 1.0]}, "sources have .* type float64"),
        ({"source": np.zeros(0, int), "destination": np.zeros(0, int), "size": []}, "is no flow"),
    ],
)
def test_flows_that_cannot_be_are_refused(changes, sentence):
    flows = Flows([0, 1], [4, 5], [1.0, 1.0])._replace(**changes)
    with pytest.raises(DataError, match=sentence):
        link_loads(flows, NETWORK)


def test_networks_that_cannot_be_are_refused():
    flows = between(0, 1, 1)
    with pytest.raises(SpecificationError, match="at least one leaf, host and spine"):
        link_loads(flows, NETWORK._replace(spines=0))
    with pytest.raises(SpecificationError, match="did you mean ecmp"):
        link_loads(flows, NETWORK, routing="ecpm")
