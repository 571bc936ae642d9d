"""Answers about pairs of segments of a log, and the file that they are kept in.

The file has a JSON table on every line. The first one says of which log the others are; each of
these has `first` and `second`, the row in which a segment begins and the one after its last, and
`answer`: `first`, `second`, `equal` or `skip`.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headwater.core import json_text
from headwater.core.errors import DataError, SpecificationError
from headwater.datasets.dataset import Dataset

Answer = Literal["first", "second", "equal", "skip"]
"""Which of two segments is better; `skip`: whoever was asked does not say."""
PREFERENCES: dict[str, float] = {"first": 1.0, "second": 0.0, "equal": 0.5}
"""What can be learned from each answer: how strongly the first is preferred."""
_FORMAT = "headwater comparisons of segments, 1"


@dataclasses.dataclass(frozen=True, eq=False)
class SegmentAnswers:
    """What was said of pairs of segments of one log.

    **Arguments:** `first`, `second`: the row of the log in which each segment begins, int64
    `[pair]`; `length`: steps of every segment; `answers`: one for each pair.
    """

    first: np.ndarray
    second: np.ndarray
    length: int
    answers: tuple[Answer, ...]

    def decided(self) -> "SegmentAnswers":
        """Those from which something can be learned. Raises `DataError` if there are none."""
        keep = np.asarray([answer != "skip" for answer in self.answers], bool)
        if not keep.any():
            raise DataError(
                f"all {len(self.answers):,} pairs were skipped, so that there is nothing to learn "
                "from: compare more of them"
            )
        answers: tuple[Answer, ...] = tuple(a for a in self.answers if a != "skip")
        return SegmentAnswers(self.first[keep], self.second[keep], self.length, answers)

    @property
    def preference(self) -> np.ndarray:
        """1 where the first is preferred, 0 the second, 0.5 neither; NaN where it was skipped."""
        found = [PREFERENCES.get(answer, np.nan) for answer in self.answers]
        return np.asarray(found, np.float32)


class AnswerFile:
    """A file of answers that grows, one at a time, and is whole at every instant.

    An answer is written and synced before `append` returns, so that a process that is killed loses
    nothing that was answered. What it had begun to write is cut off when the file is next opened.

    **Arguments:** `path`: a new file, or one of answers about the same log; `dataset`: the log.

    Raises `DataError` if the file is of another log, or of something else, or is open elsewhere.
    """

    def __init__(self, path: str | Path, dataset: Dataset):
        self.path, self._dataset = Path(path), dataset
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock()
            self.answered = self._opened()
        except BaseException:
            self.close()
            raise

    def append(self, first: int, second: int, length: int, answer: Answer) -> None:
        """Adds one answer, of segments that begin in these rows.

        Raises `DataError` if they are no two segments of the log of the length of those before.
        """
        line = _record(int(first), int(second), length, answer)
        held = None if self.answered is None else self.answered.length
        _pair(line, f"{self.path}", self._dataset, held)
        self._write(_line(line))
        before = self.answered
        self.answered = SegmentAnswers(
            np.append(np.zeros(0, np.int64) if before is None else before.first, first),
            np.append(np.zeros(0, np.int64) if before is None else before.second, second),
            length,
            (*(() if before is None else before.answers), answer),
        )

    def close(self) -> None:
        """Closes the file, so that others may write."""
        os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"{self.path} is being written by another process: end that one first"
            ) from None

    def _opened(self) -> SegmentAnswers | None:
        """The answers that are there, after the header was written if there is none."""
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        header = _line({"format": _FORMAT, "observations": observations_hash(self._dataset)})
        # Nothing is cut off or added before it is certain that this is a file of answers.
        found = _parsed(content[:end], self.path, self._dataset) if end else None
        if not end and not header.startswith(content):
            raise _other_file(self.path)
        if end < len(content):
            os.ftruncate(self._file, end)
        if not end:
            self._write(header)
        return found

    def _write(self, line: bytes) -> None:
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written < len(line):
                # The disk is nearly full: another attempt says why.
                os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise


def read_answers(path: str | Path, dataset: Dataset) -> SegmentAnswers:
    """The answers in a file, about segments of `dataset`.

    Raises `DataError`, naming the file and the line, for what is no answer about two segments of
    equal length within episodes of this log, and if there is none.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    # What stands after the last line is an answer that was being written when a process was killed.
    found = _parsed(content[: content.rfind(b"\n") + 1], path, dataset)
    if found is None:
        raise DataError(
            f"{path} holds no answer yet: compare segments with `headwater data compare`"
        )
    return found


def write_answers(path: str | Path, answers: SegmentAnswers, dataset: Dataset) -> Path:
    """Writes answers about segments of `dataset` to a new file.

    Raises `SpecificationError` if the file exists, `DataError` for no segments of this log.
    """
    path = Path(path)
    lines: list[dict[str, Any]] = [
        {"format": _FORMAT, "observations": observations_hash(dataset)},
        *(
            _record(int(first), int(second), answers.length, answer)
            for first, second, answer in zip(answers.first, answers.second, answers.answers)
        ),
    ]
    content = b"".join(map(_line, lines))
    _parsed(content, path, dataset)
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise SpecificationError(f"{path} exists: choose another name, or remove it") from None
    return path


def _record(first: int, second: int, length: int, answer: Answer) -> dict[str, Any]:
    return {
        "first": [first, first + length],
        "second": [second, second + length],
        "answer": answer,
    }


def _line(table: dict[str, Any]) -> bytes:
    return json.dumps(table).encode() + b"\n"


def _other_file(path: Path) -> DataError:
    return DataError(
        f"{path} is no file of comparisons of segments: `headwater data compare` makes them"
    )


def observations_hash(dataset: Dataset) -> str:
    """What tells a log from others for who compares segments: observations and episodes.

    Actions and rewards do not count, so that answers hold where these are filled in afterwards.
    """
    total = hashlib.blake2b(digest_size=16)
    for column in (dataset.observations, dataset.episode_starts):
        total.update(f"{column.dtype.str}{column.shape}".encode())
        total.update(np.ascontiguousarray(column).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def possible_begins(dataset: Dataset, length: int) -> np.ndarray:
    """The rows in which a segment of `length` steps within one episode may begin, int64.

    Raises `SpecificationError` if `length` is none, `DataError` if no episode is so long.
    """
    if length < 1:
        raise SpecificationError(f"length = {length}: a segment has at least one step")
    ends = dataset.episode_starts[1:][dataset.episode_of_row]
    begins = np.flatnonzero(np.arange(dataset.size) + length <= ends)
    if not begins.size:
        raise DataError(
            f"no episode has {length:,} steps (the longest has "
            f"{int(dataset.episode_lengths().max()):,}): compare shorter segments"
        )
    return begins


def _parsed(content: bytes, path: Path, dataset: Dataset) -> SegmentAnswers | None:
    lines = content.splitlines()
    try:
        header = _table(lines[0], "") if lines else {}
    except DataError:
        raise _other_file(path) from None
    if header.get("format") != _FORMAT:
        raise _other_file(path)
    if header.get("observations") != observations_hash(dataset):
        raise DataError(
            f"{path} is of another log, with other observations or episodes: give the log whose "
            "segments were compared, read in the same way"
        )
    firsts, seconds, answers, length = [], [], [], None
    for number, line in enumerate(lines[1:], 2):
        where = f"{path}, line {number}"
        first, second, length, answer = _pair(_table(line, where), where, dataset, length)
        firsts.append(first)
        seconds.append(second)
        answers.append(answer)
    if length is None:
        return None
    return SegmentAnswers(
        np.asarray(firsts, np.int64), np.asarray(seconds, np.int64), length, tuple(answers)
    )


def _table(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = json_text.parse(line)
    except ValueError as error:
        reason = " ".join(str(error).split())[:80]
        raise DataError(f"{where}: this is not JSON ({reason}): remove the line") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: this is no JSON table: remove the line")
    return found


def _pair(
    found: dict[str, Any], where: str, dataset: Dataset, length: int | None
) -> tuple[int, int, int, Answer]:
    """Both begins, the length and the answer of one line. Raises `DataError`."""
    begins, lengths = {}, {}
    for name in ("first", "second"):
        rows: Any = found.get(name)
        if not json_text.fits(rows, list[int]) or len(rows) != 2 or not rows[0] < rows[1]:
            raise DataError(
                f"{where}: the {name} segment is missing or is no pair of the row in which it "
                "begins and the row after its last"
            )
        begin, end = rows
        if begin < 0 or end > dataset.size:
            raise DataError(
                f"{where}: the {name} segment is of rows {begin} to {end - 1}, but the log has "
                f"{dataset.size:,} rows"
            )
        last = int(dataset.episode_starts[np.searchsorted(dataset.episode_starts, begin, "right")])
        if end > last:
            raise DataError(
                f"{where}: the {name} segment is of rows {begin} to {end - 1}, but its episode "
                f"ends at row {last - 1}"
            )
        begins[name], lengths[name] = begin, end - begin
    if lengths["first"] != lengths["second"]:
        raise DataError(
            f"{where}: the first segment has {lengths['first']} steps and the second "
            f"{lengths['second']}: compare segments of equal length"
        )
    if length is not None and lengths["first"] != length:
        raise DataError(
            f"{where}: the segments have {lengths['first']} steps and those before {length}: keep "
            "another length in another file"
        )
    answer = found.get("answer")
    if answer not in (*PREFERENCES, "skip"):
        raise DataError(
            f"{where}: the answer is {json.dumps(answer)[:40]}, but it is one of first, second, "
            "equal and skip"
        )
    return begins["first"], begins["second"], lengths["first"], answer
