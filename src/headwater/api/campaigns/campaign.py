"""A campaign of experiments that somebody else makes: ask where, tell what came out."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.api.campaigns.quantities import (
    as_space,
    finite_number,
    locked,
    named_point,
    unit_point,
    whole_number,
)
from headwater.api.inputs import as_method
from headwater.api.run import Run, open_run
from headwater.core import json_text
from headwater.core.catalogue import build_method, learns_from, settings
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.core.method import AbstractMethod, AbstractProposer, AbstractWarmStart, Agent
from headwater.core.problems.search_space import SearchSpace
from headwater.core.problems.trial import Trial
from headwater.core.records import Queries
from headwater.reports.campaign import Summary
from headwater.runs.feeds.queries import taught
from headwater.runs.files import write_json

_FORMAT = 1
_LEAST_ROOM = 64
"""Room of the first program: half of it would save 3 ms an experiment, and compiling again for the
33rd took 7 s (`results/benchmarks/suggestions.json`)."""
_TOO_ALIKE = 1e-5


class Campaign:
    """Experiments chosen one after the other, kept in a file that survives a kill at any instant.

    ```python
    campaign = hw.Campaign({"rate": hw.Component(1e-4, 1e-1, logarithmic=True)}, "campaign.json")
    trial = campaign.ask()
    campaign.tell(trial.number, accuracy(**trial.point))
    ```

    Several may be asked for before the first is told, and told in any order. Where the file exists
    the campaign goes on from it.

    **Arguments:** `space`: by name a `Component` or two bounds, or a sequence of the only points
    that are possible, each by name; `path`: of the file, or `None` to keep it in memory; `method`:
    one that proposes points, by name or as an object (default: that of `begin`, or
    `ExpectedImprovement`); `begin`: a run that learned from earlier tasks (of `NAP`, say) or its
    directory, whose first seed is gone on with; `costs`: of an experiment at each fidelity, the
    cheapest first and last the experiment itself, for methods that choose among them; `minimise`:
    less is better; `most`: experiments there may be, earlier ones included; `seed`: of all
    randomness.

    Raises `SpecificationError` for what does not fit together, or if the file is of another space
    or method; `RunError` if it cannot be read.
    """

    def __init__(
        self,
        space: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        path: str | os.PathLike | None = None,
        *,
        method: AbstractMethod | str | type | None = None,
        begin: Run | str | os.PathLike | None = None,
        costs: Sequence[float] = (1.0,),
        minimise: bool = False,
        most: int = 200,
        seed: int = 0,
    ):
        most, seed = whole_number(most, "most"), whole_number(seed, "seed")
        names, box = as_space(space)
        box = dataclasses.replace(box, costs=tuple(float(cost) for cost in costs))
        run = begin if isinstance(begin, Run) or begin is None else open_run(Path(begin))
        usual = "ExpectedImprovement" if run is None else run.method
        chosen = as_method(usual if method is None else method)
        self._begin(names, box, chosen, run, minimise, most, seed, path)
        if self.path is not None and self.path.exists():
            with locked(self.path):
                stored = _read(self.path)
                self._check_same(stored)
                self._load(stored)
        elif self.path is not None:
            with locked(self.path):
                self._save()

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Campaign":
        """The campaign in a file. Raises `RunError` if there is none or it cannot be read."""
        path = Path(path)
        if not path.exists():
            raise RunError(f"there is no campaign at {path}: begin one with hw.Campaign(space, …)")
        stored = _read(path)
        found = cls.__new__(cls)
        names, space = _space_of(stored, path)
        try:
            found._begin(
                names,
                space,
                build_method(str(stored["method"]), stored["settings"]),
                None if stored.get("begin") is None else open_run(stored["begin"]),
                bool(stored["minimise"]),
                int(stored["most"]),
                int(stored["seed"]),
                path,
            )
            found._load(stored)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is no campaign, or a damaged one ({error})") from None
        return found

    def _begin(self, names, space, method, begin, minimise, most, seed, path) -> None:
        name = type(method).__name__
        of_spaces = learns_from(type(method))[0] is SearchSpace
        if not of_spaces or not isinstance(method, AbstractProposer):
            raise SpecificationError(
                f"{name} proposes no experiments: take a method such as ExpectedImprovement"
            )
        self.names: list[str] = names
        self.space: SearchSpace = dataclasses.replace(space, capacity=most)
        self.method: Any = method
        self.minimise, self.most, self.seed = minimise, most, seed
        self.path: Path | None = None if path is None else Path(path)
        self._earlier: list[Trial] = []
        self._trials: list[Trial] = []
        self._units: dict[tuple[Any, ...], np.ndarray] = {}
        # What the method cannot take is said before the first experiment is paid for.
        jax.eval_shape(lambda key: self.method.init(self.space, key=key), jax.random.key(0))
        self._learned: Agent | None = None if begin is None else self._agent_of(begin)
        self._place: str | None = None
        if begin is not None and begin.path is not None:
            self._place = str(Path(begin.path).resolve())
        if begin is not None and self.path is not None and self._place is None:
            raise SpecificationError(
                "a campaign in a file begins with a run in a directory: give the run one (out=…)"
            )

    def _agent_of(self, run: Run) -> Agent:
        """What the first seed of a run learned. Raises if the method cannot go on from it."""
        if not run.finished:
            raise RunError(f"{run.path} is not finished: `headwater resume {run.path}` first")
        agent = Agent(run.method, jax.tree.map(lambda x: jnp.asarray(x)[0], run.state))
        name, method = type(self.method).__name__, self.method
        begun = None
        if isinstance(method, AbstractWarmStart):
            begun = eqx.filter_eval_shape(method.warm_start, agent, self.space, key=self._key(0))
        if begun is None:
            raise SpecificationError(
                f"{name} cannot go on from what {type(run.method).__name__} learned: leave out "
                "begin, or take the method that learned it in a space of as many quantities"
            )
        return agent

    @property
    def trials(self) -> list[Trial]:
        """All experiments that were asked for, in this order."""
        return list(self._trials)

    @property
    def earlier(self) -> list[Trial]:
        """Experiments that were made before, numbered by themselves."""
        return list(self._earlier)

    @property
    def pending(self) -> list[Trial]:
        """Those that are not told yet."""
        return [trial for trial in self._trials if trial.status == "asked"]

    @property
    def best(self) -> Trial | None:
        """The experiment with the best value so far at the last fidelity, `None` without any."""
        every, last = (*self._earlier, *self._trials), self.space.fidelities - 1
        told = [(t.value, t) for t in every if t.value is not None and t.fidelity == last]
        return max(told, key=lambda pair: self._sign * pair[0])[1] if told else None

    def ask(self) -> Trial:
        """The next experiment; it is in the file before this returns.

        Raises `RunError` if there are as many as there may be.
        """
        with self._current():
            if len(self._earlier) + len(self._trials) >= self.most:
                raise RunError(
                    f"there are {self.most} experiments, as many as there may be: begin a campaign "
                    "with a higher `most`, and add these to it"
                )
            number = len(self._trials)
            state, metrics = self._believed()
            point, fidelity = _propose(self.method, state, self._key(number))
            values = {name: float(value) for name, value in metrics.items()}
            trial = Trial(number, self._named(point), metrics=values, fidelity=int(fidelity))
            self._trials.append(trial)
        return trial

    def tell(self, number: Any, value: Any) -> None:
        """What came out of an experiment; `None` if it failed, so that nothing is known.

        Raises `SpecificationError` if it was not asked for, or told already as something else, and
        `DataError` for a value that is no finite number.
        """
        with self._current():
            if isinstance(number, bool) or not isinstance(number, int | np.integer):
                raise SpecificationError(
                    f"an experiment is told by its number, trial.number, not by {number!r}"
                )
            if not 0 <= number < len(self._trials):
                raise SpecificationError(
                    f"there is no experiment {number}: there are {len(self._trials)}, numbered "
                    "from 0"
                )
            number = int(number)
            value = (
                None if value is None else finite_number(value, f"the value of experiment {number}")
            )
            old = self._trials[number]
            if old.status != "asked" and (old.value, old.status == "failed") != (
                value,
                value is None,
            ):
                outcome = "failed" if old.status == "failed" else f"{old.value:g}"
                raise SpecificationError(
                    f"experiment {number} was told already: {outcome}; correct the file if that is "
                    "wrong"
                )
            status = "failed" if value is None else "told"
            self._trials[number] = old._replace(status=status, value=value)
            self._check_resolution()

    def add(
        self,
        points: Sequence[Mapping[str, Any]],
        values: Sequence[Any],
        fidelities: Sequence[int] | None = None,
    ) -> None:
        """Experiments that were made before, or by others, as experience to begin with.

        **Arguments:** `fidelities`: of each, by default the last.

        Raises `DataError`, naming the row, for what is no experiment in this space.
        """
        if len(points) != len(values):
            raise DataError(f"{len(points)} points and {len(values)} values: each needs the other")
        last = self.space.fidelities - 1
        levels = [last] * len(points) if fidelities is None else list(fidelities)
        if len(levels) != len(points):
            raise DataError(f"{len(points)} points and {len(levels)} fidelities: one for each")
        rows = []
        for row, (point, value, level) in enumerate(zip(points, values, levels)):
            if level not in range(last + 1):
                raise DataError(f"row {row + 1}: fidelity {level} is not one of 0 … {last}")
            self._unit(point, f"row {row + 1}")
            number = finite_number(value, f"row {row + 1}: the value")
            place = {name: float(point[name]) for name in self.names}
            rows.append(Trial(row, place, "told", number, fidelity=int(level)))
        with self._current():
            known = len(self._earlier) + len(self._trials) + len(rows)
            if known > self.most:
                raise DataError(
                    f"{len(rows)} more make {known} experiments, and there may be {self.most}: "
                    "begin the campaign with a higher `most`"
                )
            self._earlier += [row._replace(number=len(self._earlier) + row.number) for row in rows]
            self._check_resolution()

    def recommend(self) -> dict[str, float]:
        """The point whose expected value is the best, whether it was tried or not.

        Raises `RunError` before anything was told.
        """
        with self._current(write=False):
            if self.best is None:
                raise RunError("nothing was told yet, so that there is nothing to recommend")
            state, _ = self._believed(waiting=False)
            return self._named(_recommend(self.method, state, self._key(self.most)))

    def report(self, path: str | os.PathLike) -> Path:
        """Writes what is known so far: an HTML page, or the figure alone where `path` is a `.png`.

        Raises `RunError` if it cannot be written, `SpecificationError` for another ending.
        """
        from headwater.reports.campaign import draw_campaign, write_campaign

        path = Path(path)
        if path.suffix.lower() not in (".html", ".png"):
            raise SpecificationError(f"{path} is neither an .html page nor a .png figure")
        write = write_campaign if path.suffix.lower() == ".html" else draw_campaign
        write(self.summary(), path)
        return path

    def summary(self) -> Summary:
        """What is known so far, as it is shown."""
        recommended = None if self.best is None else self.recommend()
        return Summary(
            "campaign" if self.path is None else self.path.stem,
            self.names,
            self.earlier,
            self.trials,
            self.best,
            recommended,
            self.minimise,
            self.most,
            {"method": type(self.method).__name__, **settings(self.method)},
            dict(zip(self.names, self.space.logarithmic or (False,) * self.space.size)),
            self.space.costs,
        )

    @property
    def _sign(self) -> float:
        return -1.0 if self.minimise else 1.0

    def _key(self, number: int):
        return jax.random.fold_in(jax.random.key(self.seed), number)

    def _believed(self, *, waiting: bool = True) -> tuple[Any, dict[str, Any]]:
        """The state after all that was told, and what is expected of what was asked."""
        told = [t for t in (*self._earlier, *self._trials) if t.value is not None]
        pending = self.pending if waiting else []
        # Room grows by doubling, so that few programs are compiled and small tables stay fast.
        room = _LEAST_ROOM
        while room < min(self.most, len(told) + len(pending)):
            room *= 2
        space = dataclasses.replace(self.space, capacity=min(room, self.most))
        points = np.zeros((space.capacity, space.size), np.float32)
        values = np.full(space.capacity, np.nan, np.float32)
        levels = np.zeros(space.capacity, np.int32)
        for row, trial in enumerate(told):
            points[row] = self._unit(trial.point, f"experiment {trial.number}")
            assert trial.value is not None
            values[row], levels[row] = self._sign * trial.value, trial.fidelity
        none = jnp.zeros(space.capacity)
        data = Queries(jnp.asarray(points), jnp.asarray(values), jnp.asarray(levels), none)
        state, metrics = _learned(self.method, space, data, self._learned)
        for trial in pending:
            point = jnp.asarray(self._unit(trial.point, f"experiment {trial.number}"), jnp.float32)
            fidelity = jnp.asarray(trial.fidelity, jnp.int32)
            state = _expected(self.method, state, point, fidelity)
        return state, metrics

    def _named(self, point: Any) -> dict[str, float]:
        """A point of the unit cube in the user's units, by name."""
        return named_point(self.space, self.names, point)

    def _unit(self, point: Mapping[str, Any], where: str) -> np.ndarray:
        """A point by name in the unit cube. Raises `DataError` for what lies outside.

        Remembered, as every experiment is looked at again before each of those that follow.
        """
        numbers = isinstance(point, Mapping) and all(
            isinstance(value, float | int) for value in point.values()
        )
        if not numbers:
            return unit_point(self.space, self.names, point, where)
        key = tuple(point.items())
        if key not in self._units:
            self._units[key] = unit_point(self.space, self.names, point, where)
        return self._units[key]

    def _check_resolution(self) -> None:
        values = [t.value for t in (*self._earlier, *self._trials) if t.value is not None]
        size, spread = max(map(abs, values), default=0.0), np.ptp(values) if values else 0.0
        if 0.0 < spread < _TOO_ALIKE * size:
            raise DataError(
                f"values lie between {min(values):.9g} and {max(values):.9g}, which single "
                "precision can hardly tell apart: subtract a constant from all of them"
            )

    # The file -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _current(self, *, write: bool = True) -> Iterator[None]:
        """With the file as it is now and nobody else at it; what was changed is written at the end.

        Whatever goes wrong between leaves the campaign as it was.
        """
        with locked(self.path):
            if self.path is not None and self.path.exists():
                stored = _read(self.path)
                self._check_same(stored)
                self._load(stored)
            before = list(self._earlier), list(self._trials)
            try:
                yield
                if write:
                    self._save()
            except BaseException:
                self._earlier, self._trials = before
                raise

    def _save(self) -> None:
        if self.path is None:
            return
        each = {"earlier": self._earlier, "trials": self._trials}
        lists = {name: [trial._asdict() for trial in trials] for name, trials in each.items()}
        write_json(self.path, {"format": _FORMAT, **self._identity(), **lists})

    def _identity(self) -> dict[str, Any]:
        """What has to stay the same for a campaign to go on."""
        return {
            "names": self.names,
            "space": self.space.to_json(),
            "method": type(self.method).__name__,
            "settings": settings(self.method),
            "begin": self._place,
            "minimise": self.minimise,
            "most": self.most,
            "seed": self.seed,
        }

    def _check_same(self, stored: dict[str, Any]) -> None:
        names, space = _space_of(stored, self.path)
        if names != self.names:
            changed = f"quantities were {', '.join(names)} and are {', '.join(self.names)}"
        else:
            changed = space.mismatch(self.space)
        if changed is not None:
            raise SpecificationError(
                f"the campaign in {self.path} is of another space ({changed}): give the space as "
                "it was, or begin a new file and `add` the experiments that are still of use"
            )
        for name, value in self._identity().items():
            if name not in ("names", "space") and stored.get(name) != value:
                raise SpecificationError(
                    f"the campaign in {self.path} was begun with another {name} "
                    f"({stored.get(name)}, not {value}): give what it was begun with, or "
                    "Campaign.open it"
                )

    def _load(self, stored: dict[str, Any]) -> None:
        try:
            self._earlier, self._trials = (
                [_trial(row, i) for i, row in enumerate(_listed(stored, name))]
                for name in ("earlier", "trials")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path} is no campaign, or a damaged one ({error})") from None
        for trial in (*self._earlier, *self._trials):
            where = f"{self.path}: experiment {trial.number}"
            self._unit(trial.point, where)
            if trial.fidelity not in range(self.space.fidelities):
                last = self.space.fidelities - 1
                raise RunError(
                    f"{where} has the fidelity {trial.fidelity!r}, not one of 0 … {last}"
                )


def _space_of(stored: dict[str, Any], path: Path | None) -> tuple[list[str], SearchSpace]:
    try:
        return [str(name) for name in _listed(stored, "names")], SearchSpace.from_json(
            stored["space"]
        )
    except (KeyError, TypeError, ValueError, SpecificationError) as error:
        raise RunError(f"{path} is no campaign, or a damaged one ({error})") from None


def _listed(stored: dict[str, Any], name: str) -> list[Any]:
    if not isinstance(stored[name], list):
        raise ValueError(f"'{name}' is no list")
    return stored[name]


def _trial(row: Any, number: int) -> Trial:
    if not isinstance(row, dict) or not {"number", "point"} <= set(row) <= set(Trial._fields):
        known = ", ".join(Trial._fields)
        raise ValueError(f"experiment {number} has other entries than {known}")
    trial = Trial(**row)
    right = trial.number == number and isinstance(trial.point, dict)
    known = trial.status in ("asked", "told", "failed")
    value = math.nan if isinstance(trial.value, bool) else trial.value
    numeric = isinstance(value, int | float) and math.isfinite(value)
    if not right or not known or (trial.status == "told") is not numeric:
        raise ValueError(f"experiment {number} makes no sense")
    return trial


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = json_text.parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as a campaign ({error})") from None
    if not isinstance(stored, dict) or "format" not in stored or "trials" not in stored:
        raise RunError(f"{path} is no campaign: give another path")
    if stored["format"] != _FORMAT:
        raise RunError(
            f"{path} is a campaign of format {stored['format']}, and this version of Headwater "
            f"reads format {_FORMAT}: open it with the version that wrote it, or begin a new file "
            "and `add` its experiments"
        )
    return stored


@eqx.filter_jit
def _learned(method, space, data, learned):
    return taught(method, space, data, learned, key=jax.random.key(0))


@eqx.filter_jit
def _expected(method, state, point, fidelity):
    return method.expect(state, point, fidelity)


@eqx.filter_jit
def _propose(method, state, key):
    return method.propose(state, key=key)


@eqx.filter_jit
def _recommend(method, state, key):
    return method.recommend(state, key=key)
