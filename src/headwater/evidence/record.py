"""What running a claim leaves behind: one JSON line for each run, in `results/<claim>.jsonl`."""

import dataclasses
import datetime
import fcntl
import json
import math
import os
import time
import traceback
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from headwater.core import json_text
from headwater.core.errors import RunError, SpecificationError
from headwater.evaluation.statistics import Interval, band
from headwater.evidence.claim import SCALES, Claim, Criterion, Finding
from headwater.evidence.fingerprints.fingerprint import fingerprint
from headwater.runs.directory import source_state, surroundings
from headwater.runs.files import explain

Outcome = Literal["holds", "fails", "undecided", "error"]
OUTCOMES: tuple[Outcome, ...] = ("holds", "fails", "undecided", "error")
"""Verdicts, and what an experiment that raises is recorded as."""

_POSITIONS = 32
"""Most positions of a curve that are kept."""
_DIGITS = 5
_MESSAGE = 600


class Curve(NamedTuple):
    """A thinned curve: the mean over seeds and its interval, `None` where there is none."""

    x: list[float]
    mean: list[float]
    low: list[float] | None
    high: list[float] | None
    seeds: int


@dataclasses.dataclass(frozen=True)
class Record:
    """One run of a claim.

    **Arguments:** `claim`, `scale`, `seed`; `outcome`: the verdict, or `"error"`; `criteria`,
    `numbers`, `across`, `up`, `logarithmic`: as found; `curves`: thinned; `message`: why it could
    not be run, if it could not; `seconds`: taken, compilation included; `time`: of its end, UTC;
    `commit`: of the source tree, with `dirty` if it had changes; `source`: fingerprint of the code
    that an experiment can depend on; `made_with`: versions, Python, platform, device.
    """

    claim: str
    scale: str
    seed: int
    outcome: Outcome
    seconds: float
    time: str
    commit: str | None
    dirty: bool | None
    source: str
    made_with: Mapping[str, Any]
    criteria: tuple[Criterion, ...] = ()
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Curve] = dataclasses.field(default_factory=dict)
    across: str = ""
    up: str = ""
    logarithmic: str = ""
    message: str = ""

    @property
    def place(self) -> tuple[str, str, int]:
        """Claim, scale and seed."""
        return self.claim, self.scale, self.seed

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        row = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        row["criteria"] = [_criterion_to_json(criterion) for criterion in self.criteria]
        row["curves"] = {name: curve._asdict() for name, curve in self.curves.items()}
        return _plain({name: value for name, value in row.items() if value not in ("", {}, [])})

    @classmethod
    def from_json(cls, row: Any) -> "Record":
        """The inverse of `to_json`. Raises `ValueError`, saying what is wrong."""
        if not isinstance(row, dict):
            raise ValueError("it is no JSON object")
        known = {field.name: field for field in dataclasses.fields(cls)}
        needed = {n for n, f in known.items() if _has_no_default(f)}
        if missing := sorted(needed - set(row)):
            raise ValueError(f"it has no {missing[0]!r}")
        given = {name: value for name, value in row.items() if name in known}
        try:
            given["criteria"] = tuple(_criterion_from_json(c) for c in given.get("criteria", ()))
            given["curves"] = {
                str(name): Curve(**{k: _numbers(v) for k, v in curve.items()})
                for name, curve in given.get("curves", {}).items()
            }
            given["seed"], given["seconds"] = int(given["seed"]), float(given["seconds"])
        except (TypeError, KeyError, AttributeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"a field is not of its type ({error})") from None
        except SpecificationError as error:
            raise ValueError(f"a field is not of its type ({error})") from None
        if given["outcome"] not in OUTCOMES or given["scale"] not in SCALES:
            raise ValueError(f"{given['scale']!r} or {given['outcome']!r} is unknown")
        hints = typing.get_type_hints(cls)
        if wrong := [name for name in given if not json_text.fits(given[name], hints[name])]:
            raise ValueError(f"{wrong[0]!r} is not of its type")
        return cls(**given)


def run_claim(claim: Claim, scale: str, *, seed: int = 0) -> Record:
    """Runs `claim` and records what it found; an experiment that raises is recorded as an error.

    Raises `SpecificationError` for a scale that the claim does not have.
    """
    if scale not in claim.scales:
        claim.find(scale, seed=seed)
    # Of the code as it is now, not as it may be when a long experiment ends.
    source_of(claim, scale)
    began = time.perf_counter()
    try:
        finding, message = claim.find(scale, seed=seed), ""
        outcome: Outcome = finding.verdict
        found = _found(finding)
    except Exception as error:
        outcome, found, message = "error", {}, _reason(error)
    return _record(claim, scale, seed, outcome, time.perf_counter() - began, message, found)


def record_of_death(claim: Claim, scale: str, seed: int, seconds: float, why: str) -> Record:
    """The record of a run whose process ended before it could say anything."""
    return _record(claim, scale, seed, "error", seconds, why, {})


def append(directory: str | Path, record: Record) -> Path:
    """Adds `record` as a line of `<directory>/<claim>.jsonl`, which it returns.

    Several processes may append at once. A last line that was cut short is closed first, so that
    it spoils no other. Raises `RunError` if the file cannot be written.
    """
    path = Path(directory) / f"{record.claim}.jsonl"
    line = json.dumps(record.to_json(), allow_nan=False, separators=(",", ":")) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0, os.SEEK_END)
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(explain(error, path)) from error
    return path


def read_records(
    directory: str | Path, names: Iterable[str] | None = None
) -> tuple[list[Record], list[str]]:
    """All records in `directory` in the order of writing, and what could not be read.

    A damaged line is left out, and told with file and line; the file is left as it is.

    **Arguments:** `names`: only of these claims.
    """
    directory = Path(directory)
    if names is None:
        paths = sorted(directory.glob("*.jsonl"))
    else:
        paths = [directory / f"{name}.jsonl" for name in names]
    records: list[Record] = []
    complaints: list[str] = []
    for path in paths:
        if not path.is_file():
            continue
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            complaints.append(explain(error, path))
            continue
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = Record.from_json(json_text.parse(line.decode("utf-8")))
                if record.claim != path.stem:
                    raise ValueError(f"it is a record of {record.claim}")
            except ValueError as error:
                why = "it is cut short or no JSON" if _is_no_json(error) else str(error)
                complaints.append(f"{path}, line {number}: skipped, {why}")
                continue
            records.append(record)
    return records, complaints


def latest(records: Iterable[Record]) -> dict[tuple[str, str, int], Record]:
    """The last record of each claim, scale and seed."""
    return {record.place: record for record in records}


def source_of(claim: Claim, scale: str) -> str:
    """A fingerprint of what the experiment of `claim` executes at `scale`, with its settings."""
    return fingerprint(claim.experiment, claim.methods, {scale: claim.scales[scale]})


def _record(claim: Claim, scale, seed, outcome, seconds, message, found) -> Record:
    commit, dirty = source_state()
    made_with = {k: v for k, v in surroundings().items() if k != "commit"}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Record(
        claim=claim.name,
        scale=scale,
        seed=seed,
        outcome=outcome,
        seconds=round(seconds, 2),
        time=now.replace("+00:00", "Z"),
        commit=commit,
        dirty=dirty,
        source=source_of(claim, scale),
        made_with=made_with,
        message=message,
        **found,
    )


def _found(finding: Finding) -> dict[str, Any]:
    return {
        "criteria": tuple(finding.criteria),
        "numbers": _plain(finding.numbers),
        "curves": {str(name): _thinned(x, y, name) for name, (x, y) in finding.curves.items()},
        "across": finding.across,
        "up": finding.up,
        "logarithmic": finding.logarithmic,
    }


def _thinned(x: Any, y: Any, name: str) -> Curve:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if y.ndim != 2 or x.shape != y.shape[1:] or not y.size:
        raise SpecificationError(
            f"the curve '{name}' has x of shape {x.shape} and y of shape {y.shape}: one position "
            "for each column, and one row for each seed, are needed"
        )
    kept = _positions(x)
    x, y = x[kept], y[:, kept]
    if not np.isfinite(y).all():
        # An interval over seeds needs all of them.
        return Curve(_short(x), _short(y.mean(0)), None, None, y.shape[0])
    middle = band(y, "mean", resamples=500)
    low = None if middle.low is None else _short(middle.low)
    high = None if middle.high is None else _short(middle.high)
    return Curve(_short(x), _short(middle.point), low, high, y.shape[0])


def _positions(x: np.ndarray) -> np.ndarray:
    """Which positions to keep: evenly spread over the curve, half of them also over its orders."""
    if x.size <= _POSITIONS:
        return np.arange(x.size)
    half = _POSITIONS // 2
    even = np.linspace(0, x.size - 1, half)
    orders = np.geomspace(1, x.size, half) - 1
    return np.unique(np.round(np.concatenate([even, orders])).astype(int))


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]


def _criterion_to_json(criterion: Criterion) -> dict[str, Any]:
    value = dataclasses.asdict(criterion.value)
    side = "at_least" if criterion.at_least is not None else "at_most"
    bound = getattr(criterion, side)
    return {"what": criterion.what, **value, side: bound, "verdict": criterion.verdict}


def _criterion_from_json(row: dict[str, Any]) -> Criterion:
    number = lambda name: None if row.get(name) is None else float(row[name])
    point = number("point")
    if point is None:
        raise ValueError("a criterion has no point")
    value = Interval(point, number("low"), number("high"), float(row["level"]), int(row["seeds"]))
    return Criterion(str(row["what"]), value, number("at_least"), number("at_most"))


def _numbers(value: Any) -> Any:
    """Lists of a stored curve with what JSON cannot hold as a number read back."""
    return [float(v) for v in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it; numbers that are not finite become text such as `"inf"`."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Interval):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if callable(getattr(value, "tolist", None)):
        return _plain(value.tolist())
    raise SpecificationError(f"a number of type {type(value).__name__} cannot be recorded")


def _has_no_default(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _is_no_json(error: ValueError) -> bool:
    return isinstance(error, json.JSONDecodeError | UnicodeDecodeError)


def _reason(error: Exception) -> str:
    """The error in a line, with the place in our code where it arose."""
    text = " ".join(str(error).split()) or "no message"
    if len(text) > _MESSAGE:
        text = text[:_MESSAGE] + " …"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "site-packages" not in f.filename and "<" not in f.filename]
    where = f" ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else ""
    return f"{type(error).__name__}: {text}{where}"
