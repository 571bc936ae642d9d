"""The table of a sweep: methods × datasets × processes × settings × seeds, read and checked.

A file is data: TOML or JSON, with no name in it that would be imported.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import re
import tomllib
import typing
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from headwater.core import json_text
from headwater.core.catalogue import build_method, method_class, settings
from headwater.core.errors import DataError, HeadwaterError, SpecificationError, nearest
from headwater.core.method import AbstractMethod
from headwater.datasets.read import locate
from headwater.runs.options import TRAIN, Options

MOST_RUNS = 10_000
"""More than this is a slip."""

_LARGEST_FILE = 2**20
_LONGEST_NAME = 120

_TEXT, _WHOLE, _NUMBER = "a text", "a whole number", "a number"
_SEEDS, _NUMBERS = "a whole number, or a list of them", "a list of numbers"
_TEXTS, _NAMES = "a text, or a list of them", "a list of names"


def _kind_of(hint: Any) -> str:
    """How a table says an option of this type."""
    if typing.get_origin(hint) is Literal:
        return _TEXT
    kinds = {int: _WHOLE, float: _NUMBER, str: _TEXT, bool: "true or false"}
    kinds |= {tuple[float, ...]: _NUMBERS, tuple[int, ...]: _SEEDS, tuple[str, ...]: _NAMES}
    if hint in kinds:
        return kinds[hint]
    # The last one says the most: seeds are one number or several.
    return [_kind_of(part) for part in typing.get_args(hint) if part is not type(None)][-1]


_HINTS = typing.get_type_hints(Options)
_KEYS = {
    "methods": _NAMES,
    "datasets": "a list of paths, or a table of names and paths",
    "environment": _TEXT,
    "environment_options": "a table",
    "process": _TEXTS,
    "process_options": "a table",
    "model": _TEXT,
    "reward": _TEXTS,
    "seeds_per_run": _WHOLE,
    **{field.name: _kind_of(_HINTS[field.name]) for field in TRAIN.fields()},
    "grid": "a table",
}
"""What a file may say, and how."""


@dataclasses.dataclass(frozen=True)
class Table:
    """What a file says.

    **Arguments:** `where`: the file, for messages; `methods`: by their proper names; `datasets`:
    name to place; `processes`: of a list, by the names that runs are told apart by, of which there
    are none if the table says one process or none; `alternatives`: of every hyper-parameter in the
    grid, by method; `rest`: the other keys, which are arguments and options of `headwater.train`;
    `folder`: that paths are relative to.
    """

    where: str
    methods: list[str]
    datasets: dict[str, str]
    processes: dict[str, str]
    alternatives: dict[str, dict[str, list[Any]]]
    rest: dict[str, Any]
    folder: Path = Path()

    def count(self, method: str) -> int:
        """How many settings of `method` there are."""
        return math.prod(map(len, self.alternatives[method].values()))

    def wrong(self, what: object) -> SpecificationError:
        """An error about this file."""
        return SpecificationError(f"{self.where}: {what}")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A method with hyper-parameters from the grid.

    **Arguments:** `chosen`: the hyper-parameters that the grid sets, as values that JSON can hold.
    """

    method: AbstractMethod
    chosen: dict[str, Any]

    @property
    def labels(self) -> list[str]:
        """One text for each hyper-parameter of the grid."""
        return [f"{name}={_short(value)}" for name, value in self.chosen.items()]


def read_table(given: str | Path | Mapping[str, Any]) -> Table:
    """The table in a file, or given as a mapping, with every key and every value checked.

    Raises `SpecificationError`, naming the file and the key, for what is wrong.
    """
    if isinstance(given, Mapping):
        return _checked("the table", dict(given), Path())
    path = Path(given)
    return _checked(str(path), _read_file(path), path.parent)


def settings_of(table: Table, method: str) -> list[Setting]:
    """Every combination of the alternatives of `method`."""
    found = []
    alternatives = table.alternatives[method]
    for values in itertools.product(*alternatives.values()):
        built = build_method(method, dict(zip(alternatives, values)))
        plain = settings(built)
        found.append(Setting(built, {name: plain[name] for name in sorted(alternatives)}))
    return found


def named(*parts: str) -> str:
    """A name for a directory, with what is too long for one shortened."""
    plain = (re.sub(r"[^A-Za-z0-9._=+-]+", "-", part).strip("-.") for part in parts)
    whole = "-".join(part for part in plain if part)
    if len(whole) <= _LONGEST_NAME:
        return whole
    return f"{whole[:_LONGEST_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def _read_file(path: Path) -> dict[str, Any]:
    if path.suffix.lower() in (".yaml", ".yml"):
        raise SpecificationError(f"{path}: a table is TOML or JSON; YAML is not read")
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise SpecificationError(f"{path}: {error.strerror or error}") from None
    if len(content) > _LARGEST_FILE:
        raise SpecificationError(f"{path}: this is too large for the table of a sweep")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SpecificationError(f"{path}: this is no text, so no table in TOML or JSON") from None
    try:
        read = json_text.parse(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
        reason = " ".join(str(error).split())
        raise SpecificationError(f"{path}: this is not {kind} ({reason})") from None
    if not isinstance(read, dict):
        raise SpecificationError(f"{path}: this is not a table with keys such as methods")
    return read


def _checked(where: str, read: dict[str, Any], folder: Path) -> Table:
    for key, value in read.items():
        if key not in _KEYS:
            raise SpecificationError(f"{where}: {nearest(str(key), _KEYS, 'key')}")
        if not _fits(value, _KEYS[key]):
            raise SpecificationError(f"{where}: {key} = {_shown(value)} must be {_KEYS[key]}")
    methods = []
    for name in read.get("methods", []):
        try:
            proper = method_class(name).__name__
        except SpecificationError as error:
            raise SpecificationError(f"{where}: methods: {error}") from None
        if proper in methods:
            raise SpecificationError(f"{where}: methods: {proper} is listed twice")
        methods.append(proper)
    if not methods:
        raise SpecificationError(f'{where}: there is nothing to do: give methods = ["IQL", …]')
    environment = read.get("environment", "")
    if ":" in environment and not environment.startswith(("envpool:", "gym-electric-motor:")):
        raise SpecificationError(
            f"{where}: environment = '{environment}' would import a module, which a table may not: "
            "use `headwater train --env` for it"
        )
    for named in ("environment", "process"):
        if f"{named}_options" in read and not read.get(named):
            raise SpecificationError(f"{where}: {named}_options need {named}")
    rewards = read.get("reward", [])
    for reward in [rewards] if isinstance(rewards, str) else rewards:
        if ":" in reward:
            raise SpecificationError(
                f"{where}: reward = '{reward}' would import a module, which a table may not: use "
                "`headwater train --reward` for it"
            )
    table = Table(
        where,
        methods,
        _datasets(where, read.get("datasets", []), folder),
        _processes(where, read.get("process", "")),
        {method: _alternatives(where, read.get("grid", {}), method) for method in methods},
        {k: v for k, v in read.items() if k not in ("methods", "datasets", "grid")},
        folder,
    )
    for key, below in read.get("grid", {}).items():
        if isinstance(below, dict) and not any(_is(key, method) for method in methods):
            raise table.wrong(f"[grid.{key}]: {nearest(key, methods, 'method')} (of this table)")
    places = max(1, len(table.datasets)) * max(1, len(table.processes))
    count = sum(map(table.count, methods)) * places
    if count > MOST_RUNS:
        raise table.wrong(f"this makes {count:,} settings; at most {MOST_RUNS:,} are swept")
    return table


def _alternatives(where: str, grid: dict[str, Any], method: str) -> dict[str, list[Any]]:
    """What the grid says of `method`: its own part goes before the common one."""
    parts = [("grid", {k: v for k, v in grid.items() if not isinstance(v, dict)})]
    parts += [(f"grid.{k}", v) for k, v in grid.items() if isinstance(v, dict) and _is(k, method)]
    if len(parts) > 2:
        titles = " and ".join(f"[{title}]" for title, _ in parts[1:])
        raise SpecificationError(f"{where}: {titles} are about the same method: leave one")
    found: dict[str, list[Any]] = {}
    for title, part in parts:
        keys = [key.replace("-", "_") for key in part]
        for key, value in part.items():
            if keys.count(key.replace("-", "_")) > 1:
                raise SpecificationError(f"{where}: [{title}] {key} is there twice: leave one")
            if isinstance(value, list) and len(value) > MOST_RUNS:
                raise SpecificationError(
                    f"{where}: [{title}] {key} lists {len(value):,} values; at most {MOST_RUNS:,} "
                    "are swept"
                )
            try:
                values = _values(method, key, value)
            except SpecificationError as error:
                remedy = ""
                if title == "grid" and "unknown hyper-parameter" in str(error):
                    remedy = " What only some methods have goes into [grid.METHOD]."
                raise SpecificationError(f"{where}: [{title}] {error}{remedy}") from None
            if not values:
                raise SpecificationError(f"{where}: [{title}] {key} lists no value")
            for value, count in Counter(map(json.dumps, values)).items():
                if count > 1:
                    raise SpecificationError(f"{where}: [{title}] {key} lists {value} twice")
            found[key.replace("-", "_")] = values
    return found


def _values(method: str, key: str, given: Any) -> list[Any]:
    """The alternatives of one hyper-parameter, as values that JSON can hold.

    A list that is a value as a whole (hidden_sizes) is one alternative.
    """

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            raise SpecificationError(f"{method}.{key} = {_shown(value)} is not a plain value")
        return settings(build_method(method, {key: value}))[key.replace("-", "_")]

    if not isinstance(given, list):
        return [read(given)]
    if given and not isinstance(given[0], list):
        try:
            return [read(given)]
        except SpecificationError:
            pass
    return [read(value) for value in given]


def _datasets(where: str, given: list[str] | dict[str, str], folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    pairs = [(None, p) for p in given] if isinstance(given, list) else list(given.items())
    for name, place in pairs:
        try:
            located = _located(place, folder)
        except DataError as error:
            raise DataError(f"{where}: datasets: {error}") from None
        called = located.stem if name is None else name
        name = named(called)
        if not name:
            raise SpecificationError(
                f"{where}: datasets: no directory can be named after '{called}': give a name with "
                'letters from a to z in a part [datasets], such as first = "log.npz"'
            )
        if name in found:
            raise SpecificationError(
                f"{where}: datasets: two are called '{name}': give each a name of its own in a "
                'part [datasets], such as first = "a/log.npz"'
            )
        found[name] = str(located.resolve())
    return found


def _processes(where: str, given: str | list[str]) -> dict[str, str]:
    """The processes of a list, by the names of their files or their own."""
    found: dict[str, str] = {}
    for process in [] if isinstance(given, str) else given:
        path = Path(process)
        name = named(path.stem if path.suffix == ".npz" else process)
        if not name or name in found:
            raise SpecificationError(
                f"{where}: process: '{process}' gives runs "
                + (f"the name of '{found[name]}'" if name else "no name")
                + ": rename the file, or sweep it with a table of its own"
            )
        found[name] = process
    return found


def _located(place: str, folder: Path) -> Path:
    """A path beside the file, or a Minari dataset of this machine."""
    try:
        return locate(place if place.startswith("~") else folder / place)
    except DataError as error:
        try:
            return locate(f"minari:{place.removeprefix('minari:')}")
        except DataError:
            raise error from None


def _is(name: str, method: str) -> bool:
    try:
        return method_class(name).__name__ == method
    except HeadwaterError:
        return False


def _fits(value: Any, kind: str) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind == _NAMES:
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    if kind == _KEYS["datasets"]:
        if not isinstance(value, list | dict):
            return False
        listed = value.values() if isinstance(value, dict) else value
        return all(isinstance(v, str) and v for v in listed)
    if kind == _TEXTS:
        return _fits(value, _TEXT) or (
            isinstance(value, list) and bool(value) and all(_fits(v, _TEXT) for v in value)
        )
    if kind == _SEEDS:
        return whole or (isinstance(value, list) and all(_fits(v, _WHOLE) for v in value))
    if kind == _NUMBERS:
        return isinstance(value, list) and all(_fits(v, _NUMBER) for v in value)
    if kind == _NUMBER:
        return whole or (isinstance(value, float) and math.isfinite(value))
    return {
        _TEXT: isinstance(value, str),
        _WHOLE: whole,
        "true or false": isinstance(value, bool),
        "a table": isinstance(value, dict),
    }[kind]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _short(value: Any) -> str:
    """A value as part of a name."""
    if isinstance(value, list):
        return "x".join(map(_short, value)) or "none"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
