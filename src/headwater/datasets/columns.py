"""Which column of a file plays which part, and where its episodes end."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from headwater.core.errors import DataError, SpecificationError, nearest
from headwater.core.spaces import Box
from headwater.datasets.dataset import Dataset, truncate_at

Mapping = dict[str, str | list[str]]
"""From a role to the column that plays it, to a family (`obs_*`), or to a list of columns."""
Chunk = dict[str, np.ndarray]
"""Rows of a file: one array per role."""

ROLES: dict[str, tuple[str, ...]] = {
    "observations": ("observations", "observation", "obs", "states", "state"),
    "actions": ("actions", "action", "act"),
    "rewards": ("rewards", "reward"),
    "terminals": ("terminals", "terminal", "terminations", "termination", "terminated"),
    "truncations": ("truncations", "truncation", "truncated", "timeouts", "timeout", "timed_out"),
    "dones": ("dones", "done"),
    "next_observations": (
        "next_observations",
        "next_observation",
        "next_obs",
        "next_states",
        "next_state",
    ),
    "episodes": ("episodes", "episode", "episode_id", "episode_index", "trajectory_id"),
}
"""Every role a column can play, and the names by which it is recognised unasked."""


class Options(NamedTuple):
    """What the user says about a file beyond its content.

    **Arguments:** `columns`: which column plays which role, where names are not the usual ones;
    `action_low`, `action_high`, `discrete`, `action_count`, `horizon`, `metadata`: see
    `Dataset.from_arrays`; `dones`: what a column that only says "done" means; `never_terminal`: the
    process never ends by itself, so that no column needs to say so.
    """

    columns: Mapping | None = None
    action_low: Any = None
    action_high: Any = None
    discrete: bool | None = None
    action_count: int | None = None
    horizon: int | None = None
    dones: Literal["terminal", "truncated"] | None = None
    never_terminal: bool = False
    metadata: dict[str, Any] | None = None

    def over(self, stored: dict[str, Any]) -> "Options":
        """These options where they say something, else those that were `stored` with the file.

        Raises `DataError` for a stored option that does not exist or is of another kind.
        """
        defaults = Options()._asdict()
        for name, value in stored.items():
            if name not in defaults:
                raise DataError(nearest(name, defaults, "option"))
            kind, fits = _KINDS[name]
            if value is not None and not fits(value):
                raise DataError(f"the option '{name}' stored with it must be {kind}")
        given = {k: v for k, v in self._asdict().items() if v != defaults[k]}
        if stored.get("metadata") and self.metadata:
            given["metadata"] = {**stored["metadata"], **self.metadata}
        return Options(**{**stored, **given})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _is_bound(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, list) and all(map(_is_number, value)))


def _is_mapping(value: Any) -> bool:
    def names(value: Any) -> bool:
        whole = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
        return isinstance(value, str) or bool(whole)

    return isinstance(value, dict) and all(names(v) for v in value.values())


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "columns": ("a table from roles to names of columns, or lists of them", _is_mapping),
    "action_low": ("a number or a list of them", _is_bound),
    "action_high": ("a number or a list of them", _is_bound),
    "discrete": ("true or false", lambda value: isinstance(value, bool)),
    "action_count": ("a whole number", _is_count),
    "horizon": ("a whole number", _is_count),
    "dones": ("'terminal' or 'truncated'", lambda value: value in ("terminal", "truncated")),
    "never_terminal": ("true or false", lambda value: isinstance(value, bool)),
    "metadata": ("a table", lambda value: isinstance(value, dict)),
}
"""What may be stored under each option."""


def stored_options(dataset: Dataset) -> dict[str, str]:
    """What a reader must know beyond the columns, each as JSON text."""
    action = dataset.spaces.action
    options: dict[str, Any] = {"metadata": dataset.metadata}
    if isinstance(action, Box):
        options |= {"action_low": list(action.low), "action_high": list(action.high)}
        options["discrete"] = False
    else:
        options["action_count"] = action.count
    if dataset.spaces.horizon is not None:
        options["horizon"] = dataset.spaces.horizon
    return {name: json.dumps(value) for name, value in options.items()}


def resolve(names: Sequence[str], mapping: Mapping | None) -> dict[str, list[str]]:
    """The columns behind every role that is played, in the order of their components.

    **Arguments:** `names`: the columns there are; `mapping`: the user's word, which goes before
    the usual names. Raises `DataError` for a column or a necessary role that is not there and
    `SpecificationError` for a role that does not exist.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"several columns are called '{twice[0]}': give each its own name")
    found: dict[str, list[str]] = {}
    for role, wanted in (mapping or {}).items():
        if role not in ROLES:
            raise SpecificationError(nearest(role, ROLES, "role of a column"))
        found[role] = _columns_named(role, wanted, names)
    for role, synonyms in ROLES.items():
        for name in () if role in found else synonyms:
            family = _family(name + "_*", names) or _family(name + ".*", names)
            if name in names:
                found[role] = [name]
            elif family and role in ("observations", "actions", "next_observations"):
                found[role] = family
            if role in found:
                break
    for role in ("observations", "actions", "rewards"):
        if role not in found:
            raise DataError(
                f"no column is recognised as {role}; the columns are {_listed(names)}: say which "
                f"one it is with columns={{'{role}': 'NAME'}} (a list, or a family such as "
                "'NAME_*', if every component has its own), or as a command with `headwater data "
                f"convert --column {role}=NAME`"
            )
    return found


def finish(chunk: Chunk, options: Options) -> Dataset:
    """The dataset that a file's rows amount to.

    Raises `DataError` if they do not hold together or leave open where the process ended.
    """
    rows = np.shape(chunk["observations"])[0] if np.ndim(chunk["observations"]) else 0
    terminals, truncations = endings(chunk, rows, options)
    return Dataset.from_arrays(
        chunk["observations"],
        chunk["actions"],
        chunk["rewards"],
        terminals,
        truncations,
        chunk.get("next_observations"),
        action_low=options.action_low,
        action_high=options.action_high,
        discrete=options.discrete,
        action_count=options.action_count,
        horizon=options.horizon,
        metadata=options.metadata,
    )


def endings(chunk: Chunk, rows: int, options: Options) -> tuple[np.ndarray, np.ndarray | None]:
    """Flags `[row]` of what ends at each row: the process, or (if anything says so) the record."""
    for role in ("terminals", "truncations", "dones", "episodes"):
        if role in chunk and chunk[role].size != rows:
            raise DataError(
                f"{role} has {chunk[role].size:,} rows but observations has {rows:,}: all columns "
                "must have the same length"
            )
    truncations = _flag(chunk, "truncations")
    if "terminals" in chunk:
        terminals = _flag(chunk, "terminals")
    elif "dones" in chunk:
        terminals, truncations = _read_dones(_flag(chunk, "dones"), truncations, options)
    elif options.never_terminal:
        terminals = np.zeros(rows, bool)
    else:
        raise DataError(
            "no column says where the process ended (terminals): map one with "
            "columns={'terminals': 'NAME'}, or say never_terminal=True if episodes only ever end "
            "by a time limit (as a command: `headwater data convert --column terminals=NAME` or "
            "`--never-terminal`)"
        )
    if "episodes" in chunk:
        boundary = _changes(chunk["episodes"].reshape(-1))
        cut = boundary & ~terminals
        truncations = cut if truncations is None else truncations | cut
    return terminals, truncations


def whole_episodes(
    chunks: Iterator[Chunk], options: Options, rows: int
) -> Iterator[tuple[int, Dataset]]:
    """Datasets of whole episodes of at least `rows` rows, each with the file's row it starts at.

    Memory use is that of a few chunks, or of the longest episode.
    """
    held: list[Chunk] = []
    start = 0
    threshold = rows
    for chunk in chunks:
        held.append(chunk)
        if sum(len(part["rewards"]) for part in held) < threshold:
            continue
        together = _joined(held)
        count = len(together["rewards"])
        end = _last_end(together, count, options)
        if end == 0:
            # One episode longer than all of this: look again when there is twice as much.
            held, threshold = [together], 2 * count
            continue
        yield start, _finish_from({k: v[:end] for k, v in together.items()}, options, start)
        held, threshold = [{k: v[end:] for k, v in together.items()}], rows
        start += end
        if options.metadata and "dropped_rows" in options.metadata:
            # What was dropped before is told once, by the first block.
            told = {k: v for k, v in options.metadata.items() if k != "dropped_rows"}
            options = options._replace(metadata=told)
    rest = _joined(held) if held else {}
    if rest and len(rest["rewards"]):
        yield start, _finish_from(rest, options, start)


def join(chunks: Iterator[Chunk]) -> Chunk:
    """All chunks as one. Raises `DataError` if there are none or they do not fit together."""
    held = list(chunks)
    if not held:
        raise DataError("the file has no rows: at least one transition is needed")
    return _joined(held)


def _finish_from(chunk: Chunk, options: Options, start: int) -> Dataset:
    try:
        return finish(chunk, options)
    except DataError as error:
        if start == 0:
            raise
        raise DataError(f"{error} (rows counted from row {start:,} of the file)") from None


def _joined(held: list[Chunk]) -> Chunk:
    if len(held) == 1:
        return held[0]
    joined = {}
    for role in held[0]:
        widths = {part[role].shape[1:] for part in held}
        if len(widths) > 1:
            raise DataError(
                f"{role} changes its shape from {sorted(widths)[0]} to {sorted(widths)[1]} in the "
                "middle of the file: every row must have the same shape"
            )
        joined[role] = np.concatenate([part[role] for part in held])
    return joined


def _last_end(chunk: Chunk, rows: int, options: Options) -> int:
    """Number of rows up to the last episode that surely ends here."""
    terminals, truncations = endings(chunk, rows, options)
    if truncations is None and options.horizon is not None:
        truncations = truncate_at(terminals, options.horizon)
    ends = terminals if truncations is None else terminals | truncations
    last = np.flatnonzero(ends)
    return int(last[-1]) + 1 if last.size else 0


def _flag(chunk: Chunk, role: str) -> Any:
    if role not in chunk:
        return None
    array = chunk[role].reshape(-1)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{role} has type {array.dtype}, which is no flag: convert it to booleans or 0 and 1"
        )
    wrong = np.flatnonzero((array != 0) & (array != 1))
    if wrong.size:
        raise DataError(
            f"{role} holds {array[wrong[0]]} at row {wrong[0]}: a flag is 0 or 1, false or true"
        )
    return array.astype(bool)


def _read_dones(dones: np.ndarray, truncations, options: Options):
    if truncations is not None:
        return dones & ~truncations, truncations
    if options.dones == "terminal":
        return dones, None
    if options.dones == "truncated":
        return np.zeros_like(dones), dones
    if options.dones is not None:
        raise SpecificationError(nearest(str(options.dones), ("terminal", "truncated"), "meaning"))
    if options.horizon is None:
        raise DataError(
            "a column of dones does not say whether the process ended or a time limit was reached, "
            "and learning needs to know: give horizon=STEPS (a done at that step is a time limit), "
            "or dones='terminal' or dones='truncated' if all of them are the same"
        )
    starts = np.concatenate([[0], np.flatnonzero(dones) + 1])
    lengths = np.diff(np.append(starts[starts < dones.size], dones.size))
    step = np.arange(dones.size) - np.repeat(starts[starts < dones.size], lengths) + 1
    beyond = np.flatnonzero(step > options.horizon)
    if beyond.size:
        raise DataError(
            f"the episode around row {beyond[0]} is longer than horizon={options.horizon} steps: "
            "correct the horizon, or the column of dones"
        )
    return dones & (step < options.horizon), dones & (step == options.horizon)


def _changes(episodes: np.ndarray) -> np.ndarray:
    if not episodes.size:
        return np.zeros(0, bool)
    if episodes.dtype.kind == "f" and np.isnan(episodes).any():
        raise DataError(f"episodes holds nan at row {np.argmax(np.isnan(episodes))}: number them")
    boundary = np.append(episodes[1:] != episodes[:-1], False)
    starts = np.concatenate([[0], np.flatnonzero(boundary) + 1])
    _, first, counts = np.unique(episodes[starts], return_index=True, return_counts=True)
    if np.any(counts > 1):
        split = episodes[starts][first[np.argmax(counts > 1)]]
        row = starts[np.flatnonzero(episodes[starts] == split)[1]]
        raise DataError(
            f"episode {split} begins again at row {row}: sort the rows by episode and step"
        )
    return boundary


def _columns_named(role: str, wanted: str | list[str], names: Sequence[str]) -> list[str]:
    if isinstance(wanted, str) and "*" in wanted:
        family = _family(wanted, names)
        if not family:
            raise DataError(
                f"no column matches '{wanted}' for {role} ('*' stands for a number); the columns "
                f"are {_listed(names)}"
            )
        return family
    chosen = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in chosen:
        if name not in names:
            raise DataError(
                f"the column '{name}' declared for {role} is not there; the columns are "
                f"{_listed(names)}"
            )
    return chosen


def _family(pattern: str, names: Sequence[str]) -> list[str]:
    before, _, after = pattern.partition("*")
    expression = re.compile(re.escape(before) + r"([0-9]{1,9})" + re.escape(after))
    matches = [(int(m.group(1)), name) for name in names if (m := expression.fullmatch(name))]
    numbers = sorted(number for number, _ in matches)
    if len(set(numbers)) < len(numbers):
        double = next(n for n, after in itertools.pairwise(numbers) if n == after)
        raise DataError(f"several of the columns '{pattern}' have the number {double}")
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        missing = next(n for n in range(numbers[0], numbers[-1]) if n not in numbers)
        raise DataError(
            f"the columns '{pattern}' are numbered {numbers[0]} to {numbers[-1]} but "
            f"'{before}{missing}{after}' is missing: add it, or list the columns by name"
        )
    return [name for _, name in sorted(matches)]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in list(names)[:30])
    return (shown or "none") + (f" and {len(names) - 30} more" if len(names) > 30 else "")
