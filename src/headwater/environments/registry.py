"""Environments by name."""

import dataclasses
import math
import sys
from typing import Any

import numpy as np

from headwater.core.errors import SpecificationError, nearest
from headwater.environments.adapters.gymnasium_task import GymnasiumTask, registered
from headwater.environments.bandits.bandit import AbstractBandit
from headwater.environments.black_boxes.black_box import AbstractBlackBox
from headwater.environments.catalogue import (
    bandit_names,
    black_box_names,
    environment_class,
    environment_names,
)
from headwater.environments.environment import AbstractEnvironment, AbstractHostTask

__all__ = ["environment_names", "make", "make_recorded"]

ENVPOOL = "envpool:"
"""What the name of a task begins with that EnvPool simulates."""
DRIVES = "gym-electric-motor:"
"""What the name of a task begins with that gym-electric-motor simulates."""


Acted = AbstractEnvironment | AbstractHostTask | AbstractBandit | AbstractBlackBox
"""What a method acts in, pulls or evaluates."""


def make(name: str, /, **options: Any) -> Acted:
    """The environment, the bandit or the black box called `name`.

    **Arguments:** `name`: of a pure-JAX environment (`pendulum`), bandit (`linear-bandit`) or black
    box (`branin`), `envpool:` with an EnvPool id, `gym-electric-motor:` with one of that package,
    or a Gymnasium id (`HalfCheetah-v5`, `module:Name-v0`); `options`: fields of the environment, or
    keyword arguments for those packages.

    Raises `SpecificationError`, with the nearest names, if there is none; or if it does not know an
    option.
    """
    if name in (*environment_names(), *bandit_names(), *black_box_names()):
        return _pure(name, options)
    given = tuple(sorted((key, _plain(name, key, value)) for key, value in options.items()))
    if name.startswith(ENVPOOL):
        from headwater.environments.adapters.envpool_task import EnvPoolTask

        task: AbstractHostTask = EnvPoolTask(name.removeprefix(ENVPOOL), given)
    elif name.startswith(DRIVES):
        from headwater.environments.adapters.gym_electric_motor_task import GymElectricMotorTask

        task = GymElectricMotorTask(name.removeprefix(DRIVES), given)
    else:
        _require_registered(name)
        task = GymnasiumTask(name, given)
    # Made here, so that whatever is wrong with it is said at once.
    _ = task.spaces
    return task


def acted_in(task: Acted) -> AbstractEnvironment | AbstractHostTask:
    """The environment that `task` is. Raises `SpecificationError` for another kind of task."""
    if isinstance(task, AbstractBlackBox):
        raise SpecificationError(
            f"{task.name} is a black box, which is evaluated and not acted in: take a method such "
            "as ExpectedImprovement"
        )
    if isinstance(task, AbstractBandit):
        raise SpecificationError(
            f"{task.name} is a bandit, whose arms are pulled: take a method such as LinUCB"
        )
    return task


def make_recorded(name: Any, /, **options: Any) -> Acted:
    """The environment that a file names: as `make`, but no module is imported because of it.

    Raises `SpecificationError` where that would be needed, and as `make` does.
    """
    if not isinstance(name, str):
        raise SpecificationError(f"{name!r} is no name of an environment")
    module, colon, _ = name.partition(":")
    if colon and not name.startswith((ENVPOOL, DRIVES)) and module not in sys.modules:
        raise SpecificationError(
            f"the environment '{name}' is recorded here, but a file does not get to say which "
            "module is imported: name it yourself (--env), or import the module first"
        )
    return make(name, **options)


def _pure(
    name: str, options: dict[str, Any]
) -> AbstractEnvironment | AbstractBandit | AbstractBlackBox:
    known = environment_class(name)
    fields = {field.name: field.default for field in dataclasses.fields(known)}
    for option in options:
        if not fields:
            raise SpecificationError(f"{name} has no options, but '{option}' was given")
        if option not in fields:
            raise SpecificationError(f"{name}: {nearest(option, fields, 'option')}")
        if not isinstance(options[option], bool | int | float) or not _finite(options[option]):
            raise SpecificationError(
                f"{name}: option {option} = {options[option]!r} must be a number"
            )
    # Written as on a command line, `mass=2` is a whole number.
    given: dict[str, Any] = {}
    for option, value in options.items():
        counted = isinstance(fields[option], int) and not isinstance(fields[option], bool)
        if counted and value != int(value):
            raise SpecificationError(f"{name}: option {option} = {value!r} must be a whole number")
        given[option] = (
            value if isinstance(value, bool) else int(value) if counted else float(value)
        )
    return known(**given)


def _require_registered(name: str) -> None:
    import gymnasium

    try:
        registered(name)
    except gymnasium.error.DeprecatedEnv as error:
        raise SpecificationError(f"Gymnasium no longer has '{name}': {error}") from None
    except ModuleNotFoundError as error:
        raise SpecificationError(
            f"unknown environment '{name}': there is no module '{error.name}' to import"
        ) from None
    except gymnasium.error.Error:
        own = (*environment_names(), *bandit_names(), *black_box_names())
        known = {*own, *gymnasium.registry}
        # Old versions and plug-ins of Gymnasium would drown the rest where nothing is near.
        message = nearest(name, known, "environment")
        if "did you mean" not in message:
            message = (
                f"unknown environment '{name}': it is none of "
                f"{', '.join(own)}, nor a Gymnasium id such as "
                f"HalfCheetah-v5, nor 'envpool:' with an EnvPool id"
            )
        raise SpecificationError(message) from None


def _plain(name: str, key: str, value: Any) -> Any:
    """The value of an option in a form that can be compared, and written into a run's directory."""
    if isinstance(value, list | tuple):
        return tuple(_plain(name, key, part) for part in value)
    if isinstance(value, np.generic):
        value = value.item()
    if (
        value is None
        or isinstance(value, str)
        or (isinstance(value, int | float) and _finite(value))
    ):
        return value
    kind = f"is {value}" if isinstance(value, float) else f"is a {type(value).__name__}"
    raise SpecificationError(
        f"{name}: option {key} {kind}; options must be finite numbers, texts or tuples of them "
        "(for others, pass a factory to from_gymnasium)"
    )


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # A whole number beyond every float.
        return False
