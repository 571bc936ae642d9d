"""A search for many solutions with a simulator of one's own: ask which, tell what they did."""

import base64
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from headwater.api.campaigns.archive_table import archive_table
from headwater.api.campaigns.quantities import (
    as_space,
    finite_number,
    locked,
    named_point,
    unit_point,
    whole_number,
)
from headwater.api.inputs import as_method
from headwater.core import json_text
from headwater.core.catalogue import build_method, settings
from headwater.core.errors import DataError, RunError, SpecificationError, nearest
from headwater.core.method import AbstractArchiving, AbstractMethod
from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.records import MeasuredQueries
from headwater.parts.quality_diversity.archive import Archive
from headwater.runs.feeds.queries import told
from headwater.runs.files import write_json

_FORMAT = 1


class Simulation(NamedTuple):
    """One solution to be simulated.

    **Arguments:** `number`: to tell its outcome by; `point`: its quantities by name; `status`;
    `value`, `measures`: what came out of it, `None` and nothing as long as that is not known, or
    if it failed.
    """

    number: int
    point: dict[str, float]
    status: Literal["asked", "told", "failed"] = "asked"
    value: float | None = None
    measures: dict[str, float] = {}  # noqa: RUF012 (never written to)
    frame: list[float] = []  # noqa: RUF012 (never written to)


class ArchiveSearch:
    """Many good solutions that differ in what they do, kept in a file that survives a kill.

    ```python
    search = hw.ArchiveSearch(
        {"length": (0.1, 1.0), "angle": (0.0, 3.14)}, {"height": (0.0, 2.0)}, "archive.json"
    )
    for solution in search.ask():
        value, height = simulate(**solution.point)
        search.tell(solution.number, value, {"height": height})
    print(search.coverage, search.table())
    ```

    A batch is asked for at once, and told in any order; the archive learns when all of it is told.
    Where the file exists the search goes on from it, with the batch that was asked for.

    **Arguments:** `space`: by name a `Component` or two bounds; `measures`: by name two bounds;
    `path`: of the file, or `None` to keep it in memory; `method`: one that keeps an archive, by
    name or as an object; `batch_size`: solutions that are asked for at once; `frame_size`: numbers
    of the frame that is told with each (0: none); `minimise`: less is better; `most`: simulations
    there may be; `seed`: of all randomness.

    Raises `SpecificationError` for what does not fit together, or if the file is of another search;
    `RunError` if it cannot be read.
    """

    def __init__(
        self,
        space: Mapping[str, Any],
        measures: Mapping[str, Sequence[float]],
        path: str | os.PathLike | None = None,
        *,
        method: AbstractMethod | str | type = "MAPElites",
        batch_size: int = 50,
        frame_size: int = 0,
        minimise: bool = False,
        most: int = 10_000,
        seed: int = 0,
    ):
        most, seed = whole_number(most, "most"), whole_number(seed, "seed")
        batch_size = whole_number(batch_size, "batch_size")
        names, box = as_space(space)
        low, high = _bounds(measures)
        problem = MeasuredSpace(box, low, high, frame_size).with_capacity(most)
        given = (names, [str(name) for name in measures], problem, as_method(method))
        self._begin(*given, batch_size, minimise, seed, path)
        with locked(self.path):
            if self.path is not None and self.path.exists():
                stored = _read(self.path)
                self._check_same(stored)
                self._load(stored)
            else:
                self._save()

    @classmethod
    def open(cls, path: str | os.PathLike) -> "ArchiveSearch":
        """The search in a file. Raises `RunError` if there is none or it cannot be read."""
        path = Path(path)
        if not path.exists():
            raise RunError(f"there is no search at {path}: begin one with hw.ArchiveSearch(…)")
        stored = _read(path)
        found = cls.__new__(cls)
        try:
            found._begin(
                [str(name) for name in stored["names"]],
                [str(name) for name in stored["measures"]],
                MeasuredSpace.from_json(stored["problem"]),
                build_method(str(stored["method"]), stored["settings"]),
                int(stored["batch_size"]),
                bool(stored["minimise"]),
                int(stored["seed"]),
                path,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from None
        found._load(stored)
        return found

    def _begin(self, names, measures, problem, method, batch_size, minimise, seed, path) -> None:
        if not isinstance(method, AbstractArchiving):
            raise SpecificationError(
                f"{type(method).__name__} keeps no archive of solutions: take a method such as "
                "MAPElites"
            )
        for name in measures:
            if name in names or name == "objective":
                raise SpecificationError(f"'{name}' cannot be a measure: it has a meaning already")
        if not 1 <= batch_size <= problem.capacity:
            raise SpecificationError(
                f"batch_size = {batch_size}: it must be at least 1, and at most the "
                f"{problem.capacity} simulations that there may be"
            )
        self.names: list[str] = names
        self.measures: list[str] = measures
        self.problem: MeasuredSpace = problem
        self.method: Any = method
        self.batch_size, self.minimise, self.seed = batch_size, minimise, seed
        self.path: Path | None = None if path is None else Path(path)
        self._updates = 0
        self._batch: list[Simulation] = []
        self._state = _init(method, problem, jax.random.key(seed))

    @property
    def archive(self) -> Archive:
        """The best solution found for each cell of measures, in the unit cube."""
        return self.method.archive(self._state)

    @property
    def coverage(self) -> float:
        """The share of the cells of measures in which there is a solution."""
        return float(self.archive.coverage())

    @property
    def pending(self) -> list[Simulation]:
        """The solutions that were asked for and are not told yet."""
        return [each for each in self._batch if each.status == "asked"]

    @property
    def simulations(self) -> int:
        """How many were told, those that failed included."""
        done = sum(each.status != "asked" for each in self._batch)
        return self._updates * self.batch_size + done

    def table(self) -> pa.Table:
        """The archive as a table: the quantities, `objective` and the measures, by name."""
        return archive_table(self.archive, self.problem, self.names, self.measures, sign=self._sign)

    def ask(self) -> list[Simulation]:
        """The solutions to be simulated next; they are in the file before this returns.

        As long as some of a batch are not told, these. Raises `RunError` if there are as many
        simulations as there may be.
        """
        with self._current():
            if not self.pending:
                begun = self._updates * self.batch_size
                if begun + self.batch_size > self.problem.capacity:
                    raise RunError(
                        f"there were {begun} simulations, and {self.batch_size} more are beyond "
                        f"the {self.problem.capacity} that there may be: begin a search with a "
                        "higher `most`"
                    )
                points = _offspring(self.method, self._state, self.batch_size, self._key(0))
                points = np.asarray(self.problem.space.rounded(points))
                self._batch = [
                    Simulation(begun + row, named_point(self.problem.space, self.names, point))
                    for row, point in enumerate(points)
                ]
        return self.pending

    def tell(
        self,
        number: Any,
        value: Any,
        measures: Mapping[str, Any] | None = None,
        frame: Any = None,
    ) -> None:
        """What a solution was worth and did; `value=None` if its simulation failed.

        Raises `SpecificationError` if it was not asked for, or told already as something else, and
        `DataError` for what is no finite number, or lies outside of its bounds.
        """
        self.tell_all([(number, value, measures, frame)])

    def tell_all(self, outcomes: Iterable[Sequence[Any]]) -> None:
        """Several outcomes, of which each is what `tell` takes, written to the file once."""
        with self._current():
            for outcome in outcomes:
                self._tell(*outcome)
            if self._batch and not self.pending:
                self._learn()

    def evaluate(self, simulate: Callable[..., Any], batches: int = 1) -> None:
        """Simulates so many batches here, and tells each outcome as soon as it is known.

        **Arguments:** `simulate`: from the quantities, by name, to the arguments of `tell` behind
        the number: a value and measures, and a frame where there is one.

        Raises `RunError` if it fails; what was told stays told.
        """
        for _ in range(batches):
            for each in self.ask():
                try:
                    outcome = simulate(**each.point)
                except Exception as error:
                    where = "" if self.path is None else f" in {self.path}"
                    raise RunError(
                        f"the simulator failed at solution {each.number} "
                        f"({type(error).__name__}: {error}); what was told before is kept{where}: "
                        f"mend it and evaluate again, or tell({each.number}, None)"
                    ) from error
                if not isinstance(outcome, tuple | list) or len(outcome) not in (1, 2, 3):
                    raise RunError(
                        f"the simulator gave {outcome!r} for solution {each.number}: a value and "
                        "measures by name are needed, and a frame where there is one; (None,) if "
                        "it failed"
                    )
                self.tell(each.number, *outcome)

    def _tell(self, number: Any, value: Any, measures: Any = None, frame: Any = None) -> None:
        begun = self._updates * self.batch_size
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise SpecificationError(
                f"a solution is told by its number, solution.number, not by {number!r}"
            )
        if not begun <= number < begun + len(self._batch):
            there = (
                f"{begun} … {begun + len(self._batch) - 1}" if self._batch else "none: ask first"
            )
            raise SpecificationError(
                f"solution {number} is not waited for: what was asked for is {there}"
            )
        old = self._batch[int(number) - begun]
        new = self._outcome(old, value, measures, frame)
        if old.status != "asked" and old != new:
            raise SpecificationError(
                f"solution {number} was told already, as something else: correct the file if that "
                "is wrong"
            )
        self._batch[old.number - begun] = new

    def _outcome(self, old: Simulation, value: Any, measures: Any, frame: Any) -> Simulation:
        if value is None:
            return Simulation(old.number, old.point, "failed")
        where = f"solution {old.number}"
        if not isinstance(measures, Mapping):
            raise DataError(f"{where} needs its measures by name: {', '.join(self.measures)}")
        for name in (*self.measures, *measures):
            if name not in measures:
                raise DataError(f"{where} has no measure '{name}'")
            if name not in self.measures:
                raise DataError(f"{where}: {nearest(str(name), self.measures, 'measure')}")
        found = {n: finite_number(measures[n], f"{where}: {n}") for n in self.measures}
        bounds = zip(found.items(), self.problem.measure_low, self.problem.measure_high)
        for (name, number), low, high in bounds:
            if not low <= number <= high:
                raise DataError(
                    f"{where}: {name} = {number:g} lies outside of {low:g} … {high:g}: clip it "
                    "before it is told, or begin a search with wider bounds"
                )
        try:
            pixels = np.zeros(0) if frame is None else np.asarray(frame, np.float64).reshape(-1)
        except (TypeError, ValueError):
            raise DataError(f"{where} has a frame that is no array of numbers") from None
        if len(pixels) != self.problem.frame_size or not np.isfinite(pixels).all():
            raise DataError(
                f"{where} has a frame of {len(pixels)} numbers: {self.problem.frame_size} finite "
                "ones are needed"
            )
        worth = finite_number(value, f"the value of {where}")
        return Simulation(old.number, old.point, "told", worth, found, pixels.tolist())

    def _learn(self) -> None:
        """One update of the method from the batch, all of which was told."""
        rows = self.batch_size
        points = np.zeros((rows, self.problem.size), np.float32)
        values = np.full(rows, np.nan, np.float32)
        measures = np.zeros((rows, self.problem.measures), np.float32)
        frames = np.zeros((rows, self.problem.frame_size), np.float32)
        for row, each in enumerate(self._batch):
            where = f"solution {each.number}"
            points[row] = unit_point(self.problem.space, self.names, each.point, where)
            if each.value is not None:
                values[row] = self._sign * each.value
                measures[row] = [each.measures[name] for name in self.measures]
                frames[row] = each.frame
        data = MeasuredQueries(*(jnp.asarray(x) for x in (points, values, measures, frames)))
        self._state = _update(self.method, self._state, data, self._key(1))
        self._updates += 1
        self._batch = []

    @property
    def _sign(self) -> float:
        return -1.0 if self.minimise else 1.0

    def _key(self, part: int):
        key = jax.random.fold_in(jax.random.key(self.seed), self._updates)
        return jax.random.fold_in(key, part)

    # The file -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """With the file as it is now and nobody else at it; what was changed is written at the end.

        Whatever goes wrong between leaves the search as it was.
        """
        with locked(self.path):
            if self.path is not None and self.path.exists():
                stored = _read(self.path)
                self._check_same(stored)
                self._load(stored)
            before = self._updates, list(self._batch), self._state
            try:
                yield
                self._save()
            except BaseException:
                self._updates, self._batch, self._state = before
                raise

    def _save(self) -> None:
        if self.path is None:
            return
        leaves = [_written(leaf) for leaf in jax.tree.leaves(self._state)]
        batch = [each._asdict() for each in self._batch]
        progress = {"updates": self._updates, "batch": batch, "state": leaves}
        write_json(self.path, {"format": _FORMAT, **self._identity(), **progress})

    def _identity(self) -> dict[str, Any]:
        """What has to stay the same for a search to go on."""
        return {
            "names": self.names,
            "measures": self.measures,
            "problem": self.problem.to_json(),
            "method": type(self.method).__name__,
            "settings": settings(self.method),
            "batch_size": self.batch_size,
            "minimise": self.minimise,
            "seed": self.seed,
        }

    def _check_same(self, stored: dict[str, Any]) -> None:
        for name, value in self._identity().items():
            if stored.get(name) != value:
                raise SpecificationError(
                    f"the search in {self.path} was begun with another {name} "
                    f"({stored.get(name)}, not {value}): give what it was begun with, or "
                    "ArchiveSearch.open it"
                )

    def _load(self, stored: dict[str, Any]) -> None:
        leaves, tree = jax.tree.flatten(self._state)
        try:
            found = [_read_array(each) for each in stored["state"]]
            updates = stored["updates"]
            if isinstance(updates, bool) or not isinstance(updates, int) or updates < 0:
                raise ValueError(f"it counts {updates!r} updates")
            batch = self._stored_batch(stored["batch"], updates * self.batch_size)
        except (DataError, KeyError, TypeError, ValueError) as error:
            raise _damaged(self.path, error) from None
        if [(x.shape, x.dtype) for x in found] != [(x.shape, x.dtype) for x in leaves]:
            raise RunError(
                f"{self.path} holds a state that {type(self.method).__name__} of this version of "
                "Headwater does not have: go on with the version that wrote it, or begin a new file"
            )
        self._state = jax.tree.unflatten(tree, [jnp.asarray(x) for x in found])
        self._batch, self._updates = batch, updates

    def _stored_batch(self, rows: Any, begun: int) -> list[Simulation]:
        """The solutions of a file, checked like those that are told: files are edited by hand."""
        if not isinstance(rows, list) or len(rows) not in (0, self.batch_size):
            raise ValueError(f"its batch is no list of {self.batch_size} solutions, or of none")
        batch = []
        for number, row in enumerate(rows, begun):
            if not isinstance(row, dict) or set(row) != set(Simulation._fields):
                known = ", ".join(Simulation._fields)
                raise ValueError(f"solution {number} has other entries than {known}")
            found = Simulation(**row)
            if found.number != number or found.status not in ("asked", "told", "failed"):
                raise ValueError(f"solution {number} makes no sense")
            unit_point(self.problem.space, self.names, found.point, f"solution {number}")
            if found.status == "told":
                frame = found.frame if self.problem.frame_size else None
                checked = self._outcome(found, found.value, found.measures, frame)
                if checked.status != "told":
                    raise ValueError(f"solution {number} was told, but has no value")
            batch.append(found)
        return batch


def _bounds(measures: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not isinstance(measures, Mapping) or not measures:
        raise SpecificationError("measures are a table of two bounds by name, at least one")
    low, high = [], []
    for name, bounds in measures.items():
        try:
            least, most = (float(end) for end in bounds)
        except (TypeError, ValueError):
            raise SpecificationError(f"measure {name}: give two bounds, not {bounds!r}") from None
        low.append(least)
        high.append(most)
    return tuple(low), tuple(high)


def _written(leaf: Any) -> dict[str, Any]:
    array = np.asarray(leaf)
    text = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"shape": list(array.shape), "dtype": str(array.dtype), "bytes": text}


def _read_array(stored: dict[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(stored["bytes"], validate=True), stored["dtype"])
    return flat.reshape(stored["shape"]).copy()


def _damaged(path: Path | None, error: Exception) -> RunError:
    return RunError(f"{path} is no archive of a search, or a damaged one ({error})")


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = json_text.parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None
    if not isinstance(stored, dict) or "format" not in stored or "state" not in stored:
        raise RunError(f"{path} is no archive of a search: give another path")
    if stored["format"] != _FORMAT:
        raise RunError(
            f"{path} is an archive of format {stored['format']}, and this version of Headwater "
            f"reads format {_FORMAT}: open it with the version that wrote it, or begin a new file"
        )
    return stored


@eqx.filter_jit
def _init(method, problem, key):
    return method.init(problem, key=key)


@eqx.filter_jit
def _offspring(method, state, count, key):
    return method.offspring(state, count, key=key)


@eqx.filter_jit
def _update(method, state, data, key):
    return told(method, state, data, key=key)
