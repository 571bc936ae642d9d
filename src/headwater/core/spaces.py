"""The problem a control method is initialised for: spaces and what is known of their scale."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError


class Part(NamedTuple):
    """One entry of a dictionary of observations, which are laid end to end.

    **Arguments:** `path`: its name, after those of the dictionaries that hold it; `shape`: of its
    numbers; `first`: the first number of a finite set, which is one-hot in a vector of that shape.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    first: int | None = None

    @property
    def size(self) -> int:
        """Number of components."""
        return math.prod(self.shape)


class Box(eqx.Module):
    """A continuous space of flat vectors.

    **Arguments:** `low`, `high`: one bound per component, in the user's units (may be infinite);
    `parts`: of the dictionaries that these vectors were laid out from, if they were.
    """

    low: tuple[float, ...] = eqx.field(static=True)
    high: tuple[float, ...] = eqx.field(static=True)
    parts: tuple[Part, ...] | None = eqx.field(static=True, default=None)

    def vector(self, observation: Mapping[str, Any]) -> np.ndarray:
        """What an environment shows as a dictionary, laid end to end: `[…, size]` in float32.

        Raises `SpecificationError`, naming the entry, if it is not laid out as this space was.
        """
        if self.parts is None:
            raise SpecificationError(
                f"it is not known how a dictionary is laid out here: give a vector of {self.size} "
                "numbers, in the order of what was learned from"
            )
        known = {part.path for part in self.parts}
        for path in _paths(observation):
            if path not in known:
                raise SpecificationError(
                    f"the observation has the entry '{'.'.join(path)}', which is not among "
                    f"{', '.join('.'.join(part.path) for part in self.parts)}"
                )
        return np.concatenate([_entry(part, observation) for part in self.parts], axis=-1)

    @property
    def size(self) -> int:
        """Number of components."""
        return len(self.low)

    @property
    def bounded(self) -> bool:
        """Whether every component has two finite bounds."""
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    @property
    def half_ranges(self) -> np.ndarray:
        """Half of what each component ranges over, and 1 where that is without a bound."""
        half = 0.5 * np.subtract(self.high, self.low)
        return np.where(np.isfinite(half), half, 1.0)

    def to_canonical(self, value):
        """Maps the user's units onto [-1, 1] (arrays of shape `[..., size]`)."""
        low, high = self._bounds()
        return ((value - low) / (high - low) * 2.0 - 1.0).astype(value.dtype)

    def from_canonical(self, value):
        """Maps [-1, 1] onto the user's units (arrays of shape `[..., size]`)."""
        low, high = self._bounds()
        return (low + (value + 1.0) * 0.5 * (high - low)).astype(value.dtype)

    def _bounds(self):
        if not self.bounded:
            raise SpecificationError(
                f"this box has infinite bounds {self.low} to {self.high}: actions need finite ones"
            )
        return np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)


class Discrete(eqx.Module):
    """A finite set: `0 … count-1` inside Headwater, and whatever numbers the user gave outside.

    **Arguments:** `count`: of elements; `labels`: the user's number of each, if they are others.
    """

    count: int = eqx.field(static=True)
    labels: tuple[int, ...] | None = eqx.field(static=True, default=None)

    @classmethod
    def of(cls, labels: Sequence[int]) -> "Discrete":
        """These numbers, in this order. Raises `ValueError` unless they are different."""
        labels = tuple(int(label) for label in labels)
        if len(set(labels)) != len(labels) or not labels or max(map(abs, labels)) >= 2**31:
            raise ValueError("the numbers of actions must be different ones of 32 bits")
        return cls(len(labels), None if labels == tuple(range(len(labels))) else labels)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.count

    @property
    def names(self) -> tuple[int, ...]:
        """The user's number of each element."""
        return tuple(range(self.count)) if self.labels is None else self.labels

    def from_canonical(self, value):
        """Maps `0 … count-1` onto the user's numbers (integer arrays of any shape)."""
        if self.labels is None:
            return value
        first = self.labels[0]
        if self.labels == tuple(range(first, first + self.count)):
            return value + first
        if isinstance(value, np.ndarray):
            return np.asarray(self.labels, value.dtype)[value]
        # A sum instead of an index, which every format of export can hold.
        shape = (1,) * value.ndim + (self.count,)
        each = jnp.broadcast_to(value[..., None], (*value.shape, self.count))
        hit = each == jnp.broadcast_to(jnp.arange(self.count).reshape(shape), each.shape)
        labels = jnp.broadcast_to(jnp.asarray(self.labels, value.dtype).reshape(shape), each.shape)
        return jnp.sum(jnp.where(hit, labels, jnp.zeros_like(labels)), axis=-1)

    def to_canonical(self, value):
        """Maps the user's numbers onto `0 … count-1` (NumPy arrays of integers of any shape).

        Raises `SpecificationError` for a number that no element has.
        """
        value = np.asarray(value)
        names = np.asarray(self.names)
        order = np.argsort(names)
        place = order[np.minimum(np.searchsorted(names[order], value), self.count - 1)]
        wrong = names[place] != value
        if np.any(wrong):
            raise SpecificationError(
                f"there is no action {value[wrong].reshape(-1)[0]}: actions are numbered "
                f"{_few(self.names)}"
            )
        return place.astype(np.int32)


def _paths(observation: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, value in observation.items():
        if isinstance(value, Mapping):
            yield from ((name, *rest) for rest in _paths(value))
        else:
            yield (name,)


def _entry(part: Part, observation: Mapping[str, Any]) -> np.ndarray:
    """The numbers of one part, `[…, component]`."""
    value: Any = observation
    for name in part.path:
        if not isinstance(value, Mapping) or name not in value:
            raise SpecificationError(f"the observation lacks the entry '{'.'.join(part.path)}'")
        value = value[name]
    try:
        value = np.asarray(value, np.float32 if part.first is None else np.int64)
    except (TypeError, ValueError):
        raise SpecificationError(f"the entry '{'.'.join(part.path)}' is no number") from None
    if part.first is not None:
        code = value - part.first
        if np.any((code < 0) | (code >= part.size)):
            raise SpecificationError(
                f"the entry '{'.'.join(part.path)}' is none of {part.first} to "
                f"{part.first + part.size - 1}"
            )
        return np.eye(part.size, dtype=np.float32)[code]
    lead = value.ndim - len(part.shape)
    if lead < 0 or value.shape[lead:] != part.shape:
        raise SpecificationError(
            f"the entry '{'.'.join(part.path)}' has the shape {value.shape} instead of {part.shape}"
        )
    return value.reshape(*value.shape[:lead], part.size)


def parts_of(space: Any) -> tuple[Part, ...] | None:
    """How observations of a Gymnasium `Dict` are laid end to end; `None` for another space."""
    import gymnasium

    if not isinstance(space, gymnasium.spaces.Dict):
        return None
    found: list[Part] = []
    for name, inner in space.spaces.items():
        if isinstance(inner, gymnasium.spaces.Dict):
            deeper = parts_of(inner)
            if deeper is None:
                return None
            found += [part._replace(path=(str(name), *part.path)) for part in deeper]
        elif isinstance(inner, gymnasium.spaces.Discrete):
            found.append(Part((str(name),), (int(inner.n),), int(inner.start)))
        elif isinstance(inner, gymnasium.spaces.Box | gymnasium.spaces.MultiBinary):
            found.append(Part((str(name),), tuple(map(int, inner.shape))))
        else:
            return None
    return tuple(found)


def read_parts(stored: Any, size: int) -> tuple[Part, ...] | None:
    """Parts from values that JSON can hold; `None` if they are none of `size` components."""
    try:
        parts = tuple(
            Part(
                tuple(map(str, path)),
                tuple(map(int, shape)),
                None if first is None else int(first),
            )
            for path, shape, first in stored
        )
    except (TypeError, ValueError):
        return None
    whole = all(part.path and min(part.shape, default=1) > 0 for part in parts)
    return parts if parts and whole and sum(part.size for part in parts) == size else None


class Statistics(eqx.Module):
    """What logged experience says of scale; methods use it to normalise.

    **Arguments:** `observation_mean`, `observation_std`: per component; `return_low`,
    `return_high`: smallest and largest undiscounted return of a logged episode; `reward_mean`,
    `reward_std`: of a row; `terminal_share`: share of the rows that are terminal;
    `return_to_go_mean`: undiscounted, over rows.
    """

    observation_mean: Float[Array, " observation"]
    observation_std: Float[Array, " observation"]
    return_low: Float[Array, ""]
    return_high: Float[Array, ""]
    reward_mean: Float[Array, ""]
    reward_std: Float[Array, ""]
    terminal_share: Float[Array, ""]
    return_to_go_mean: Float[Array, ""]


class Spaces(eqx.Module):
    """A control problem: what is observed, what can be done, and for how long.

    Observations are flat float vectors. Inside Headwater a continuous action is always canonical,
    in [-1, 1]; datasets and environments convert from and to the units of `action`.

    **Arguments:** `observation`, `action`: the spaces; `horizon`: the time limit in steps, if there
    is one; `statistics`: scale of the logged experience, if there is any.
    """

    observation: Box
    action: Box | Discrete
    horizon: int | None = eqx.field(static=True, default=None)
    statistics: Statistics | None = None

    @property
    def discrete(self) -> bool:
        """Whether actions are a finite set."""
        return isinstance(self.action, Discrete)

    @property
    def observation_size(self) -> int:
        """Number of components of an observation."""
        return self.observation.size

    @property
    def action_size(self) -> int:
        """Components of a continuous action, or the number of discrete ones."""
        return self.action.size

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        action: dict[str, Any] = (
            {"low": list(self.action.low), "high": list(self.action.high)}
            if isinstance(self.action, Box)
            else {"count": self.action.count}
        )
        if isinstance(self.action, Discrete) and self.action.labels is not None:
            action["labels"] = list(self.action.labels)
        statistics = self.statistics
        return {
            "observation": {
                "low": _ends(self.observation.low),
                "high": _ends(self.observation.high),
                "parts": self.observation.parts,
            },
            "action": action,
            "horizon": self.horizon,
            "statistics": None
            if statistics is None
            else {name: np.asarray(v).tolist() for name, v in vars(statistics).items()},
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Spaces":
        """What `to_json` wrote. Raises `KeyError`, `TypeError` or `ValueError` for any other."""
        low = [-np.inf if v is None else float(v) for v in stored["observation"]["low"]]
        high = [np.inf if v is None else float(v) for v in stored["observation"]["high"]]
        action = stored["action"]
        if "count" in action:
            space: Box | Discrete = Discrete(int(action["count"]))
            if action.get("labels") is not None:
                space = Discrete.of(action["labels"])
                if space.count != action["count"]:
                    raise ValueError("there are not as many numbers of actions as actions")
        else:
            space = Box(tuple(map(float, action["low"])), tuple(map(float, action["high"])))
        statistics = stored["statistics"]
        if statistics is not None:
            statistics = Statistics(
                **{name: jnp.asarray(value, jnp.float32) for name, value in statistics.items()}
            )
        parts = read_parts(stored["observation"].get("parts"), len(low))
        return cls(Box(tuple(low), tuple(high), parts), space, stored["horizon"], statistics)

    def require_continuous(self, method: str) -> None:
        """Raises `SpecificationError` if `method`, defined for continuous actions, meets others."""
        if self.discrete:
            raise SpecificationError(
                f"{method} needs continuous actions, but this problem has "
                f"{self.action_size} discrete ones: use BC, IQL, AWAC, DiscreteCQL, DQN or SAC"
            )

    def require_discrete(self, method: str) -> None:
        """Raises `SpecificationError` if `method`, defined for discrete actions, meets others."""
        if not self.discrete:
            raise SpecificationError(
                f"{method} needs discrete actions, but this problem has continuous ones "
                f"with {self.action_size} components: use IQL, TD3BC, CQL or SAC"
            )

    def mismatch(
        self, other: "Spaces", own: str = "on one side", its: str = "on the other"
    ) -> str | None:
        """Why `other` cannot be used where `self` is, in words; `None` if it can.

        **Arguments:** `own`, `its`: what to say of where the spaces are.
        """
        if self.observation_size != other.observation_size:
            return (
                f"observations have {self.observation_size} components {own} "
                f"and {other.observation_size} {its}"
            )
        if self.discrete != other.discrete:
            kinds = {True: "discrete", False: "continuous"}
            return f"actions are {kinds[self.discrete]} {own} and {kinds[other.discrete]} {its}"
        if self.action_size != other.action_size:
            return f"actions have size {self.action_size} {own} and {other.action_size} {its}"
        if isinstance(self.action, Discrete) and isinstance(other.action, Discrete):
            ours, theirs = self.action.names, other.action.names
            if ours != theirs:
                return f"actions are numbered {_few(ours)} {own} and {_few(theirs)} {its}"
        if isinstance(self.action, Box) and isinstance(other.action, Box):
            ours = np.asarray([self.action.low, self.action.high])
            theirs = np.asarray([other.action.low, other.action.high])
            if not np.allclose(ours, theirs, rtol=1e-4, atol=1e-4):
                return (
                    f"action bounds are {self.action.low} to {self.action.high} {own} "
                    f"and {other.action.low} to {other.action.high} {its}"
                )
        return None


def _few(numbers: tuple[int, ...]) -> str:
    if len(numbers) <= 8:
        return ", ".join(map(str, numbers))
    return f"{numbers[0]}, {numbers[1]}, … {numbers[-1]}"


def _ends(values: tuple[float, ...]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values]
