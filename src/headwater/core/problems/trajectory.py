"""Observations that hold the last steps of a trajectory, with the return so far in each of them.

They are histories (`core/problems/history.py`) of observations whose last number is the sum of the
rewards that the episode has brought before. So what a return that was asked for leaves to be
reached is known at every step of the window, from the observation alone.
"""

import dataclasses

from headwater.core.errors import SpecificationError
from headwater.core.problems.history import Frames, history_spaces
from headwater.core.spaces import Box, Part, Spaces

_PATH = ("trajectory", "steps")


def steps_of(spaces: Spaces) -> Frames | None:
    """How observations are laid out if they hold a trajectory, and otherwise `None`."""
    parts = spaces.observation.parts
    if parts is None or len(parts) != 1 or parts[0].path != _PATH:
        return None
    return Frames(*parts[0].shape)


def return_spaces(spaces: Spaces) -> Spaces:
    """The spaces of a task whose observations end with the return so far; no statistics."""
    seen = spaces.observation
    box = Box((*seen.low, -float("inf")), (*seen.high, float("inf")))
    return dataclasses.replace(spaces, observation=box, statistics=None)


def trajectory_spaces(spaces: Spaces, length: int) -> Spaces:
    """The spaces of a task whose observations are the last `length` steps; no statistics.

    Raises `SpecificationError` unless `length` is at least 1, or if there is a history already.
    """
    held = steps_of(spaces)
    if held is not None:
        raise SpecificationError(
            f"these observations hold {held.length} steps already: give those without"
        )
    history_spaces(spaces, length)
    made = history_spaces(return_spaces(spaces), length)
    return dataclasses.replace(made, observation=as_trajectory(made.observation))


def as_trajectory(box: Box) -> Box:
    """The space of a history whose observations end with the return so far, as one of a trajectory.

    **Arguments:** `box`: as `history_spaces` makes it.
    """
    assert box.parts is not None
    return dataclasses.replace(box, parts=(Part(_PATH, box.parts[0].shape),))
