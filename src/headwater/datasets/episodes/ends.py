"""Where episodes end, and how: all that a log says of it, put together."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from headwater.core.errors import DataError, SpecificationError, nearest

RECORDS = "records"
"""The role of a number that changes where one record ends and the next begins: a file of several,
or a row of an array of episodes. Formats give it; it is no column."""
SIGNALS = (
    "terminals", "truncations", "dones", "ends", "starts", "episodes", "steps", RECORDS,
    "continues",
)  # fmt: skip
"""The roles that say where episodes end."""
_FLAGS = ("terminals", "truncations", "dones", "ends", "starts")
_MARKS = ("terminals", "truncations", "dones", "ends")
MEANINGS = ("terminal", "truncated")
_TOLD = {
    "continues": "where nothing follows, by 0",
    "dones": "where an episode is done",
    "starts": "where an episode starts",
    "episodes": "which episode a row is of",
}
"""What a column of a role says."""
_NOWHERE = "it is nowhere 0"


class Signal(NamedTuple):
    """A column that says something of where episodes end.

    **Arguments:** `role`: one of `SIGNALS`; `column`: its name; `values`: `[row]`; `declared`:
    whether the user named it, instead of its name being a usual one.
    """

    role: str
    column: str
    values: np.ndarray
    declared: bool = False


class EndOptions(NamedTuple):
    """What the user says of the ends of episodes beyond the columns; see `headwater.load`."""

    dones: Literal["terminal", "truncated"] | None = None
    episodes_end: Literal["terminal", "truncated"] | None = None
    episode_per_row: bool = False
    never_terminal: bool = False
    horizon: int | None = None


class Ends(NamedTuple):
    """What ends where.

    **Arguments:** `terminals`: `[row]`, the process ended; `truncations`: `[row]`, the record
    stopped, or `None` if nothing says so; `unmarked`: `[row]`, the end shows in an episode's
    number, a start or a counter alone; `ignored`: columns that are not used after all, and why.
    """

    terminals: np.ndarray
    truncations: np.ndarray | None
    unmarked: np.ndarray
    ignored: dict[str, str]


class _Claim(NamedTuple):
    """What a signal says of the boundaries after rows.

    **Arguments:** `ends`, `goes_on`: `[row]`, it says that an episode ends there, or does not;
    `name`; `why_ends`, `why_goes_on`: the same in words, of a row.
    """

    ends: np.ndarray
    goes_on: np.ndarray
    name: str
    why_ends: Callable[[int], str]
    why_goes_on: Callable[[int], str]


def combine(
    signals: Sequence[Signal],
    rows: int,
    options: EndOptions,
    *,
    complete: bool = True,
    before: Mapping[str, str] | None = None,
    candidates: Mapping[str, str] = MappingProxyType({}),
) -> Ends:
    """The ends of episodes that all signals together amount to.

    A row that is done but not terminal is truncated; an episode's number, a start or a counter that
    changes where no end is marked cuts the episode there, as `episodes_end` says.

    **Arguments:** `rows`: how many; `complete`: whether the last episode is known to be whole;
    `before`: if these rows follow others, what was `ignored` there; `candidates`: other columns by
    name, and the roles that they look as if they played.

    Raises `DataError`, with columns and row, for signals that contradict each other, and if they
    leave open whether the process ended.
    """
    _check_words(options)
    for signal in signals:
        if signal.values.size != rows and not (signal.role == "continues" and not signal.declared):
            raise DataError(
                f"{signal.column} has {signal.values.size:,} rows but observations has {rows:,}: "
                "all columns must have the same length"
            )
    if options.episode_per_row:
        ended = options.episodes_end != "truncated"
        reason = "every row is an episode of its own"
        return Ends(
            np.full(rows, ended),
            np.full(rows, not ended),
            np.zeros(rows, bool),
            {signal.column: reason for signal in signals if signal.role != RECORDS},
        )
    claims: dict[str, _Claim] = {}
    ignored: dict[str, str] = {}
    for role in SIGNALS:
        found = [signal for signal in signals if signal.role == role]
        if not found:
            continue
        if role in _FLAGS:
            claims[role] = _flag_claim(role, found)
        elif role == "episodes":
            claims[role] = _number_claim(found)
        elif role == "continues":
            continue  # What it says depends on all others.
        elif role == RECORDS:
            # Within a record there may be any number of episodes, so it denies nothing.
            none = np.zeros(rows, bool)
            claims[role] = _Claim(_changes(found[0]), none, RECORDS, str, str)
        else:
            claim, unused = _counter_claim(found)
            ignored |= unused
            if claim is not None:
                claims[role] = claim
    for signal in [signal for signal in signals if signal.role == "continues"]:
        reason = _told_by_continuation(claims, signal, rows, complete, before)
        if reason is not None:
            ignored[signal.column] = reason
            candidates = {signal.column: "continues", **candidates}
    _refuse_contradictions(claims)
    return _settled(claims, rows, options, complete, ignored, candidates)


def without_last_rows(
    rows: dict[str, np.ndarray], ends: Ends
) -> tuple[dict[str, np.ndarray], Ends]:
    """The steps alone, where the last row of each episode is its last observation and no step.

    **Arguments:** `rows`: columns by role; `ends`: where the episodes of these rows end.

    Raises `DataError` if such a row has a reward, which would be lost, or if nothing is left.
    """
    last = ends.terminals.copy()
    if ends.truncations is not None:
        last |= ends.truncations
    if last.size:
        last[-1] = True
    rewards = rows.get("rewards")
    if rewards is not None and rewards.dtype.kind in "biuf":
        kept = last & (np.nan_to_num(rewards.reshape(last.size, -1)).any(1))
        if kept.any():
            row = int(np.argmax(kept))
            raise DataError(
                f"the last row of an episode, row {row}, has the reward "
                f"{np.asarray(rewards).reshape(-1)[row]:.6g} (and {np.count_nonzero(kept) - 1:,} "
                "more have one), so it is no observation alone: leave out last_row='observation', "
                "or move each reward to the row of the action that earned it"
            )
    steps = np.flatnonzero(~last)
    if not steps.size:
        raise DataError("every episode has a single row, so without last rows no step is left")
    found = {role: values[steps] for role, values in rows.items()}
    if "next_observations" not in rows:
        found["next_observations"] = rows["observations"][steps + 1]
    final = last[steps + 1]
    terminals = final & ends.terminals[steps + 1]
    unmarked = final & ends.unmarked[steps + 1]
    return found, Ends(terminals, final & ~terminals, unmarked, ends.ignored)


def _check_words(options: EndOptions) -> None:
    for word in (options.dones, options.episodes_end):
        if word is not None and word not in MEANINGS:
            raise SpecificationError(nearest(str(word), MEANINGS, "meaning"))


def _settled(
    claims: dict[str, _Claim],
    rows: int,
    options: EndOptions,
    complete: bool,
    ignored: dict[str, str],
    candidates: Mapping[str, str],
) -> Ends:
    none = np.zeros(rows, bool)
    ends = {role: claim.ends for role, claim in claims.items()}
    marked = np.logical_or.reduce([none, *(ends[role] for role in _MARKS if role in ends)])
    boundary = np.logical_or.reduce([none, *ends.values()])
    truncated = ends.get("truncations")
    if "terminals" in ends:
        terminals = ends["terminals"]
        if options.never_terminal and terminals.any():
            raise DataError(
                f"never_terminal says that the process never ends by itself, but "
                f"{claims['terminals'].name} is true at row {np.argmax(terminals)} (and "
                f"{np.count_nonzero(terminals) - 1:,} more): correct the column, or leave out "
                "never_terminal"
            )
    elif options.never_terminal:
        terminals = none
    elif "dones" in ends or "ends" in ends:
        terminals = _terminal_dones(ends, boundary, truncated, options)
    elif options.episodes_end is not None:
        terminals = none
    else:
        hint = "".join(
            f"; the column '{name}' looks as if it said {_TOLD[role]}: if it does, say columns="
            f"{{'{role}': '{name}'}} (`--column {role}={name}`)"
            for name, role in candidates.items()
            if role in _TOLD
        )
        raise DataError(
            "no column says where the process ended (terminals): map one with "
            "columns={'terminals': 'NAME'}, or say never_terminal=True if episodes only ever end "
            "by a time limit, episodes_end='terminal' or 'truncated' if all of them end alike, or "
            "episode_per_row=True if every row is an episode of its own (as a command: `--column "
            f"terminals=NAME`, `--never-terminal`, `--episodes-end` or `--episode-per-row`){hint}"
        )
    unmarked = boundary & ~marked
    whole = any(role in ends for role in ("starts", "episodes", "steps", RECORDS))
    if complete and rows and not marked[-1] and (whole or options.episodes_end == "terminal"):
        unmarked[-1] = True
    if options.episodes_end == "terminal":
        terminals = terminals | unmarked
    if not (ends.keys() - {"terminals"}):
        return Ends(terminals, None, unmarked, ignored)
    cut = (boundary | unmarked) & ~terminals
    return Ends(terminals, cut if truncated is None else truncated | cut, unmarked, ignored)


def _terminal_dones(
    ends: dict[str, np.ndarray],
    boundary: np.ndarray,
    truncated: np.ndarray | None,
    options: EndOptions,
) -> np.ndarray:
    """Which of the rows that are done are terminal, where no column says it in so many words."""
    if "dones" in ends and "ends" in ends and np.any(ends["ends"] & ~ends["dones"]):
        # Episodes end without being done: done then means terminal.
        done = ends["dones"]
        return done if truncated is None else done & ~truncated
    none = np.zeros(boundary.size, bool)
    done = ends.get("dones", none) | ends.get("ends", none)
    if truncated is not None:
        return done & ~truncated
    meaning = options.dones or options.episodes_end
    if meaning is not None:
        return done if meaning == "terminal" else none
    if options.horizon is None:
        raise DataError(
            "a column of dones does not say whether the process ended or a time limit was reached, "
            "and learning needs to know: give horizon=STEPS (a done at that step is a time limit), "
            "or dones='terminal' or dones='truncated' if all of them are the same"
        )
    starts = np.concatenate([[0], np.flatnonzero(boundary) + 1])
    starts = starts[starts < done.size]
    step = np.arange(done.size) - np.repeat(starts, np.diff(np.append(starts, done.size))) + 1
    beyond = np.flatnonzero(step > options.horizon)
    if beyond.size:
        raise DataError(
            f"the episode around row {beyond[0]} is longer than horizon={options.horizon} steps: "
            "correct the horizon, or the column of dones"
        )
    return done & (step < options.horizon)


def _told_by_continuation(
    claims: dict[str, _Claim],
    signal: Signal,
    rows: int,
    complete: bool,
    before: Mapping[str, str] | None,
) -> str | None:
    """Lets a column that is 0 where nothing follows say which ends are terminal.

    What was called terminals then only says where episodes end. Returns why the column is not used,
    if it is not. Raises `DataError` if it denies terminals without having been declared, or says
    that nothing follows where they deny it, or if these rows do not show what it says and others
    may.
    """
    name, values = signal.column, signal.values.reshape(-1)
    terminals = claims.get("terminals")
    if values.size != rows or values.dtype.kind not in "biuf":
        if signal.declared:
            raise DataError(f"{name} holds no numbers, so it cannot be 0 where nothing follows")
        return "it has no number for each row"
    nothing = values == 0
    if not signal.declared:
        if before and before.get(name, _NOWHERE) != _NOWHERE:
            return before[name]
        if not nothing.any() and (terminals is not None or (complete and before is None)):
            return _NOWHERE
        boundary = np.logical_or.reduce([nothing & False, *(c.ends for c in claims.values())])
        if not nothing.any() and before is None and boundary.any():
            raise DataError(
                f"{name} is nowhere 0 in the first {rows:,} rows, so it cannot be seen there "
                f"whether it is 0 where nothing follows: if it is, say columns={{'continues': "
                f"'{name}'}} (`--column continues={name}`), else columns={{'unused': '{name}'}} "
                f"(`--column unused={name}`)"
            )
        boundary[-1:] = True
        beside = np.flatnonzero(nothing & ~boundary)
        if beside.size:
            return f"it is 0 at row {beside[0]}, where no other column ends an episode"
    if terminals is not None:
        denied = np.flatnonzero(nothing & ~terminals.ends)
        if denied.size:
            raise _contradiction(
                int(denied[0]),
                denied.size,
                f"{name} is 0 there",
                f"{terminals.name} is false",
                name,
            )
        open_ends = np.flatnonzero(terminals.ends & ~nothing)
        if not open_ends.size:
            return None
        if not signal.declared:
            raise DataError(
                f"{terminals.name} is true at row {open_ends[0]} (and at {open_ends.size - 1:,} "
                f"more) where {name} is not 0, as if something followed: if {terminals.name} only "
                f"marks where episodes end, as in OGBench, say columns={{'ends': "
                f"'{terminals.name}', 'continues': '{name}'}} (`--column ends={terminals.name} "
                f"--column continues={name}`); if {name} says something else, columns={{'unused': "
                f"'{name}'}} (`--column unused={name}`)"
            )
        del claims["terminals"]
        known = claims.get("ends", terminals)
        claims["ends"] = terminals._replace(
            ends=terminals.ends | known.ends, goes_on=terminals.goes_on & known.goes_on
        )
    claims["terminals"] = _Claim(
        nothing,
        ~nothing,
        name,
        lambda row: f"{name} is 0 at row {row}",
        lambda row: f"{name} is not 0 at row {row}",
    )
    return None


def _flag_claim(role: str, found: list[Signal]) -> _Claim:
    flags = [_flag(signal) for signal in found]
    if found[0].declared:
        # The user means either of them.
        values = np.logical_or.reduce(flags)
    else:
        values = flags[0]
        for signal, other in zip(found[1:], flags[1:], strict=True):
            different = np.flatnonzero(values != other)
            if different.size:
                row = int(different[0])
                raise _contradiction(
                    row,
                    different.size,
                    f"{found[0].column} is {_word(values[row])} there",
                    f"{signal.column} is {_word(other[row])}",
                    signal.column,
                )
    name = " or ".join(signal.column for signal in found[: len(found) if found[0].declared else 1])
    if role == "starts":
        # The start of a row's episode is the end of the one before.
        following = np.append(values[1:], False)
        goes_on = ~following
        if goes_on.size:
            goes_on[-1] = False
        return _Claim(
            following,
            goes_on,
            name,
            lambda row: f"{name} is true at row {row + 1}",
            lambda row: f"{name} is false at row {row + 1}",
        )
    return _Claim(
        values,
        ~values,
        name,
        lambda row: f"{name} is true at row {row}",
        lambda row: f"{name} is false at row {row}",
    )


def _flag(signal: Signal) -> np.ndarray:
    array = signal.values.reshape(-1)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{signal.column} has type {array.dtype}, which is no flag: convert it to booleans or "
            "0 and 1"
        )
    wrong = np.flatnonzero((array != 0) & (array != 1))
    if wrong.size:
        raise DataError(
            f"{signal.column} holds {array[wrong[0]]} at row {wrong[0]}: a flag is 0 or 1, false "
            "or true"
        )
    return array.astype(bool)


def _number_claim(found: list[Signal]) -> _Claim:
    changes = [_changes(signal) for signal in found]
    first, name = changes[0], found[0].column
    if not found[0].declared:
        for signal, other in zip(found[1:], changes[1:], strict=True):
            different = np.flatnonzero(first != other)
            if different.size:
                row = int(different[0])
                words = [
                    f"{s.column} {'changes' if c[row] else 'does not change'}"
                    for s, c in ((found[0], first), (signal, other))
                ]
                raise _contradiction(row, different.size, words[0], words[1], signal.column)
    boundary = np.logical_or.reduce(changes)
    if found[0].declared and len(found) > 1:
        name = " and ".join(signal.column for signal in found)
    _refuse_split(found, boundary, name)
    values = [signal.values.reshape(-1) for signal in found]
    goes_on = ~boundary
    if goes_on.size:
        goes_on[-1] = False
    return _Claim(
        boundary,
        goes_on,
        name,
        lambda row: f"{name} changes from {values[0][row]} to {values[0][row + 1]} after row {row}",
        lambda row: f"{name} is {values[0][row]} in the next row too",
    )


def _changes(signal: Signal) -> np.ndarray:
    numbers = signal.values.reshape(-1)
    if numbers.dtype.kind == "f" and np.isnan(numbers).any():
        raise DataError(
            f"{signal.column} holds nan at row {np.argmax(np.isnan(numbers))}: number the episodes"
        )
    return np.append(numbers[1:] != numbers[:-1], False) if numbers.size else np.zeros(0, bool)


def _refuse_split(found: list[Signal], boundary: np.ndarray, name: str) -> None:
    """Raises `DataError` if an episode's number comes back after another's."""
    starts = np.concatenate([[0], np.flatnonzero(boundary) + 1])
    if starts.size < 3:
        return
    keys = np.zeros(starts.size, np.int64)
    for signal in found if found[0].declared else found[:1]:
        _, codes = np.unique(signal.values.reshape(-1)[starts], return_inverse=True)
        keys = keys * (int(codes.max()) + 1) + codes.reshape(-1)
        _, keys = np.unique(keys, return_inverse=True)
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    if np.any(counts > 1):
        # The earliest row at which one comes back.
        again = np.setdiff1d(np.arange(starts.size), first)[0]
        number = found[0].values.reshape(-1)[starts[again]]
        raise DataError(
            f"episode {number} begins again at row {starts[again]}: sort the rows by episode and "
            f"step (column {name})"
        )


def _counter_claim(found: list[Signal]) -> tuple[_Claim | None, dict[str, str]]:
    """What a counter of steps says; nothing, if it never restarts, and why it is not used."""
    ignored: dict[str, str] = {}
    usable: list[_Claim] = []
    for signal in found:
        values = signal.values.reshape(-1)
        if values.dtype.kind not in "biufmM":
            if signal.declared:
                raise DataError(
                    f"{signal.column} has type {values.dtype}, which counts no steps: convert it "
                    "to whole numbers"
                )
            ignored[signal.column] = "it is text and counts no steps"
            continue
        if values.dtype.kind == "b":
            values = values.astype(np.int8)
        back = np.append(values[1:] < values[:-1], False) if values.size else np.zeros(0, bool)
        equal = np.append(values[1:] == values[:-1], False) if values.size else back
        alone = equal & (values == values.min()) if values.size else equal
        if not back.any() and (not alone.any() or np.any(equal & ~alone) or equal[:-1].all()):
            ignored[signal.column] = "it never restarts"
            continue
        usable.append(_restarts(signal, values, back, equal))
    if not usable:
        return None, ignored
    first = usable[0]
    for other in usable[1:]:
        different = np.flatnonzero(first.ends != other.ends)
        if different.size:
            row = int(different[0])
            words = [
                claim.why_ends(row) if claim.ends[row] else claim.why_goes_on(row)
                for claim in (first, other)
            ]
            raise _contradiction(row, different.size, words[0], words[1], other.name)
    return first, ignored


def _restarts(signal: Signal, values: np.ndarray, back: np.ndarray, equal: np.ndarray) -> _Claim:
    lowest = values.min()
    standing = np.flatnonzero(equal & (values != lowest))
    name = signal.column
    if standing.size:
        row = int(standing[0])
        raise DataError(
            f"{name} is {values[row]} at row {row} and at row {row + 1}: a counter of steps goes "
            f"up from row to row; correct it, or leave it out with columns={{'unused': '{name}'}} "
            f"(`--column unused={name}`)"
        )
    # Twice the lowest count in a row: the episode before had a single step.
    restarts = back | equal
    goes_on = ~restarts
    goes_on[-1] = False
    return _Claim(
        restarts,
        goes_on,
        name,
        lambda row: f"{name} restarts from {values[row]} to {values[row + 1]} after row {row}",
        lambda row: f"{name} goes on from {values[row]} to {values[row + 1]}",
    )


_AGAINST: dict[str, tuple[str, ...]] = {
    "episodes": ("terminals", "truncations", "dones", "ends", "starts", "steps"),
    "starts": ("terminals", "truncations", "dones", "ends", "episodes", "steps"),
    # Rows may be missing where an episode's number changes, so that a counter seems to go on.
    "steps": ("terminals", "truncations", "dones", "ends", "starts"),
    "ends": ("terminals", "truncations", "dones"),
    "dones": ("terminals", "truncations"),
}
"""Where the first says that an episode goes on, which others must not say that it ends."""


def _refuse_contradictions(claims: dict[str, _Claim]) -> None:
    """Raises `DataError` for the first row at which one says what another denies."""
    worst: tuple[int, DataError] | None = None
    for denying, others in _AGAINST.items():
        for saying in others:
            if denying not in claims or saying not in claims:
                continue
            ends, goes_on = claims[saying].ends, claims[denying].goes_on
            rows = np.flatnonzero(ends & goes_on)
            if denying == "dones" and saying == "truncations" and not np.any(ends & ~goes_on):
                continue  # Done means terminal here, and no row says otherwise.
            if rows.size and (worst is None or rows[0] < worst[0]):
                row = int(rows[0])
                affirmed, denied = claims[saying].why_ends(row), claims[denying].why_goes_on(row)
                error = _contradiction(row, rows.size, affirmed, denied, claims[denying].name)
                worst = row, error
    if worst is not None:
        raise worst[1]


def _contradiction(row: int, count: int, affirmed: str, denied: str, name: str) -> DataError:
    more = f" (and at {count - 1:,} more)" if count > 1 else ""
    return DataError(
        f"two columns contradict each other on where an episode ends, at row {row}{more}: "
        f"{affirmed}, but {denied}; correct one of them, or leave one out, as in columns="
        f"{{'unused': '{name}'}} (`--column unused={name}`)"
    )


def _word(flag) -> str:
    return "true" if flag else "false"
