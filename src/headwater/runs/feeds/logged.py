"""Logged transitions as a run is told of them, and how they are drawn."""

import dataclasses
import hashlib
import itertools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.core.method import AbstractMethod, AbstractReturnsToGo, AbstractWholeLog
from headwater.core.records import AuxiliaryTransitions, Demonstrations
from headwater.datasets import transform
from headwater.datasets.dataset import Dataset
from headwater.datasets.formats.directory_format import is_column_directory, open_columns
from headwater.datasets.read import load
from headwater.datasets.segments.answers import SegmentAnswers, possible_begins, read_answers
from headwater.runs.options import Options
from headwater.runs.recipes.online import rows_per_update
from headwater.sources.action_windows import ActionWindowReplay
from headwater.sources.out_of_core import OutOfCoreReplay
from headwater.sources.pooled import PooledReplay
from headwater.sources.replay import AuxiliaryReplay, Replay
from headwater.sources.segments.compared import ComparedAndLogged, ComparedSegments
from headwater.sources.segments.demonstrations import AllDemonstrations
from headwater.sources.weighted import WeightedReplay
from headwater.sources.whole_log import WithWholeLog

_DISK_DRAWS, _DRAWN_BYTES = 32, 2**24
"""Batches that are drawn from the disk at once, if their rows take no more than so many bytes."""
_MOST_FRAMES = 2_000
"""Of a demonstration: the time to cut it into stages grows with their square."""
_LARGE = 2**31
"""Bytes on disk from which on they are not expected to stay in the system's memory."""


@dataclasses.dataclass(frozen=True)
class DataChoice:
    """Which logged experience or texts.

    **Arguments:** `path`: absolute, or relative to the run's directory; `options`: of
    `headwater.load`; `fingerprint`: of the content; `comparisons`: absolute path of the file of
    answers about its segments, if there is one, and `comparisons_fingerprint` of that.
    """

    path: str | None
    options: dict[str, Any]
    fingerprint: str | None
    comparisons: str | None = None
    comparisons_fingerprint: str | None = None

    def place(self, directory: Path | None) -> Path | None:
        """Where it lies, for a run in `directory`."""
        if self.path is None:
            return None
        path = Path(self.path)
        return path if path.is_absolute() or directory is None else directory / path

    def check_unchanged(self, path: Path) -> None:
        """Raises `DataError` if the file at `path` is not what the run began with."""
        if self.fingerprint not in (None, file_fingerprint(path)):
            raise DataError(
                f"{path} has changed since this run began: restore it, or begin another run"
            )


def file_fingerprint(path: Path) -> str:
    """What tells the content of a file from others. Raises `DataError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


class Logged:
    """Logged transitions, in memory or on the disk.

    **Arguments:** `choice`; `options`: how they are drawn; `directory`: of the run, which relative
    paths are relative to; `data`: where the caller has it already.

    Raises `DataError` if the data has changed, `RunError` if it is not known any more,
    `SpecificationError` for options that do not fit together.
    """

    def __init__(
        self,
        choice: DataChoice,
        options: Options,
        directory: Path | None = None,
        data: Dataset | None = None,
    ):
        self.choice, self.options = choice, options
        self.path = choice.place(directory)
        if options.from_disk:
            self.data, self.columns = None, self._mapped()
            self.spaces, self.metadata = self.columns.spaces, self.columns.metadata
            return
        if data is None:
            if self.path is None:
                raise RunError("this run's data was held in memory and is not known any more")
            data = load(self.path, **choice.options)
        self._check_unchanged(data.fingerprint())
        if options.top is not None:
            data = transform.top_episodes(data, options.top)
        self.data = data
        self.spaces, self.metadata = data.spaces, data.metadata

    @property
    def action_confidence(self) -> np.ndarray | None:
        """Which actions were logged, are missing or were inferred; see `Dataset`."""
        held = self.columns if self.data is None else self.data
        return held.action_confidence

    def transitions(self, method: AbstractMethod):
        """All rows, on the device."""
        if self.data is None:
            raise SpecificationError(
                "data that stays on disk cannot be mixed with an environment's: leave out from_disk"
            )
        discount = method.discount if isinstance(method, AbstractReturnsToGo) else None
        return jax.tree.map(jnp.asarray, self.data.transitions(discount))

    def updates_per_draw(self, updates: int, rows: int) -> int:
        """How many updates of `rows` each share a draw: it pays for the way from the disk."""
        if self.data is not None:
            return 1
        draws = _DISK_DRAWS
        while draws > 1 and draws * rows * self._row_bytes > _DRAWN_BYTES:
            draws //= 2
        return math.gcd(updates, draws)

    def source(self, method: AbstractMethod, batch_size: int):
        """Where an offline method's batches come from."""
        rows = rows_per_update(method, batch_size)
        if self.data is None and isinstance(method, AbstractWholeLog):
            raise SpecificationError(
                f"{type(method).__name__} looks through the whole log in each update, so that it "
                "has to be in memory: leave out from_disk"
            )
        if self.data is None:
            assert self.path is not None
            # Few methods ask for the logged returns, which cost a pass over the data.
            discount = method.discount if isinstance(method, AbstractReturnsToGo) else None
            replay = (
                PooledReplay if self._row_bytes * self.columns.size > _LARGE else OutOfCoreReplay
            )
            return replay(str(self.path), rows, discount)
        replay = self._replay(method, rows)
        return WithWholeLog(replay) if isinstance(method, AbstractWholeLog) else replay

    def windows(self, history: int, future: int, batch_size: int) -> ActionWindowReplay:
        """Where a method that infers actions gets logged ones from, and what surrounds them.

        Rows are drawn whose action was logged and that something follows. Raises `DataError` if
        there are none, `SpecificationError` for options that do not fit.
        """
        if self.data is None or self.options.weights is not None:
            idle = "from_disk" if self.data is None else "weights"
            raise SpecificationError(
                f"windows around logged actions are drawn from memory, all alike: leave out {idle}"
            )
        rows = np.flatnonzero(self.data.logged_actions & ~self.data.terminals)
        if not rows.size:
            raise DataError(
                f"{self.path or 'the data'}: no row has an action that was logged and is followed "
                "by anything, so that there is nothing to learn actions from"
            )
        return windows_of(self.data, rows, history, future, batch_size)

    def several_rewards(
        self, method: str, names: tuple[str, ...], batch_size: int
    ) -> AuxiliaryReplay:
        """Where a method that reads several rewards of each step gets them from.

        **Arguments:** `method`: its name; `names`: of the columns of the log that hold the others,
        each read as the main one is; `batch_size`: rows per draw.

        Raises `DataError` if the log has no such column, `SpecificationError` for options that do
        not fit, or if the log has no columns left to read.
        """
        if self.data is None or self.options.weights is not None:
            idle = "from_disk" if self.data is None else "weights"
            raise SpecificationError(
                f"logs with several rewards are drawn from memory, all alike: leave out {idle}"
            )
        if self.options.top is not None:
            raise SpecificationError("the best episodes are so by one reward: leave out top")
        if self.path is None:
            raise SpecificationError(
                f"{method} reads the columns {', '.join(names)} beside the rewards, and a Dataset "
                "holds one reward: give the file that has them"
            )
        found = [self._other_rewards(name) for name in names]
        rows = jax.tree.map(jnp.asarray, self.data.transitions(None))
        data = AuxiliaryTransitions(
            rows.observation,
            rows.action,
            rows.reward,
            rows.next_observation,
            rows.terminal,
            rows.truncated,
            jnp.asarray(np.stack(found, axis=1)),
        )
        return AuxiliaryReplay(data, batch_size)

    def compared_segments(self, name: str, batch_size: int) -> ComparedSegments:
        """Where a method that learns from compared segments gets them from.

        **Arguments:** `name`: of the method; `batch_size`: pairs per draw.

        Raises `DataError` for answers that are not of this log or have changed since the run began,
        `SpecificationError` if there are none, or for options that do not fit.
        """
        if self.data is None or self.options.weights is not None:
            idle = "from_disk" if self.data is None else "weights"
            raise SpecificationError(
                f"compared segments are drawn from memory, all alike: leave out {idle}"
            )
        if self.options.top is not None:
            raise SpecificationError("segments of all episodes were compared: leave out top")
        if self.choice.comparisons is None:
            raise SpecificationError(
                f"{name} learns from compared segments of the log: give comparisons "
                "(--comparisons FILE), which `headwater data compare LOG FILE` makes"
            )
        path = Path(self.choice.comparisons)
        if self.choice.comparisons_fingerprint not in (None, file_fingerprint(path)):
            raise DataError(
                f"{path} has changed since this run began: restore it, or begin another run"
            )
        return compared_segments_of(self.data, read_answers(path, self.data), batch_size)

    def _other_rewards(self, name: str) -> np.ndarray:
        """The column called `name`, of the rows that the log has, read as its rewards are."""
        assert self.data is not None and self.path is not None
        if is_column_directory(self.path):
            raise DataError(
                f"{self.path}: a column directory holds one reward, so that '{name}' is not there: "
                "give the file that it was made from"
            )
        reading = self.data.metadata.get("reading")
        known = reading["columns"] if isinstance(reading, dict) else {}
        columns = {**known, **(self.choice.options.get("columns") or {}), "rewards": name}
        other = load(self.path, **{**self.choice.options, "columns": columns})
        if other.size != self.data.size:
            raise DataError(
                f"{self.path}: '{name}' belongs to {other.size:,} rows and the rewards to "
                f"{self.data.size:,}: give every row both"
            )
        return other.rewards

    def _replay(self, method: AbstractMethod, rows: int) -> Replay | WeightedReplay:
        """Draws of `rows` from the memory."""
        assert self.data is not None
        if self.options.weights is None:
            return Replay(self.transitions(method), rows)
        weigh = transform.return_weights
        if self.options.weights == "advantage":
            weigh = transform.advantage_weights
        weights = weigh(self.data, self.options.weight_temperature)
        return WeightedReplay(self.transitions(method), np.asarray(weights), rows)

    @property
    def _row_bytes(self) -> int:
        columns = self.columns.columns.values()
        return sum(column.nbytes for column in columns) // self.columns.size

    def _mapped(self):
        if self.path is None or not is_column_directory(self.path):
            raise SpecificationError(
                f"{self.path or 'the data'}: only a column directory can stay on disk; make one "
                "with `headwater data convert FILE DIRECTORY`"
            )
        if self.options.top is not None or self.options.weights is not None:
            raise SpecificationError(
                "data that stays on disk is drawn uniformly: leave out top and weights"
            )
        columns = open_columns(self.path)
        self._check_unchanged(columns.fingerprint())
        return columns

    def _check_unchanged(self, fingerprint: str) -> None:
        if self.choice.fingerprint not in (None, fingerprint):
            raise DataError(
                f"{self.path or 'the data'} has changed since this run began: restore it, or begin "
                "another run"
            )


def compared_segments_of(
    data: Dataset, answers: SegmentAnswers, batch_size: int
) -> ComparedSegments:
    """The pairs of segments of a log that were compared, without those that were skipped.

    **Arguments:** `batch_size`: pairs per draw. Raises `DataError` if all were skipped.
    """
    decided = answers.decided()
    return ComparedSegments(
        jnp.asarray(data.observations),
        jnp.asarray(data.actions),
        jnp.asarray(decided.first),
        jnp.asarray(decided.second),
        jnp.asarray(decided.preference),
        decided.length,
        batch_size,
    )


def demonstrations_of(logged: Logged, name: str, fewest: int) -> AllDemonstrations:
    """Where a method that learns from whole demonstrations gets them from: each is an episode.

    Its frames are the observations of its rows and, if only the record stopped, what was observed
    last.

    **Arguments:** `name`: of the method; `fewest`: frames that it needs of each.

    Raises `DataError`, naming the episode, if one is too short or too long, `SpecificationError`
    for options that do not fit.
    """
    data = logged.data
    if data is None or logged.options.weights is not None:
        idle = "from_disk" if data is None else "weights"
        raise SpecificationError(
            f"{name} learns from whole demonstrations in memory, all alike: leave out {idle}"
        )
    starts = data.episode_starts
    last = starts[1:] - 1
    # Behind a terminal row stands nothing that was observed.
    goes_on = ~data.terminals[last]
    lengths = np.diff(starts) + goes_on
    for wrong, bound in ((lengths < fewest, "at least"), (lengths > _MOST_FRAMES, "at most")):
        if wrong.any():
            episode = int(np.argmax(wrong))
            wanted = fewest if bound == "at least" else _MOST_FRAMES
            raise DataError(
                f"{logged.path or 'the data'}: episode {episode} has {lengths[episode]:,} frames, "
                f"and {name} needs {bound} {wanted:,} of each: leave such episodes out"
                + (", or ask for fewer stages" if bound == "at least" else ", or thin them")
            )
    shape = (len(lengths), int(lengths.max()), data.observations.shape[1])
    frames = np.zeros(shape, np.float32)
    for episode, (begin, end) in enumerate(itertools.pairwise(starts)):
        frames[episode, : end - begin] = data.observations[begin:end]
        if goes_on[episode]:
            frames[episode, end - begin] = data.next_observations[end - 1]
    found = Demonstrations(jnp.asarray(frames), jnp.asarray(lengths, jnp.int32))
    return AllDemonstrations(found)


def compared_and_logged(data: Dataset, compared: ComparedSegments) -> ComparedAndLogged:
    """Compared segments, and others of the same log beside them."""
    return ComparedAndLogged(compared, jnp.asarray(possible_begins(data, compared.length)))


def windows_of(
    data: Dataset, rows: np.ndarray, history: int, future: int = 1, batch_size: int = 1
) -> ActionWindowReplay:
    """The windows around the actions of a log, from which `rows` are drawn.

    **Arguments:** `history`: earlier observations in each, and `future`: later ones; `batch_size`:
    windows per draw.
    """
    first = data.episode_starts[:-1][data.episode_of_row]
    # Nothing was observed behind a terminal row: only its own window reads what stands there.
    last = data.episode_starts[1:] - 1
    last = (last - data.terminals[last])[data.episode_of_row]
    last = np.maximum(last, np.arange(data.size))
    return ActionWindowReplay(
        jnp.asarray(data.observations),
        jnp.asarray(data.next_observations),
        jnp.asarray(data.actions),
        jnp.asarray(first),
        jnp.asarray(last),
        jnp.asarray(rows),
        history,
        future,
        batch_size,
    )
