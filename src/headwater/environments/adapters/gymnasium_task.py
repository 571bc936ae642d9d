"""Registered Gymnasium environments as tasks, with exact continuation by replay."""

import functools
import importlib
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Spaces
from headwater.environments.adapters.gymnasium_spaces import (
    ActionTranslator,
    check_finite,
    flattener,
    quiet_casts,
    translate_spaces,
)
from headwater.environments.environment import (
    AbstractHostEnvironments,
    AbstractHostTask,
    HostStep,
)

_FIRST_RECORD = 1024
"""Steps that the record of an episode holds at first where there is no time limit."""


class GymnasiumTask(AbstractHostTask):
    """An environment of Gymnasium's registry.

    **Arguments:** `id`: such as `HalfCheetah-v5`, or `module:Name-v0` for an environment that a
    module of the user registers; `options`: keyword arguments of `gymnasium.make`, as sorted pairs.
    """

    id: str = eqx.field(static=True)
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True, default=())

    @property
    def name(self) -> str:
        return self.id

    @property
    def spaces(self) -> Spaces:
        return _spaces_of(self)

    def open(self, copies: int) -> "GymnasiumEnvironments":
        return GymnasiumEnvironments([self.simulator() for _ in range(copies)], self.id)

    def simulator(self, **options: Any) -> Any:
        """One `gymnasium.Env`, with further keyword arguments (`render_mode`, say).

        Raises `SpecificationError` if Gymnasium cannot make it.
        """
        return make_simulator(self.id, {**dict(self.options), **options})


class GymnasiumEnvironments(AbstractHostEnvironments):
    """Copies of single Gymnasium environments, stepped one after the other.

    Every episode is reset with a seed of its own, so that replaying the actions of the current
    episode continues exactly. This asks of an environment that seed and actions determine it.

    **Arguments:** `simulators`: one `gymnasium.Env` per copy, with the same spaces; `name`.
    """

    exact = True

    def __init__(self, simulators: Sequence[Any], name: str):
        self._simulators = list(simulators)
        self._steps = [simulator.step for simulator in self._simulators]
        self._name = name
        copies, first = len(self._simulators), self._simulators[0]
        horizon = time_limit(first)
        spaces = translate_spaces(first.observation_space, first.action_space, horizon, name)
        self._shape = (copies, spaces.observation_size)
        self._flatten = flattener(first.observation_space)
        self._translate = ActionTranslator(first.action_space, name)
        self._copies = np.arange(copies)
        self._seeds = np.zeros(copies, np.int64)
        self._episodes = np.zeros(copies, np.int64)
        self._elapsed = np.zeros(copies, np.int64)
        self._record = self._translate.empty(copies, horizon or _FIRST_RECORD)
        self._following = np.zeros(self._shape, np.float32)
        self._longest = 0
        self._checked = False

    def reset(self, seeds: Int[np.ndarray, " copy"]) -> Float[np.ndarray, "copy observation"]:
        self._seeds = np.asarray(seeds, np.int64)
        self._episodes[:] = 0
        observation = np.empty(self._shape, np.float32)
        for i in range(len(self._simulators)):
            observation[i] = self._begin(i)
        self._longest = 0
        check_finite(observation, None, self._name, None)
        self._following = observation.copy()
        return observation

    def step(self, actions: np.ndarray) -> HostStep:
        if not self._checked:
            self._translate.check(actions, len(self._simulators))
            self._checked = True
        given = self._translate(actions)
        self._remember(given)
        if self._translate.discrete:
            given = given.tolist()
        reached = np.empty(self._shape, np.float32)
        reward = np.empty(self._shape[0], np.float32)
        terminal = np.empty(self._shape[0], bool)
        truncated = np.empty(self._shape[0], bool)
        flatten = self._flatten
        for i, step in enumerate(self._steps):
            observation, reward[i], terminal[i], truncated[i], _ = step(given[i])
            reached[i] = observation if flatten is None else flatten(observation)
        check_finite(reached, reward, self._name, self._elapsed)
        following = reached.copy()
        over = terminal | truncated
        if over.any():
            truncated &= ~terminal
            for i in np.flatnonzero(over).tolist():
                self._episodes[i] += 1
                following[i] = self._begin(i)
            self._longest = int(self._elapsed.max())
            check_finite(following, None, self._name, None)
        # A reference, not a copy: what is handed out belongs to the caller, who does not write it.
        self._following = following
        valid = np.ones(self._shape[0], bool)
        return HostStep(following, reached, reward, terminal, truncated, valid)

    def save(self) -> dict[str, np.ndarray]:
        actions = self._record[:, : self._longest].copy()
        for i, elapsed in enumerate(self._elapsed):
            # What is left there of earlier episodes must not make equal states look different.
            actions[i, elapsed:] = 0
        return {
            "seed": self._seeds.copy(),
            "episode": self._episodes.copy(),
            "elapsed": self._elapsed.copy(),
            "actions": actions,
            "observation": self._following.copy(),
        }

    def load(self, saved: dict[str, np.ndarray]) -> Float[np.ndarray, "copy observation"]:
        copies = len(self._simulators)
        if len(saved["seed"]) != copies:
            raise SpecificationError(
                f"{self._name}: {len(saved['seed'])} copies were saved, but {copies} are open"
            )
        self._seeds = np.asarray(saved["seed"], np.int64)
        self._episodes = np.array(saved["episode"], np.int64)
        elapsed, actions = np.asarray(saved["elapsed"], np.int64), saved["actions"]
        observation = np.empty(self._shape, np.float32)
        for i, step in enumerate(self._steps):
            observation[i] = self._begin(i)
            episode = actions[i, : elapsed[i]]
            for action in episode.tolist() if self._translate.discrete else episode:
                shown = step(action)[0]
                observation[i] = shown if self._flatten is None else self._flatten(shown)
        self._elapsed = elapsed.copy()
        self._longest = int(elapsed.max())
        self._grow(self._longest)
        self._record[:, : actions.shape[1]] = actions
        self._following = observation.copy()
        if not np.array_equal(observation, saved["observation"]):
            warnings.warn(
                f"{self._name} did not come back to where it was saved: its seed and actions do "
                f"not determine it on this machine, so the run continues but not bit for bit",
                RuntimeWarning,
                stacklevel=2,
            )
        return observation

    def close(self) -> None:
        for simulator in self._simulators:
            simulator.close()

    def _begin(self, i: int) -> np.ndarray:
        seed = episode_seed(int(self._seeds[i]), int(self._episodes[i]))
        observation = self._simulators[i].reset(seed=seed)[0]
        self._elapsed[i] = 0
        return observation if self._flatten is None else self._flatten(observation)

    def _remember(self, given: np.ndarray) -> None:
        self._grow(self._longest + 1)
        self._record[self._copies, self._elapsed] = given
        self._elapsed += 1
        self._longest += 1

    def _grow(self, steps: int) -> None:
        room = self._record.shape[1]
        if steps > room:
            more = self._translate.empty(len(self._simulators), max(room, steps - room))
            self._record = np.concatenate([self._record, more], axis=1)


def episode_seed(seed: int, number: int) -> int:
    """The seed of episode `number` of a copy with this `seed`: unrelated for every pair."""
    mixed = np.random.SeedSequence([seed, number]).generate_state(1, np.uint32)
    return int(mixed[0] >> 1)


def time_limit(simulator: Any) -> int | None:
    """The time limit of a Gymnasium environment in steps, if it declares or is wrapped in one."""
    if simulator.spec is not None and simulator.spec.max_episode_steps is not None:
        return simulator.spec.max_episode_steps
    return wrapped_limit(simulator)


def wrapped_limit(simulator: Any) -> int | None:
    """The time limit in steps that a Gymnasium environment is wrapped in, if it is."""
    import gymnasium

    limits = []
    while isinstance(simulator, gymnasium.Wrapper):
        if isinstance(simulator, gymnasium.wrappers.TimeLimit):
            limits.append(simulator._max_episode_steps)
        simulator = simulator.env
    return min(limits, default=None)


@functools.lru_cache(maxsize=256)
def _spaces_of(task: GymnasiumTask) -> Spaces:
    simulator = task.simulator()
    try:
        return translate_spaces(
            simulator.observation_space, simulator.action_space, time_limit(simulator), task.id
        )
    finally:
        simulator.close()


def make_simulator(known: Any, options: dict[str, Any]) -> Any:
    """One `gymnasium.Env`.

    **Arguments:** `known`: its id, or the `gymnasium.envs.registration.EnvSpec` of one; `options`:
    keyword arguments of `gymnasium.make`.

    Raises `SpecificationError` if Gymnasium cannot make it.
    """
    import gymnasium

    id = known if isinstance(known, str) else known.id
    try:
        specification = registered(known) if isinstance(known, str) else known
        if "mujoco" in str(specification.entry_point).lower():
            quiet_mujoco()
        with quiet_casts():
            return gymnasium.make(known, disable_env_checker=True, **options)
    except gymnasium.error.UnregisteredEnv as error:
        raise SpecificationError(f"Gymnasium does not know '{id}': {error}") from None
    except (gymnasium.error.Error, ImportError) as error:
        raise SpecificationError(f"Gymnasium cannot make '{id}': {error}") from None
    except TypeError as error:
        if not options:
            raise
        raise SpecificationError(
            f"Gymnasium cannot make '{id}' with options {options}: {error}"
        ) from None


def registered(id: str) -> Any:
    """What Gymnasium's registry says of `id`, after importing the module it may name."""
    import gymnasium

    module, _, plain = id.rpartition(":")
    if module:
        importlib.import_module(module)
    return gymnasium.spec(plain)


def quiet_mujoco() -> None:
    """Keeps MuJoCo from writing `MUJOCO_LOG.TXT` into the current directory.

    Its warnings go to the logger `headwater.mujoco` instead, all but one that only the authors of
    a model can act on. A handler that the user installed stays.
    """
    try:
        import mujoco
    except ImportError:
        return
    # Both are in MuJoCo's compiled part, where a type checker does not look.
    if mujoco.get_mju_user_warning() is None:  # pyright: ignore[reportAttributeAccessIssue]
        mujoco.set_mju_user_warning(  # pyright: ignore[reportAttributeAccessIssue]
            _mujoco_warning
        )


def _mujoco_warning(message: Any) -> None:
    text = message.decode(errors="replace") if isinstance(message, bytes) else str(message)
    if "'settotalmass' is deprecated" not in text:
        logging.getLogger("headwater.mujoco").warning("MuJoCo: %s", text)
