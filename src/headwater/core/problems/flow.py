"""Observations that hold a flow: packets in bursts, each packet with the same fields.

A packet is its fields and a one that says that there is such a packet: what is behind the end of a
burst or of the flow is all zeros.
"""

import dataclasses
from typing import NamedTuple

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Part, Spaces

_PATH = ("flow", "packets")


class FlowLayout(NamedTuple):
    """How a flow is laid out: `bursts` of `packets` packets of `numbers` numbers each."""

    bursts: int
    packets: int
    numbers: int

    @property
    def fields(self) -> int:
        """Fields of a packet."""
        return self.numbers - 1


def flow_layout(spaces: Spaces) -> FlowLayout | None:
    """How observations are laid out if they hold a flow, and otherwise `None`."""
    parts = spaces.observation.parts
    if parts is None or len(parts) != 1 or parts[0].path != _PATH:
        return None
    return FlowLayout(*parts[0].shape)


def flow_spaces(spaces: Spaces, bursts: int, packets: int) -> Spaces:
    """The spaces of a task that shows whole flows of what `spaces` shows a packet of.

    There are no statistics, and an episode is one flow.

    Raises `SpecificationError` unless there is room for a burst and a packet in it, or if
    observations hold flows already.
    """
    if bursts < 1 or packets < 1:
        raise SpecificationError(
            f"bursts = {bursts}, packets = {packets}: a flow has room for at least one of each"
        )
    if flow_layout(spaces) is not None:
        raise SpecificationError("these observations hold flows already: give those of packets")
    seen = spaces.observation
    # Packets that there were not are zeros, which so lie within the bounds.
    low = (*(min(bound, 0.0) for bound in seen.low), 0.0)
    high = (*(max(bound, 0.0) for bound in seen.high), 1.0)
    parts = (Part(_PATH, (bursts, packets, len(low))),)
    box = Box(bursts * packets * low, bursts * packets * high, parts)
    return dataclasses.replace(spaces, observation=box, horizon=1, statistics=None)
