"""Electric drives of gym-electric-motor, with the wrapper that its users write."""

import functools
import types
from typing import Any

import equinox as eqx
import numpy as np

from headwater.core.errors import SpecificationError, nearest
from headwater.core.spaces import Spaces
from headwater.environments.adapters.gymnasium_spaces import translate_spaces
from headwater.environments.adapters.gymnasium_task import (
    GymnasiumEnvironments,
    make_simulator,
    time_limit,
    wrapped_limit,
)
from headwater.environments.environment import AbstractHostTask

_MODULE = "gym_electric_motor"
_STEPS = 1_000
"""Time limit unless told: the package has none, so that episodes might never end."""


class GymElectricMotorTask(AbstractHostTask):
    """A drive of gym-electric-motor (Balakrishna et al. 2021), the extra `headwater[motor]`.

    **Arguments:** `id`: such as `Cont-CC-PermExDc-v0`; `options`: keyword arguments of its `make`
    as sorted pairs, and besides `dead_time`: how many periods late actions are applied (0 unless
    told); `last_action`: whether observations end with it (true unless told; with a dead time they
    would not show the state without); `max_episode_steps`: 1000 unless told.
    """

    id: str = eqx.field(static=True)
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True, default=())

    @property
    def name(self) -> str:
        return f"gym-electric-motor:{self.id}"

    @property
    def spaces(self) -> Spaces:
        return _spaces_of(self)

    def open(self, copies: int) -> GymnasiumEnvironments:
        return GymnasiumEnvironments([self.simulator() for _ in range(copies)], self.name)

    def simulator(self) -> "FlatMotor":
        """One drive, not yet reset.

        Raises `SpecificationError` if the package is missing, or cannot make it.
        """
        options = {"max_episode_steps": _STEPS, **dict(self.options)}
        late = options.pop("dead_time", 0)
        last_action = bool(options.pop("last_action", True))
        if not isinstance(late, int | float) or late != int(late) or late < 0:
            raise SpecificationError(
                f"{self.name}: dead_time = {late!r} must be a whole number of periods, 0 or more"
            )
        _require_package(self.id)
        if late:
            from gym_electric_motor.physical_system_wrappers import DeadTimeProcessor

            wrappers = (DeadTimeProcessor(steps=int(late)),)
            options["physical_system_wrappers"] = wrappers
        return FlatMotor(make_simulator(self.id, options), last_action)


class FlatMotor:
    """A simulator of the package whose observations are one vector.

    That vector is the state in shares of its limits, then the reference, then the last action (a
    one-hot vector if there are finitely many; nothing but zeros at first). The package declares
    that shares end at 1, but the step that passes a limit, after which its constraint monitor ends
    the episode, shows more: so what is declared here has no bounds.

    For drives with motors, loads or rewards of one's own:
    `from_gymnasium(lambda: FlatMotor(gym_electric_motor.make(ID, motor=…)))`.

    **Arguments:** `simulator`: from `gym_electric_motor.make`; `last_action`: whether to show it.

    Raises `SpecificationError` if its observations are no pair of a state and a reference.
    """

    def __init__(self, simulator: Any, last_action: bool = True):
        import gymnasium

        box, spaces = gymnasium.spaces.Box, gymnasium.spaces
        shown = simulator.observation_space
        pair = tuple(shown.spaces) if isinstance(shown, spaces.Tuple) else ()
        if len(pair) != 2 or not all(isinstance(space, box) for space in pair):
            raise SpecificationError(
                f"observations of type {shown} are no pair of a state and a reference, as "
                "gym-electric-motor shows them: use from_gymnasium for other environments"
            )
        self._simulator = simulator
        self._size = spaces.flatdim(simulator.action_space) if last_action else 0
        self._flat_action = functools.partial(spaces.flatten, simulator.action_space)
        size = sum(spaces.flatdim(space) for space in pair) + self._size
        self.observation_space = box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = simulator.action_space
        # Not the simulator's own, which cannot be copied where it holds parts of a drive.
        self.spec = types.SimpleNamespace(max_episode_steps=wrapped_limit(simulator))

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins an episode."""
        observation, info = self._simulator.reset(seed=seed)
        return self._vector(observation, np.zeros(self._size)), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One period of the converter."""
        observation, reward, terminal, truncated, info = self._simulator.step(action)
        last = self._flat_action(action) if self._size else np.zeros(0)
        shown = self._vector(observation, last)
        return shown, float(reward), bool(terminal), bool(truncated), info

    def close(self) -> None:
        """Releases the simulator."""
        self._simulator.close()

    def _vector(self, observation: Any, last: np.ndarray) -> np.ndarray:
        state, reference = observation
        return np.concatenate([np.ravel(state), np.ravel(reference), last]).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _spaces_of(task: GymElectricMotorTask) -> Spaces:
    simulator = task.simulator()
    try:
        return translate_spaces(
            simulator.observation_space, simulator.action_space, time_limit(simulator), task.name
        )
    finally:
        simulator.close()


def _require_package(id: str) -> None:
    """Imports the package, which registers its drives with Gymnasium."""
    import gymnasium

    try:
        import gym_electric_motor  # noqa: F401
    except ImportError as error:
        raise SpecificationError(
            f"'gym-electric-motor:{id}' needs gym-electric-motor, which cannot be imported "
            f'({error}): run pip install "headwater[motor]", or use the built-in dc-motor'
        ) from None
    known = [
        name
        for name, entry in gymnasium.registry.items()
        if str(entry.entry_point).startswith(_MODULE)
    ]
    if id not in known:
        raise SpecificationError(nearest(id, known, "drive of gym-electric-motor"))
