"""Loads of the links of a leaf–spine network, by how flows are spread over its spines."""

from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from headwater.analysis.registry import analysis
from headwater.core.errors import DataError, SpecificationError
from headwater.core.fields import check_choice

Routing = Literal["spraying", "ecmp", "ethereal"]
"""Packets over all spines alike; each flow over a random spine; whole flows over spines in turn and
those that are left over in equal parts."""


class LeafSpine(NamedTuple):
    """A network in which every leaf is joined to every spine, by links of one capacity.

    **Arguments:** `leaves`, `hosts`: of each leaf, numbered from 0 on, leaf after leaf; `spines`.
    """

    leaves: int
    hosts: int
    spines: int


class Flows(NamedTuple):
    """What begins to be sent at the same time: hosts `[flow]`, and bytes `[flow]`."""

    source: Any
    destination: Any
    size: Any


class Loads(NamedTuple):
    """Bytes on each link.

    **Arguments:** `up`, `down`: from leaves to spines and back `[leaf, spine]`; `sent`, `received`:
    by hosts `[host]`; `parts`: into how many flows the flows between leaves were split in all.
    """

    up: Float[np.ndarray, "leaf spine"]
    down: Float[np.ndarray, "leaf spine"]
    sent: Float[np.ndarray, " host"]
    received: Float[np.ndarray, " host"]
    parts: int

    @property
    def largest(self) -> float:
        """Bytes on the busiest link between a leaf and a spine."""
        return float(max(self.up.max(), self.down.max()))

    @property
    def completion(self) -> float:
        """Bytes on the busiest link of all: the time until all is sent, over a link's capacity.

        Nothing is faster; where flows share links fairly some routings are slower.
        """
        return max(self.largest, float(self.sent.max()), float(self.received.max()))


@analysis(paper="addanki2024challenging")
def link_loads(
    flows: Flows, network: LeafSpine, *, routing: str = "ethereal", seed: int = 0
) -> Loads:
    """What every link has to carry.

    `ethereal` gives, among the n flows of one leaf to another, a multiple of the s spines to the
    spines in turn, and splits each of the m that are left over into s / gcd(m, s) parts, so that
    all spines get the same number: where flows are of one size, no link carries more than with
    `spraying`. The order of the spines is random for each pair of leaves.

    **Arguments:** `flows`; `network`; `routing`: one of `Routing`; `seed`: of what is random.

    Raises `SpecificationError` for a network without links or an unknown routing, `DataError` for
    flows of hosts that there are not or of sizes that cannot be.
    """
    check_choice(routing, Routing, "routing")
    if min(network) < 1:
        raise SpecificationError(f"{network}: at least one leaf, host and spine are needed")
    source, destination, size = _checked(flows, network)
    spread = _spread(source // network.hosts, destination // network.hosts, network, routing, seed)
    carried = spread * size[:, None]
    up, down = np.zeros((2, network.leaves, network.spines))
    np.add.at(up, source // network.hosts, carried)
    np.add.at(down, destination // network.hosts, carried)
    count = network.leaves * network.hosts
    sent, received = (np.bincount(at, size, minlength=count) for at in (source, destination))
    return Loads(up, down, sent, received, int((spread > 0.0).sum()))


def _checked(flows: Flows, network: LeafSpine) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    source, destination, size = (np.asarray(column) for column in flows)
    count = network.leaves * network.hosts
    for name, column, kinds in (
        ("sources", source, "iu"),
        ("destinations", destination, "iu"),
        ("sizes", size, "iuf"),
    ):
        if column.shape != source.shape or column.ndim != 1 or column.dtype.kind not in kinds:
            raise DataError(
                f"{name} have shape {column.shape} and type {column.dtype}, but sources have shape "
                f"{source.shape}: one number for each flow is needed, and a whole one for a host"
            )
    if not len(source):
        raise DataError("there is no flow")
    for name, wrong, reason in (
        ("source", (source < 0) | (source >= count), f"is not one of the hosts 0 … {count - 1}"),
        (
            "destination",
            (destination < 0) | (destination >= count),
            f"is not one of the hosts 0 … {count - 1}",
        ),
        ("size", ~np.isfinite(size) | (size <= 0), "is no positive number of bytes"),
    ):
        if wrong.any():
            at = int(np.argmax(wrong))
            value = {"source": source, "destination": destination, "size": size}[name][at]
            raise DataError(f"flow {at + 1}: {name} {value:g} {reason}")
    return source, destination, size.astype(np.float64)


def _spread(
    source: np.ndarray, destination: np.ndarray, network: LeafSpine, routing: str, seed: int
) -> Float[np.ndarray, "flow spine"]:
    """Which share of each flow goes over which spine: none of what stays within a leaf."""
    random, spines = np.random.default_rng(seed), network.spines
    crosses = (source != destination)[:, None]
    if routing == "spraying":
        return crosses * np.full((len(source), spines), 1.0 / spines)
    if routing == "ecmp":
        return crosses * np.eye(spines)[random.integers(spines, size=len(source))]
    pair = source * network.leaves + destination
    pairs, which, counts = np.unique(pair, return_inverse=True, return_counts=True)
    # Its place among the flows of its pair of leaves.
    order = np.argsort(pair, kind="stable")
    starts = np.cumsum(counts) - counts
    place = np.empty(len(pair), int)
    place[order] = np.arange(len(pair)) - starts[which[order]]
    left = counts[which] % spines
    over = place - (counts[which] - left)
    parts = np.where(over < 0, 1, spines // np.gcd(np.maximum(left, 1), spines))
    first = np.where(over < 0, place, over * parts)
    in_turn = (np.arange(spines)[None] - first[:, None]) % spines < parts[:, None]
    orders = random.permuted(np.tile(np.arange(spines), (len(pairs), 1)), axis=1)
    shares = np.take_along_axis(in_turn / parts[:, None], orders[which], axis=1)
    return crosses * shares
