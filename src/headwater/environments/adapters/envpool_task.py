"""EnvPool's environments: many copies stepped in C++ threads."""

import functools
import warnings
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from headwater.core.errors import SpecificationError, nearest
from headwater.core.spaces import Spaces
from headwater.environments.adapters.gymnasium_objects import continuation_seeds
from headwater.environments.adapters.gymnasium_spaces import (
    ActionTranslator,
    batch_flattener,
    check_finite,
    quiet_casts,
    translate_spaces,
)
from headwater.environments.environment import (
    AbstractHostEnvironments,
    AbstractHostTask,
    HostStep,
)

_NO_LIMIT = 1_000_000
"""A time limit of this many steps or more is none."""


class EnvPoolTask(AbstractHostTask):
    """An environment of EnvPool, the optional extra `headwater[envpool]`.

    **Arguments:** `id`: such as `HalfCheetah-v5`; `options`: keyword arguments of `envpool.make`
    (`num_threads`, say), as sorted pairs.
    """

    id: str = eqx.field(static=True)
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True, default=())

    @property
    def name(self) -> str:
        return f"envpool:{self.id}"

    @property
    def spaces(self) -> Spaces:
        return _spaces_of(self)

    def open(self, copies: int) -> "EnvPoolEnvironments":
        return EnvPoolEnvironments(self, copies)

    def pool(self, seeds: np.ndarray) -> Any:
        """One pool with a copy for each of `seeds`.

        Raises `SpecificationError` if EnvPool is not installed or cannot make it.
        """
        return _make(self.id, dict(self.options), [int(seed) for seed in seeds])


class EnvPoolEnvironments(AbstractHostEnvironments):
    """A pool of copies, opened anew at every reset, because EnvPool takes seeds only then.

    A pool resets a copy in the step after its episode ended, ignoring the action: that step is
    marked as not valid. Its state cannot be saved: `load` begins new episodes, with seeds that
    follow from the old ones and the number of steps taken, so that an interrupted run is repeatable
    but not the same as an uninterrupted one.

    **Arguments:** `task`; `copies`: how many.
    """

    exact = False

    def __init__(self, task: EnvPoolTask, copies: int):
        self._task = task
        self._copies = copies
        self._pool: Any = None
        self._seeds = np.zeros(copies, np.int64)
        self._taken = 0
        self._over = np.zeros(copies, bool)
        self._elapsed = np.zeros(copies, np.int64)

    def reset(self, seeds: Int[np.ndarray, " copy"]) -> Float[np.ndarray, "copy observation"]:
        self._seeds = np.asarray(seeds, np.int64)
        self._taken = 0
        return self._begin(self._seeds)

    def step(self, actions: np.ndarray) -> HostStep:
        if self._elapsed.max() == 0:
            self._translate.check(actions, self._copies)
        given = np.ascontiguousarray(self._translate(actions))
        shown, reward, terminal, truncated, _ = self._pool.step(given)
        self._taken += 1
        observation = self._flatten(shown)
        reward = np.array(reward, np.float32)
        terminal, truncated = np.array(terminal, bool), np.array(truncated, bool)
        valid = ~self._over
        self._elapsed = np.where(valid, self._elapsed + 1, 0)
        check_finite(observation, reward, self._task.name, self._elapsed)
        self._over = terminal | truncated
        return HostStep(
            observation, observation.copy(), reward, terminal, truncated & ~terminal, valid
        )

    def save(self) -> dict[str, np.ndarray]:
        return {"seed": self._seeds.copy(), "steps": np.asarray(self._taken)}

    def load(self, saved: dict[str, np.ndarray]) -> Float[np.ndarray, "copy observation"]:
        self._seeds = np.asarray(saved["seed"], np.int64)
        self._taken = int(saved["steps"])
        return self._begin(continuation_seeds(self._seeds, self._taken))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _begin(self, seeds: np.ndarray) -> np.ndarray:
        self.close()
        self._pool = self._task.pool(seeds)
        with quiet_casts():
            self._flatten = batch_flattener(self._pool.observation_space, self._copies)
            self._translate = ActionTranslator(self._pool.action_space, self._task.name)
        self._over = np.zeros(self._copies, bool)
        self._elapsed = np.zeros(self._copies, np.int64)
        observation = self._flatten(self._pool.reset()[0])
        check_finite(observation, None, self._task.name, None)
        return observation


@functools.lru_cache(maxsize=64)
def _spaces_of(task: EnvPoolTask) -> Spaces:
    pool = task.pool(np.zeros(1, np.int64))
    try:
        limit = int(pool.config["max_episode_steps"])
        horizon = limit if 0 < limit < _NO_LIMIT else None
        with quiet_casts():
            spaces = pool.observation_space, pool.action_space
        return translate_spaces(*spaces, horizon, task.name)
    finally:
        pool.close()


def _make(id: str, options: dict[str, Any], seeds: list[int]) -> Any:
    try:
        with warnings.catch_warnings():
            # Raised by compiled modules of EnvPool while they are imported.
            warnings.simplefilter("ignore", DeprecationWarning)
            import envpool
    except ImportError as error:
        raise SpecificationError(
            f"'envpool:{id}' needs EnvPool, which cannot be imported ({error}): run "
            f'pip install "headwater[envpool]", or use the Gymnasium environment {id}'
        ) from None
    known = envpool.list_all_envs()
    if id not in known:
        raise SpecificationError(nearest(id, known, "EnvPool environment"))
    try:
        return envpool.make(
            id, env_type="gymnasium", num_envs=len(seeds), env_seed=seeds, **options
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise SpecificationError(
            f"EnvPool cannot make '{id}' with options {options}: {error}"
        ) from None
