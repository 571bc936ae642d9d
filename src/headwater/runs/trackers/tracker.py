"""What a tracker of runs is, and how one is found by its name."""

import abc
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headwater.core.errors import SpecificationError, nearest


class AbstractTracker(abc.ABC):
    """Gets every number that a run writes down, as it does.

    A run that goes on tells a new tracker all that its files hold first, so that a back end may
    begin anew each time. Back ends are files of this folder, called by their names: each has a
    class `Tracker`.
    """

    @classmethod
    @abc.abstractmethod
    def check(cls) -> None:
        """Raises `SpecificationError` unless what it needs is installed."""

    @classmethod
    @abc.abstractmethod
    def open(cls, directory: Path) -> "AbstractTracker":
        """A tracker of the run in `directory`, where it may write once it is told something."""

    @abc.abstractmethod
    def log(self, numbers: Mapping[str, float], *, seed: int, update: int) -> None:
        """Takes numbers of one seed, by names such as `stage/loss`, at an update of that stage."""

    @abc.abstractmethod
    def close(self) -> None:
        """Writes what is not written yet."""


def tracker_class(name: str) -> type[AbstractTracker]:
    """The tracker of this name.

    Raises `SpecificationError` if there is none, or what it needs is not installed.
    """
    folder = str(Path(__file__).parent)
    known = [module.name for module in pkgutil.iter_modules([folder]) if module.name != "tracker"]
    if name not in known:
        raise SpecificationError(nearest(name, known, "tracker"))
    tracker = importlib.import_module(f"headwater.runs.trackers.{name}").Tracker
    tracker.check()
    return tracker


def numbers_of_metrics(
    row: Mapping[str, Any], seeds: list[int]
) -> Iterator[tuple[int, dict[str, float]]]:
    """Each seed of a row of metrics, and its numbers by name."""
    stage = row["stage"]
    for index, seed in enumerate(seeds):
        numbers = {f"{stage}/{name}": values[index] for name, values in row["metrics"].items()}
        for name in ("environment_steps", "updates_per_second"):
            numbers[f"{stage}/{name}"] = row[name]
        yield seed, numbers


def numbers_of_evaluation(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of evaluations, which is of one seed, by name."""
    returns = row["returns"]
    return {f"{row['stage']}/evaluation": sum(returns) / len(returns)} if returns else {}
