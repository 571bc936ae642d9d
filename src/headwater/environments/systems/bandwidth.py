"""Bandwidth over time: measured traces from a file, and made up ones from a Markov chain."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import DataError, SpecificationError

COLUMNS = ("trace", "seconds", "megabits_per_second")
"""Of a file of measured traces."""
_LOW, _HIGH, _LEVELS = 0.4, 5.0, 8
"""Megabits per second of the lowest and the highest level of the chain; levels."""
_STAY, _NOISE = 0.9, 0.1
"""Probability of keeping a level for another second; relative deviation within a level."""


def markov_bandwidth(seconds: int, *, key: PRNGKeyArray) -> Float[Array, " second"]:
    """A trace that is made up: megabits per second, one number for each second.

    A chain of eight levels from 0.4 to 5 megabits per second, each 1.43 times the last, starts
    at any of them. It keeps its level for another second with probability 0.9, and otherwise goes
    one up or down, or stays where there is no such level. What is seen is the level times one plus
    normal noise of deviation 0.1, at least a tenth of it. The made up traces of Mao et al. (2017)
    are of this kind, with other numbers.
    """
    first_key, move_key, noise_key = jax.random.split(key, 3)
    levels = jnp.geomspace(_LOW, _HIGH, _LEVELS)
    first = jax.random.randint(first_key, (), 0, _LEVELS)
    draws = jax.random.uniform(move_key, (seconds,))
    move = jnp.where(draws < _STAY, 0, jnp.where(draws < 0.5 * (1.0 + _STAY), 1, -1))

    def step(level, move):
        return jnp.clip(level + move, 0, _LEVELS - 1), level

    _, level = jax.lax.scan(step, first, move)
    noise = 1.0 + _NOISE * jax.random.normal(noise_key, (seconds,))
    return levels[level] * jnp.maximum(noise, 0.1)


def read_bandwidth_traces(
    path: str | Path, seconds: int = 320
) -> Float[np.ndarray, "trace second"]:
    """Measured traces from a CSV file with the columns trace, seconds and megabits_per_second.

    Rows of a trace stand side by side, in the order of time. A measurement holds until the next
    one; a trace that is longer than `seconds` is cut, and one that is shorter begins again.

    **Returns:** megabits per second, one number for each second, for `BitrateControl(traces=…)`.

    Raises `DataError`, with file and line, for anything that is no such file or no such number, or
    for a trace that carries nothing, and `SpecificationError` for less than one second.
    """
    if seconds < 1:
        raise SpecificationError(f"seconds = {seconds}: a trace has at least one")
    traces: dict[str, list[tuple[float, float]]] = {}
    try:
        with Path(path).open(newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{path}: there is no column {missing[0]}; traces have {', '.join(COLUMNS)}"
                )
            for number, row in enumerate(rows, 2):
                trace = traces.setdefault(row["trace"], [])
                trace.append(_measurement(row, trace, f"{path}, line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not traces:
        raise DataError(f"{path} holds no traces: it has a header alone")
    found = np.stack([_every_second(trace, seconds) for trace in traces.values()])
    idle = np.flatnonzero(found.max(axis=1) <= 0.0)
    if idle.size:
        name = list(traces)[idle[0]]
        raise DataError(f"{path}: nothing passes in trace {name}, so that no chunk arrives")
    return found


def _measurement(row: dict, trace: list, where: str) -> tuple[float, float]:
    try:
        time, rate = float(row["seconds"]), float(row["megabits_per_second"])
    except (TypeError, ValueError):
        raise DataError(f"{where}: there are no two numbers of seconds and megabits") from None
    if not (np.isfinite(time) and np.isfinite(rate) and rate >= 0.0):
        raise DataError(f"{where}: {rate:g} megabits per second at {time:g} s cannot be")
    if trace and time <= trace[-1][0]:
        raise DataError(f"{where}: time goes from {trace[-1][0]:g} to {time:g} s in one trace")
    return time, rate


def _every_second(trace: list[tuple[float, float]], seconds: int) -> Float[np.ndarray, " second"]:
    """The rate that holds at the beginning of each second."""
    time, rate = np.asarray(trace, np.float64).T
    length = max(int(np.floor(time[-1] - time[0])), 1)
    asked = time[0] + np.arange(seconds) % length
    return rate[np.searchsorted(time, asked, side="right") - 1].astype(np.float32)
