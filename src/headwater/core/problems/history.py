"""Observations that hold a history: the last frames of an episode, oldest first.

A frame is what was observed, the action before it (one-hot if it is one of a finite set), and a one
that says that there is such a frame: those before the beginning of an episode are all zeros.
"""

import dataclasses
from typing import NamedTuple

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Part, Spaces

_PATH = ("history", "frames")


class Frames(NamedTuple):
    """How an observation is laid out: `length` frames of `size` numbers each."""

    length: int
    size: int


def frames_of(spaces: Spaces) -> Frames | None:
    """How observations are laid out if they hold a history, and otherwise `None`."""
    parts = spaces.observation.parts
    if parts is None or len(parts) != 1 or parts[0].path != _PATH:
        return None
    return Frames(*parts[0].shape)


def history_spaces(spaces: Spaces, length: int) -> Spaces:
    """The spaces of a task whose observations are the last `length` frames; no statistics.

    Raises `SpecificationError` unless `length` is at least 1, or if there is a history already.
    """
    if length < 1:
        raise SpecificationError(f"length = {length}: a history has at least one frame")
    held = frames_of(spaces)
    if held is not None:
        raise SpecificationError(
            f"these observations hold {held.length} frames already: give those without a history"
        )
    seen, actions = spaces.observation, spaces.action_size
    least = 0.0 if spaces.discrete else -1.0
    # Frames that there were not are zeros, which so lie within the bounds.
    low = (*(min(bound, 0.0) for bound in seen.low), *(least,) * actions, 0.0)
    high = (*(max(bound, 0.0) for bound in seen.high), *(1.0,) * actions, 1.0)
    box = Box(length * low, length * high, (Part(_PATH, (length, len(low))),))
    return dataclasses.replace(spaces, observation=box, statistics=None)
