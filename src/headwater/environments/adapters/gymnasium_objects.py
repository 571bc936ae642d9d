"""Gymnasium environments that the user made: objects, factories and vector environments."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Spaces
from headwater.environments.adapters.gymnasium_spaces import (
    ActionTranslator,
    batch_flattener,
    check_finite,
    flattener,
    translate_spaces,
)
from headwater.environments.adapters.gymnasium_task import (
    GymnasiumEnvironments,
    episode_seed,
    make_simulator,
    time_limit,
)
from headwater.environments.environment import (
    AbstractHostEnvironments,
    AbstractHostTask,
    HostStep,
)


def from_gymnasium(made: Any, name: str | None = None) -> AbstractHostTask:
    """A task of what the user has.

    **Arguments:** `made`: a function without arguments that makes a `gymnasium.Env`; or one of the
    number of copies that makes a `gymnasium.vector.VectorEnv`; or an `Env` from `gymnasium.make`,
    of which fresh copies are made; or a `VectorEnv`, which serves as it is and so only for as many
    copies as it has; `name`: for messages and records.

    Single environments continue exactly after an interruption (if seed and actions determine
    them); vector environments begin new episodes.

    Raises `SpecificationError` for anything else.
    """
    import gymnasium

    if isinstance(made, gymnasium.vector.VectorEnv):
        return GymnasiumVectorTask(_Lent(made), name or _title(made))
    if isinstance(made, gymnasium.Env):
        specification = made.spec
        if specification is None:
            raise SpecificationError(
                f"{type(made).__name__}: copies are needed, and an environment that was not made "
                f"by gymnasium.make cannot be copied: pass a function that makes one instead"
            )
        factory = functools.partial(make_simulator, specification, {})
        return GymnasiumFactoryTask(factory, name or specification.id)
    if not callable(made):
        raise SpecificationError(
            f"from_gymnasium takes an environment or a function that makes one, not a "
            f"{type(made).__name__}"
        )
    label = name or getattr(made, "__name__", type(made).__name__)
    if _required_arguments(made) == 1:
        return GymnasiumVectorTask(made, label)
    return GymnasiumFactoryTask(made, label)


class GymnasiumFactoryTask(AbstractHostTask):
    """Single Gymnasium environments that a function of the user makes.

    **Arguments:** `factory`: makes one `gymnasium.Env`; `label`: its name.
    """

    factory: Callable[[], Any] = eqx.field(static=True)
    label: str = eqx.field(static=True)

    @property
    def name(self) -> str:
        return self.label

    @property
    def spaces(self) -> Spaces:
        return _spaces_of(self)

    def open(self, copies: int) -> GymnasiumEnvironments:
        return GymnasiumEnvironments([self.factory() for _ in range(copies)], self.label)


class GymnasiumVectorTask(AbstractHostTask):
    """Vector environments of Gymnasium that a function of the user makes.

    **Arguments:** `factory`: makes a `gymnasium.vector.VectorEnv` of that many copies; `label`: its
    name.
    """

    factory: Callable[[int], Any] = eqx.field(static=True)
    label: str = eqx.field(static=True)

    @property
    def name(self) -> str:
        return self.label

    @property
    def spaces(self) -> Spaces:
        return _vector_spaces_of(self)

    def open(self, copies: int) -> "GymnasiumVector":
        vector = self.factory(copies)
        if vector.num_envs != copies:
            raise SpecificationError(
                f"{self.label}: {copies} copies are needed, but the vector environment has "
                f"{vector.num_envs}: pass a function of the number of copies that makes one"
            )
        return GymnasiumVector(vector, self.label)


class GymnasiumVector(AbstractHostEnvironments):
    """A `gymnasium.vector.VectorEnv`, whichever way it resets itself.

    Its state cannot be saved: `load` begins new episodes, with seeds that follow from the old ones
    and the number of steps taken, so that an interrupted run is repeatable but not the same as an
    uninterrupted one.

    **Arguments:** `vector`: the vector environment; `name`.
    """

    exact = False

    def __init__(self, vector: Any, name: str):
        self._vector = vector
        self._name = name
        self._copies = int(vector.num_envs)
        horizon = _vector_time_limit(vector)
        translate_spaces(vector.single_observation_space, vector.single_action_space, horizon, name)
        self._flatten = batch_flattener(vector.single_observation_space, self._copies)
        self._flatten_one = flattener(vector.single_observation_space)
        self._translate = ActionTranslator(vector.single_action_space, name)
        self._mode = _autoreset_mode(vector)
        self._seeds = np.zeros(self._copies, np.int64)
        self._taken = 0
        self._episodes = np.zeros(self._copies, np.int64)
        self._elapsed = np.zeros(self._copies, np.int64)
        self._over = np.zeros(self._copies, bool)

    def reset(self, seeds: Int[np.ndarray, " copy"]) -> Float[np.ndarray, "copy observation"]:
        self._seeds = np.asarray(seeds, np.int64)
        self._taken = 0
        return self._reset(self._seeds)

    def step(self, actions: np.ndarray) -> HostStep:
        if self._taken == 0:
            self._translate.check(actions, self._copies)
        shown, reward, terminal, truncated, info = self._vector.step(self._translate(actions))
        self._taken += 1
        # Copies, because a vector environment may write the next step into the same arrays.
        following = self._flatten(shown)
        reward = np.array(reward, np.float32)
        terminal, truncated = np.array(terminal, bool), np.array(truncated, bool)
        valid = np.ones(self._copies, bool)
        over = terminal | truncated
        reached = following
        if self._mode == "NEXT_STEP":
            valid = ~self._over
        elif over.any():
            reached = following.copy()
            if self._mode == "SAME_STEP":
                for i in np.flatnonzero(over):
                    final = info["final_obs"][i]
                    reached[i] = final if self._flatten_one is None else self._flatten_one(final)
            else:
                following = self._reset_ended(over)
        self._elapsed = np.where(valid, self._elapsed + 1, 0)
        check_finite(reached, reward, self._name, self._elapsed)
        if self._mode != "NEXT_STEP":
            self._elapsed[over] = 0
        self._over = over
        return HostStep(following, reached.copy(), reward, terminal, truncated & ~terminal, valid)

    def save(self) -> dict[str, np.ndarray]:
        return {"seed": self._seeds.copy(), "steps": np.asarray(self._taken)}

    def load(self, saved: dict[str, np.ndarray]) -> Float[np.ndarray, "copy observation"]:
        self._seeds = np.asarray(saved["seed"], np.int64)
        self._taken = int(saved["steps"])
        return self._reset(continuation_seeds(self._seeds, self._taken))

    def close(self) -> None:
        self._vector.close()

    def _reset(self, seeds: np.ndarray) -> np.ndarray:
        import gymnasium

        self._episodes[:], self._elapsed[:], self._over[:] = 0, 0, False
        try:
            shown, _ = self._vector.reset(seed=[int(seed) for seed in seeds])
        except (TypeError, ValueError, gymnasium.error.Error):
            # Some vector environments share one random stream and take one seed.
            shown, _ = self._vector.reset(seed=episode_seed(int(seeds[0]), 0))
        observation = self._flatten(shown)
        check_finite(observation, None, self._name, None)
        return observation

    def _reset_ended(self, over: np.ndarray) -> np.ndarray:
        self._episodes += over
        seeds = [
            episode_seed(int(self._seeds[i]), int(self._episodes[i])) if over[i] else None
            for i in range(self._copies)
        ]
        shown, _ = self._vector.reset(seed=seeds, options={"reset_mask": over.copy()})
        return self._flatten(shown)


def continuation_seeds(seeds: np.ndarray, steps: int) -> np.ndarray:
    """Seeds for the episodes that follow an interruption after `steps` steps."""
    return np.asarray([episode_seed(int(seed), steps + 1) for seed in seeds], np.int64)


class _Lent:
    """Lends the user's vector environment, which nobody else can copy."""

    def __init__(self, vector: Any):
        self.vector = vector

    def __call__(self, copies: int) -> Any:
        return self.vector


def _vector_time_limit(vector: Any) -> int | None:
    specification = vector.spec
    if specification is None:
        try:
            specification = vector.get_attr("spec")[0]
        except AttributeError:
            # Only those that hold single environments can be asked for attributes of theirs.
            return None
    return None if specification is None else specification.max_episode_steps


def _autoreset_mode(vector: Any) -> str:
    mode = vector.metadata.get("autoreset_mode", "NEXT_STEP")
    return mode if isinstance(mode, str) else mode.name


def _required_arguments(factory: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return 0
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


def _title(vector: Any) -> str:
    return type(vector).__name__ if vector.spec is None else vector.spec.id


@functools.lru_cache(maxsize=64)
def _spaces_of(task: GymnasiumFactoryTask) -> Spaces:
    simulator = task.factory()
    try:
        return translate_spaces(
            simulator.observation_space, simulator.action_space, time_limit(simulator), task.label
        )
    finally:
        simulator.close()


@functools.lru_cache(maxsize=64)
def _vector_spaces_of(task: GymnasiumVectorTask) -> Spaces:
    vector = task.factory(1)
    try:
        return translate_spaces(
            vector.single_observation_space,
            vector.single_action_space,
            _vector_time_limit(vector),
            task.label,
        )
    finally:
        if not isinstance(task.factory, _Lent):
            vector.close()
