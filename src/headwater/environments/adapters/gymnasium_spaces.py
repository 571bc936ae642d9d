"""Gymnasium's spaces as flat float observations and canonical actions."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces, parts_of

LARGEST_OBSERVATION = 10_000
"""Components of a flat observation above which it is surely an image."""


@contextlib.contextmanager
def quiet_casts() -> Iterator[None]:
    """Silences what Gymnasium says of bounds given in double precision: nothing is lost."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered by casting.*")
        yield


def translate_spaces(observation: Any, action: Any, horizon: int | None, where: str) -> Spaces:
    """The spaces of a Gymnasium environment as Headwater sees them.

    **Arguments:** `observation`, `action`: of one copy; `horizon`: time limit in steps, if there is
    one; `where`: the environment's name, for messages.

    Raises `SpecificationError` for spaces that cannot be flattened or bounded.
    """
    return Spaces(_observation_box(observation, where), _action_space(action, where), horizon)


def flattener(space: Any) -> Callable[[Any], np.ndarray] | None:
    """What flattens one observation of `space`; `None` where it is a flat vector already."""
    import gymnasium

    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return None
    return lambda observation: np.asarray(gymnasium.spaces.flatten(space, observation))


def batch_flattener(space: Any, copies: int) -> Callable[[Any], np.ndarray]:
    """What turns a batch of `copies` observations of `space` into float32 `[copy, observation]`."""
    import gymnasium

    if isinstance(space, gymnasium.spaces.Box):
        return lambda batch: np.array(batch, np.float32).reshape(copies, -1)
    with quiet_casts():
        batch_space = gymnasium.vector.utils.batch_space(space, copies)

    def flatten(batch: Any) -> np.ndarray:
        rows = gymnasium.vector.utils.iterate(batch_space, batch)
        flat = [np.asarray(gymnasium.spaces.flatten(space, row)) for row in rows]
        return np.stack(flat).astype(np.float32)

    return flatten


class ActionTranslator:
    """Canonical actions of several copies, in the units of a Gymnasium action space."""

    def __init__(self, space: Any, where: str):
        import gymnasium

        _action_space(space, where)
        self.discrete = isinstance(space, gymnasium.spaces.Discrete)
        self.dtype = space.dtype
        self.where = where
        if self.discrete:
            self.start, self.count = int(space.start), int(space.n)
            self.shape: tuple[int, ...] = ()
        else:
            self.shape = space.shape
            self._low = space.low.reshape(-1)
            self._high = space.high.reshape(-1)
            self._half = 0.5 * (self._high - self._low)
            self._plain = bool(np.all(self._low == -1.0) and np.all(self._high == 1.0))

    def __call__(self, actions: np.ndarray) -> np.ndarray:
        """From `[copy, action]` in [-1, 1] (or integers `[copy]`) to `[copy, *shape]`."""
        if self.discrete:
            return actions + self.start
        given = np.maximum(actions, -1.0)
        given = np.minimum(given, 1.0, out=given)
        if not self._plain:
            # The second bound again, because the affine map rounds.
            given = np.clip(self._low + (given + 1.0) * self._half, self._low, self._high)
        given = given.astype(self.dtype, copy=False)
        return given if len(self.shape) == 1 else given.reshape(len(given), *self.shape)

    def empty(self, copies: int, steps: int) -> np.ndarray:
        """Room for `steps` translated actions of every copy."""
        return np.zeros((copies, steps, *self.shape), self.dtype)

    def check(self, actions: np.ndarray, copies: int) -> None:
        """Raises `SpecificationError` if canonical `actions` have the wrong shape or dtype."""
        size = int(np.prod(self.shape))
        expected = (copies,) if self.discrete else (copies, size)
        kind = np.integer if self.discrete else np.floating
        if actions.shape != expected or not np.issubdtype(actions.dtype, kind):
            raise SpecificationError(
                f"{self.where}: actions of shape {actions.shape} and type {actions.dtype} were "
                f"given where {kind.__name__} numbers of shape {expected} are needed"
            )


def check_finite(
    observation: np.ndarray, reward: np.ndarray | None, where: str, elapsed: np.ndarray | None
) -> None:
    """Raises `SpecificationError`, naming copy and step, if a simulator returned no number.

    **Arguments:** `observation`: `[copy, observation]`; `reward`: `[copy]`, or none after a reset;
    `where`: the environment's name; `elapsed`: steps of every copy's episode.
    """
    if np.isfinite(observation).all() and (reward is None or np.isfinite(reward).all()):
        return
    bad = ~np.isfinite(observation).all(axis=1)
    what = "observation"
    if reward is not None and not bad.any():
        bad, what = ~np.isfinite(reward), "reward"
    copy = int(np.flatnonzero(bad)[0])
    when = "after a reset" if elapsed is None else f"at step {int(elapsed[copy])} of its episode"
    raise SpecificationError(
        f"{where}: the simulator returned a {what} that is not finite {when} (copy {copy}): the "
        f"simulation became unstable or the environment has a fault; bound its actions or mend it"
    )


def _observation_box(space: Any, where: str) -> Box:
    import gymnasium

    unusable = SpecificationError(
        f"{where}: observations of type {type(space).__name__} cannot be flattened into a vector "
        f"of fixed size: wrap the environment so that it shows a Box, Dict or Tuple"
    )
    try:
        with quiet_casts():
            flat = gymnasium.spaces.flatten_space(space)
    except NotImplementedError:  # What Gymnasium raises for a space that has no flat form.
        raise unusable from None
    if not isinstance(flat, gymnasium.spaces.Box):
        raise unusable
    size = int(np.prod(flat.shape))
    if size > LARGEST_OBSERVATION:
        raise SpecificationError(
            f"{where}: observations have {size} components (at most {LARGEST_OBSERVATION} are "
            f"accepted): images are not supported, wrap the environment to show features"
        )
    low = np.asarray(flat.low, np.float32).reshape(-1)
    high = np.asarray(flat.high, np.float32).reshape(-1)
    return Box(tuple(low.tolist()), tuple(high.tolist()), parts_of(space))


def _action_space(space: Any, where: str) -> Box | Discrete:
    import gymnasium

    if isinstance(space, gymnasium.spaces.Discrete):
        return Discrete.of(range(int(space.start), int(space.start) + int(space.n)))
    if not isinstance(space, gymnasium.spaces.Box):
        raise SpecificationError(
            f"{where}: actions of type {type(space).__name__} are not supported: wrap the "
            f"environment so that it takes a Box with finite bounds or a Discrete"
        )
    if not np.issubdtype(space.dtype, np.floating):
        raise SpecificationError(
            f"{where}: actions are a Box of {space.dtype}: wrap the environment so that it takes "
            f"floating-point numbers or a Discrete"
        )
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise SpecificationError(
            f"{where}: actions have infinite bounds: wrap the environment with "
            f"gymnasium.wrappers.RescaleAction or give its action space finite ones"
        )
    return Box(tuple(low.astype(float).tolist()), tuple(high.astype(float).tolist()))
