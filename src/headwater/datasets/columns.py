"""Which column of a file plays which part, and where its episodes end."""

import contextlib
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from headwater.core.errors import DataError, SpecificationError, nearest
from headwater.core.spaces import Box
from headwater.datasets.actions.confidence import MissingActions
from headwater.datasets.dataset import Dataset
from headwater.datasets.episodes.ends import (
    SIGNALS,
    EndOptions,
    Ends,
    Signal,
    combine,
    without_last_rows,
)
from headwater.datasets.episodes.returns import truncate_at
from headwater.datasets.episodes.successors import check_successors, unused_rows
from headwater.datasets.metadata import COUNTS, add_counts, remark
from headwater.datasets.reading import ROLE_OF_LOOKS

Mapping = dict[str, str | list[str]]
"""From a role to the column that plays it, to a family (`obs_*`), or to a list of columns."""
Chunk = dict[str, np.ndarray]
"""Rows of a file: one array per role."""
_TRANSLITERATED = str.maketrans({"€": "EUR", "–": "-", "—": "-", "‘": "'", "’": "'", "−": "-"})
"""What is written in names for characters that Latin-1 lacks."""

ROLES: dict[str, tuple[str, ...]] = {
    "observations": ("observations", "observation", "obs", "states", "state", "observation_state"),
    "actions": ("actions", "action", "acts", "act"),
    "rewards": ("rewards", "reward", "rews", "rew", "next_reward"),
    "terminals": (
        "terminals",
        "terminal",
        "terminations",
        "termination",
        "terminated",
        "terminateds",
        "is_terminal",
        "is_terminated",
        "absorbing",
    ),
    "truncations": (
        "truncations",
        "truncation",
        "truncated",
        "truncateds",
        "is_truncated",
        "timeouts",
        "timeout",
        "timed_out",
        "time_out",
        "time_limit_truncated",
    ),
    "dones": ("dones", "done", "is_done", "next_done", "dones_float"),
    "ends": (
        "is_last",
        "is_last_step",
        "last_step",
        "episode_terminals",
        "episode_ends",
        "episode_end",
        "is_episode_end",
        "end_of_episode",
    ),
    "starts": (
        "is_first",
        "is_first_step",
        "first_step",
        "episode_starts",
        "episode_start",
        "is_episode_start",
        "start_of_episode",
        "is_start",
        "is_init",
    ),
    "continues": (
        "masks",
        "continues",
        "is_continue",
        "nonterminals",
        "nonterminal",
        "non_terminals",
        "non_terminal",
    ),
    "episodes": (
        "episodes",
        "episode",
        "episode_id",
        "episode_ids",
        "episode_index",
        "episode_idx",
        "episode_number",
        "episode_num",
        "episode_no",
        "eps_id",
        "ep_id",
        "trajectories",
        "trajectory",
        "trajectory_id",
        "trajectory_ids",
        "trajectory_index",
        "traj",
        "traj_id",
        "traj_index",
        "traj_idx",
        "rollout_id",
        "demo_id",
    ),
    "steps": (
        "steps",
        "step",
        "step_id",
        "step_index",
        "step_idx",
        "step_number",
        "step_in_episode",
        "episode_step",
        "timesteps",
        "timestep",
        "time_step",
        "frame_index",
        "t",
    ),
    "next_observations": (
        "next_observations",
        "next_observation",
        "next_obs",
        "next_states",
        "next_state",
        "new_observations",
        "new_observation",
        "new_obs",
        "new_states",
        "new_state",
        "observations_next",
        "observation_next",
        "obs_next",
        "next_observation_state",
    ),
    "propensities": (
        "propensities",
        "propensity",
        "propensity_scores",
        "propensity_score",
        "pscores",
        "pscore",
        "p_score",
        "action_probs",
        "action_prob",
        "action_probabilities",
        "action_probability",
        "prob_action",
        "behavior_probs",
        "behavior_prob",
        "behavior_probability",
        "behaviour_probs",
        "behaviour_prob",
        "behaviour_probability",
        "logging_prob",
        "logging_probability",
    ),
    "log_propensities": (
        "log_propensities",
        "log_propensity",
        "action_log_probs",
        "action_log_prob",
        "action_log_probability",
        "action_logps",
        "action_logp",
        "action_logprob",
        "log_probs",
        "log_prob",
        "logprobs",
        "logprob",
        "logp",
        "logp_a",
        "old_log_probs",
        "old_log_prob",
        "behavior_log_probs",
        "behavior_log_prob",
        "behavior_logp",
        "behaviour_log_probs",
        "behaviour_log_prob",
        "behaviour_logp",
    ),
    "action_confidence": (
        "action_confidence",
        "action_confidences",
        "action_known",
        "action_logged",
        "action_observed",
        "action_available",
        "has_action",
    ),
    "unused": (),
}
"""Every role a column can play, and the names by which it is recognised unasked: in lower case,
with `_` for whatever is neither letter nor digit. Columns called `unused` are left alone."""

ANYTHING = ("episodes", "steps")
"""The roles whose columns may hold text as well as numbers."""

_WORD = r"(?:^|_)(?:{})(?:$|_)"
_EPISODE = (
    "episodes?|epis|eps|ep|traj|trajs|trajectory|trajectories|rollouts?|sessions?|visits?|stays?|"
    "admissions?|hadm|icustay|encounters?|runs?|trials?|games?|matches|match|laps?|demos?|"
    "demonstrations?|patients?|subjects?|users?|customers?|participants?|dialogues?|conversations?"
)
_LOOKS: dict[str, re.Pattern[str]] = {
    "whether anything follows": re.compile(
        r"^(?:discounts?|not_?dones?|continues?|cont|(?:not|non)_?terminals?|not_?terminated)$"
    ),
    "what follows a row": re.compile(
        r"^(?:next|new|following|successor)_(?!actions?|rewards?|dones?)|"
        r"_(?:next|prime|tp1)$|^(?:obs|observations?|states?|s)(?:2|_2)$"
    ),
    "the end of an episode": re.compile(
        _WORD.format(
            "dones?|ends?|ended|terminals?|terminat[a-z]*|truncat[a-z]*|timeouts?|time_?out|"
            "timed_out|last|final|absorbing|game_over|finished|discharged?|death|died|dead|success"
        )
    ),
    "the start of an episode": re.compile(_WORD.format("first|starts?|started|begins?|resets?")),
    "the number of an episode": re.compile(
        rf"^(?:{_EPISODE})$|"
        rf"(?:^|_)(?:{_EPISODE})_?(?:ids?|idx|index|indices|numbers?|num|nr|no|name|uuid|key)$"
    ),
    "the probability of the logged action": re.compile(
        _WORD.format(
            "propensit(?:y|ies)|p_?scores?|probs?|probabilit(?:y|ies)|log_?probs?|log_?p|log_?pi|"
            "likelihoods?|log_?likelihoods?|ips"
        )
    ),
}
"""What the name of a column may say of it, where it is none of the usual ones."""


class Reading(NamedTuple):
    """Which columns of a file are read as what.

    **Arguments:** `columns`: those that play each role; `declared`: the roles that the user gave;
    `unused`: the other columns; `looks`: what the names of some of these say that they are.
    """

    columns: dict[str, list[str]]
    declared: tuple[str, ...]
    unused: tuple[str, ...]
    looks: dict[str, str]


class Options(NamedTuple):
    """What the user says about a file beyond its content, and what a format says of its columns.

    **Arguments:** `reading`: of the columns, from a format; the others: see `headwater.load`.
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
    episodes_end: Literal["terminal", "truncated"] | None = None
    episode_per_row: bool = False
    action_labels: list[int] | None = None
    action_bounds: Literal["data"] | None = None
    last_row: Literal["step", "observation"] | None = None
    missing_actions: MissingActions | None = None
    reading: Reading | None = None

    @property
    def end_options(self) -> EndOptions:
        """What is said of where episodes end, and how."""
        return EndOptions(
            self.dones, self.episodes_end, self.episode_per_row, self.never_terminal, self.horizon
        )

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


def _is_labels(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_count, value))


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
    "episodes_end": ("'terminal' or 'truncated'", lambda value: value in ("terminal", "truncated")),
    "episode_per_row": ("true or false", lambda value: isinstance(value, bool)),
    "action_labels": ("a list of whole numbers", _is_labels),
    "action_bounds": ("'data'", lambda value: value == "data"),
    "missing_actions": ("'keep' or 'drop'", lambda value: value in ("keep", "drop")),
    "last_row": ("'step' or 'observation'", lambda value: value in ("step", "observation")),
    "reading": ("left to the reader of the format", lambda value: isinstance(value, Reading)),
}
"""What may be stored under each option."""


def lasting(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata without what is of one reading of one file."""
    return {name: value for name, value in metadata.items() if name != "reading"}


def stored_options(dataset: Dataset) -> dict[str, str]:
    """What a reader must know beyond the columns, each as JSON text."""
    action = dataset.spaces.action
    options: dict[str, Any] = {"metadata": lasting(dataset.metadata)}
    if isinstance(action, Box):
        options |= {"action_low": list(action.low), "action_high": list(action.high)}
        options["discrete"] = False
    elif action.labels is not None:
        options["action_labels"] = list(action.labels)
    else:
        options["action_count"] = action.count
    if dataset.spaces.horizon is not None:
        options["horizon"] = dataset.spaces.horizon
    return {name: json.dumps(value) for name, value in options.items()}


def resolve(names: Sequence[str], mapping: Mapping | None) -> Reading:
    """The columns behind every role that is played, in the order of their components.

    Of what says where episodes end, all columns with usual names are found, not just the first.

    **Arguments:** `names`: the columns there are; `mapping`: the user's word, which goes before
    the usual names. Raises `DataError` for a column or a necessary role that is not there and
    `SpecificationError` for a role that does not exist.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"several columns are called '{twice[0]}': give each its own name")
    found: dict[str, list[str]] = {}
    for role, requested in (mapping or {}).items():
        if role not in ROLES:
            raise SpecificationError(nearest(role, ROLES, "role of a column"))
        found[role] = _columns_named(role, requested, names)
    declared = tuple(found)
    left_alone = found.pop("unused", [])
    taken = {name for columns in found.values() for name in columns}
    # A counter may be part of the observation and still say where episodes begin.
    observed = set(found.get("observations", ()))
    names_left = [name for name in names if name not in left_alone]
    plain = {name: _plain(name) for name in names_left if name not in taken}
    shared = {name: _plain(name) for name in names_left if name not in taken - observed}
    for role, synonyms in ROLES.items():
        if role not in found:
            columns = _recognised(role, synonyms, shared if role in SIGNALS else plain)
            if columns:
                found[role] = columns
    if "next_observations" not in found and "observations" in found:
        following = _successors(found["observations"], plain)
        if following:
            found["next_observations"] = following
    roles = ["observations", "actions"]
    # Demonstrations may do without, but a name that only looks like a reward is asked for.
    if any("reward" in name for name in plain.values()):
        roles.append("rewards")
    for role in roles:
        if role not in found:
            raise DataError(
                f"no column is recognised as {role}; the columns are {_listed(names)}: say which "
                f"one it is with columns={{'{role}': 'NAME'}} (a list, or a family such as "
                "'NAME_*', if every component has its own), or as a command with `--column "
                f"{role}=NAME`"
            )
    used = {name for columns in found.values() for name in columns}
    unused = tuple(name for name in names if name not in used)
    looks = {
        name: what
        for name in unused
        if name not in left_alone and (what := _looks_like(name)) is not None
    }
    columns = {role: found[role] for role in ROLES if role in found}
    return Reading(columns, declared, unused, looks)


def finish(
    chunk: Chunk, options: Options, *, ends: Ends | None = None, whole: bool = True
) -> Dataset:
    """The dataset that a file's rows amount to.

    **Arguments:** `ends`: of its episodes, if they are known; `whole`: whether these are all rows
    of the file. Raises `DataError` if they do not hold together or leave open where the process
    ended.
    """
    rows = _count(chunk)
    if ends is None:
        ends = endings(chunk, rows, options)
    if whole:
        _refuse_single(ends, rows, options)
    if options.last_row == "observation":
        chunk, ends = without_last_rows(chunk, ends)
        rows = _count(chunk)
    metadata = dict(options.metadata or {})
    remarks = metadata.pop("reading", None)
    metadata["reading"] = _reading_notes(options, ends.ignored, remarks)
    add_counts(metadata, {"unmarked_ends": int(np.count_nonzero(ends.unmarked))})
    for note in _oddities(chunk, ends):
        remark(metadata, note)
    rewards = chunk.get("rewards")
    if rewards is None:
        metadata["missing"] = ["rewards"]
        rewards = np.zeros(rows, np.float32)
    return Dataset.from_arrays(
        chunk["observations"],
        chunk["actions"],
        rewards,
        ends.terminals,
        ends.truncations,
        chunk.get("next_observations"),
        action_low=options.action_low,
        action_high=options.action_high,
        discrete=options.discrete,
        action_count=options.action_count,
        action_labels=options.action_labels,
        action_bounds=options.action_bounds,
        horizon=options.horizon,
        metadata=metadata,
        propensities=chunk.get("propensities"),
        log_propensities=chunk.get("log_propensities"),
        action_confidence=chunk.get("action_confidence"),
        missing_actions=options.missing_actions,
    )


def _oddities(chunk: Chunk, ends: Ends) -> Iterator[str]:
    """What is odd about these rows, as sentences."""
    rows = _count(chunk)
    arrays = (chunk["observations"], chunk.get("rewards", np.zeros(rows)))
    observations, rewards = map(np.asarray, arrays)
    if any(np.shape(values)[:1] != (rows,) for values in (rewards, chunk["actions"])):
        return  # Said elsewhere.
    following = chunk.get("next_observations")
    if following is not None:
        yield from check_successors(
            observations, np.asarray(following), rewards, ends.terminals, ends.truncations
        )
    final = ends.terminals if ends.truncations is None else ends.terminals | ends.truncations
    note = unused_rows(observations, np.asarray(chunk["actions"]), rewards, final)
    if note is not None:
        yield note


def endings(chunk: Chunk, rows: int, options: Options, *, complete: bool = True) -> Ends:
    """Where the episodes of these rows end; `complete` if the last one is known to be whole."""
    looks = {} if options.reading is None else options.reading.looks
    return combine(
        list(_signals(chunk, options)),
        rows,
        options.end_options,
        complete=complete,
        candidates={name: ROLE_OF_LOOKS[what] for name, what in looks.items()},
    )


def _signals(chunk: Chunk, options: Options) -> Iterator[Signal]:
    reading = options.reading
    for role in SIGNALS:
        if role not in chunk:
            continue
        names = [role] if reading is None else reading.columns.get(role, [role])
        declared = reading is not None and role in reading.declared
        values = chunk[role]
        if len(names) == 1 or values.ndim != 2 or values.shape[1] != len(names):
            yield Signal(role, names[0], values.reshape(-1), declared)
        else:
            for name, column in zip(names, values.T, strict=True):
                yield Signal(role, name, column, declared)


def _refuse_single(ends: Ends, rows: int, options: Options) -> None:
    """Raises `DataError` if all rows are one episode, but a column looks as if they were not."""
    boundary = ends.terminals
    if ends.truncations is not None:
        boundary = boundary | ends.truncations
    reading = options.reading
    if reading is None or rows < 2 or options.horizon is not None or boundary[:-1].any():
        return
    for name, what in reading.looks.items():
        role = ROLE_OF_LOOKS[what]
        if role not in ("next_observations", "propensities", "continues"):
            raise DataError(
                f"all {rows:,} rows would be one episode, but the column '{name}' looks like "
                f"{what}: say columns={{'{role}': '{name}'}} (`--column {role}={name}`), or, if it "
                f"is not, columns={{'unused': '{name}'}} (`--column unused={name}`)"
            )


def _reading_notes(options: Options, ignored: dict[str, str], remarks: Any) -> dict[str, Any]:
    """What was read as what, and what was not used after all.

    **Arguments:** `remarks`: sentences in which a format says how it read the file, if any.
    """
    found = options.reading or Reading({}, (), (), {})
    columns = {
        role: kept
        for role, names in found.columns.items()
        if (kept := [name for name in names if name not in ignored])
    }
    unused = [*found.unused, *(name for name in ignored if name not in found.unused)]
    notes = [str(remark) for remark in remarks] if isinstance(remarks, list) else []
    names = {name.lower() for name in (*columns.get("starts", ()), *columns.get("ends", ()))}
    if options.last_row is None and {"is_first", "is_last"} <= names:
        notes.append(
            "the last row of each episode is taken as a step; where it is the last observation "
            "alone, as RLDS writes it, say last_row='observation' (`--last-row observation`)"
        )
    return {
        "columns": columns,
        "unused": unused,
        "looks": found.looks,
        "ignored": ignored,
        "episodes_end": options.episodes_end,
        "notes": notes,
    }


def _count(chunk: Chunk) -> int:
    return np.shape(chunk["observations"])[0] if np.ndim(chunk["observations"]) else 0


def whole_episodes(
    chunks: Iterator[Chunk], options: Options, rows: int
) -> Iterator[tuple[int, Dataset]]:
    """Datasets of whole episodes of at least `rows` rows, each with the file's row it starts at.

    Memory use is that of a few chunks, or of the longest episode.
    """
    held: list[Chunk] = []
    # A block waits for what follows: rows of which nothing is kept cannot stand alone.
    waiting: tuple[int, Chunk, Ends] | None = None
    start = 0
    threshold = rows
    for chunk in chunks:
        held.append(chunk)
        if sum(map(_count, held)) < threshold:
            continue
        together = _joined(held)
        with _counted_from(start):
            ends = endings(together, _count(together), options, complete=False)
        end = _last_end(ends, options)
        block = {role: values[:end] for role, values in together.items()}
        if not _keeps_rows(block, _part(ends, 0, end)):
            # One episode longer than all of this, or nothing that has a successor: look again when
            # there is twice as much.
            held, threshold = [together], 2 * _count(together)
            continue
        if waiting is not None:
            yield _finished(*waiting, options)
            options = _without_counts(options)
        waiting = start, block, _part(ends, 0, end)
        held, threshold = [{role: values[end:] for role, values in together.items()}], rows
        start += end
    rest = _joined(held) if held else {}
    if rest and _count(rest):
        with _counted_from(start):
            ends = endings(rest, _count(rest), options)
        if waiting is not None and not _keeps_rows(rest, ends):
            start, block, before = waiting
            rest, ends, waiting = _joined([block, rest]), _followed_by(before, ends), None
        if waiting is not None:
            yield _finished(*waiting, options)
            options = _without_counts(options)
        waiting = start, rest, ends
    if waiting is not None:
        yield _finished(*waiting, options, whole=waiting[0] == 0)


def _finished(
    start: int, block: Chunk, ends: Ends, options: Options, whole: bool = False
) -> tuple[int, Dataset]:
    with _counted_from(start):
        return start, finish(block, options, ends=ends, whole=whole)


def _without_counts(options: Options) -> Options:
    """What was dropped before is told once, by the first block."""
    metadata = {k: v for k, v in (options.metadata or {}).items() if k not in COUNTS}
    return options._replace(metadata=metadata or None)


def _keeps_rows(block: Chunk, ends: Ends) -> bool:
    """Whether anything is left if the last rows of truncated episodes go."""
    if "next_observations" in block or ends.truncations is None:
        return _count(block) > 0
    final = not _count(block) or bool((ends.terminals | ends.truncations)[-1])
    cut = ends.truncations & ~ends.terminals
    return bool(np.count_nonzero(~cut) > (0 if final else 1))


def join(chunks: Iterator[Chunk]) -> Chunk:
    """All chunks as one. Raises `DataError` if there are none or they do not fit together."""
    held = list(chunks)
    if not held:
        raise DataError("the file has no rows: at least one transition is needed")
    return _joined(held)


@contextlib.contextmanager
def _counted_from(start: int) -> Iterator[None]:
    """Says in errors from which row of the file rows are counted."""
    try:
        yield
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


def _last_end(ends: Ends, options: Options) -> int:
    """Number of rows up to the last episode that surely ends here."""
    terminals, truncations = ends.terminals, ends.truncations
    if truncations is None and options.horizon is not None:
        truncations = truncate_at(terminals, options.horizon)
    last = np.flatnonzero(terminals if truncations is None else terminals | truncations)
    return int(last[-1]) + 1 if last.size else 0


def _part(ends: Ends, begin: int, end: int) -> Ends:
    truncations = None if ends.truncations is None else ends.truncations[begin:end]
    return Ends(ends.terminals[begin:end], truncations, ends.unmarked[begin:end], ends.ignored)


def _followed_by(ends: Ends, more: Ends) -> Ends:
    """The ends of two blocks that follow each other."""
    truncations = None
    if ends.truncations is not None or more.truncations is not None:
        # What one of them leaves open, the other does not.
        parts = [
            np.zeros_like(e.terminals) if e.truncations is None else e.truncations
            for e in (ends, more)
        ]
        truncations = np.concatenate(parts)
    return Ends(
        np.concatenate([ends.terminals, more.terminals]),
        truncations,
        np.concatenate([ends.unmarked, more.unmarked]),
        ends.ignored,
    )


def _recognised(role: str, synonyms: Sequence[str], plain: dict[str, str]) -> list[str]:
    """The columns of usual names for a role."""
    if role in SIGNALS:
        return [name for synonym in synonyms for name in plain if plain[name] == synonym]
    for synonym in synonyms:
        alone = [name for name in plain if plain[name] == synonym]
        # Whoever spells it exactly as usual is meant.
        alone.sort(key=lambda name: name != synonym)
        if alone:
            return alone[:1]
        if role in ("observations", "actions", "next_observations"):
            family = _family(synonym + "_*", list(plain), re.IGNORECASE) or _family(
                synonym + ".*", list(plain), re.IGNORECASE
            )
            if family:
                return family
    if role in ("observations", "actions", "next_observations"):
        # Objects within an object, of any names.
        for synonym in synonyms:
            prefixes = (synonym + ".", synonym + "/")
            inside = [name for name in plain if name.lower().startswith(prefixes)]
            if inside:
                return inside
    return []


def _successors(observations: list[str], plain: dict[str, str]) -> list[str]:
    """The columns that are called like the components of the observation, and next."""
    for pattern in ("next_{}", "next.{}", "{}_next", "new_{}", "next {}"):
        columns = [pattern.format(name) for name in observations]
        if all(name in plain for name in columns):
            return columns
    return []


def _plain(name: str) -> str:
    """A name in lower case, with `_` for whatever is neither letter nor digit."""
    apart = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"[^0-9a-z]+", "_", apart.lower()).strip("_")


def _looks_like(name: str) -> str | None:
    plain = _plain(name)
    return next((what for what, pattern in _LOOKS.items() if pattern.search(plain)), None)


def _columns_named(role: str, requested: str | list[str], names: Sequence[str]) -> list[str]:
    if isinstance(requested, str) and "*" in requested:
        family = _family(requested, names)
        if not family:
            raise DataError(
                f"no column matches '{requested}' for {role} ('*' stands for a number); the "
                "columns "
                f"are {_listed(names)}"
            )
        return family
    chosen = []
    for name in [requested] if isinstance(requested, str) else requested:
        there = name if name in names else _respelt(name, names)
        if there is None:
            raise DataError(
                f"the column '{name}' declared for {role} is not there; the columns are "
                f"{_listed(names)}"
            )
        chosen.append(there)
    return chosen


def _respelt(name: str, names: Sequence[str]) -> str | None:
    """The one column whose name is this one as another encoding has to write it, if there is one.

    An accent may be a character of its own; what an encoding lacks is transliterated or replaced by
    a question mark.
    """
    composed = unicodedata.normalize("NFC", name)
    spellings = {composed, unicodedata.normalize("NFKC", composed.translate(_TRANSLITERATED))}
    for encoding in ("ascii", "latin-1", "cp1252"):
        spellings.add(composed.encode(encoding, "replace").decode(encoding))
    found = [other for other in names if unicodedata.normalize("NFC", other) in spellings]
    return found[0] if len(found) == 1 else None


def _family(pattern: str, names: Sequence[str], flags: int = 0) -> list[str]:
    before, _, after = pattern.partition("*")
    expression = re.compile(re.escape(before) + r"([0-9]{1,9})" + re.escape(after), flags)
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
