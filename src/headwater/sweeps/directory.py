"""A sweep's directory: `sweep.json` (the whole table), `runs/`, `failures.jsonl` and `logs/`."""

import contextlib
import dataclasses
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headwater.core import json_text
from headwater.core.errors import RunError
from headwater.runs import checkpoint
from headwater.runs.directory import RunDirectory
from headwater.runs.evaluations import final_returns
from headwater.runs.files import explain, write_json

_FORMAT = "headwater sweep 1"
_FILE = "sweep.json"
_TAIL = 2**16
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._=+-]+")


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a sweep.

    **Arguments:** `name`: of the run, and its directory's; `setting`: the row of the table that it
    belongs to, which several runs share if seeds are split; `method`, `dataset`: by name; `chosen`:
    hyper-parameters set by the grid; `updates`: of its last stage; `specification`: of the run;
    `process`: by name, if the table lists several; `updates_before`: of each earlier stage.
    """

    name: str
    setting: str
    method: str
    dataset: str | None
    chosen: dict[str, Any]
    updates: int
    specification: dict[str, Any]
    process: str | None = None
    updates_before: list[int] = dataclasses.field(default_factory=list)

    @property
    def all_updates(self) -> int:
        """That it makes in all its stages."""
        return sum(self.updates_before) + self.updates

    @property
    def seeds(self) -> list[int]:
        """Which seeds it trains."""
        return self.specification["options"]["seeds"]


def _abandoned(path: Path) -> bool:
    """Whether a process was killed at `path` before it had written down the table."""
    return path.is_dir() and all(
        entry.is_file() and (entry.name == "lock" or entry.name.startswith(f".{_FILE}."))
        for entry in path.iterdir()
    )


class SweepDirectory:
    """The files of one sweep. One process at a time may carry it out."""

    def __init__(self, path: Path, members: Sequence[Member], token: str):
        self.path = path
        self.members = list(members)
        self.token = token
        self._files = RunDirectory(path)

    @classmethod
    def create(cls, path: str | Path, members: Sequence[Member]) -> "SweepDirectory":
        """A new sweep of `members` at `path`, claimed for this process.

        Raises `RunError` if something is there, or another process is about to put it there.
        """
        path = Path(path)
        if not _abandoned(path):
            RunDirectory.refuse(path)
        created = cls(path, members, secrets.token_hex(8))
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(explain(error, path)) from error
        # First, or the table would be that of whoever writes it last.
        created.lock()
        try:
            if is_sweep(path):
                raise RunError(f"{path}: another process has just begun a sweep there")
            created.replace(members)
        except BaseException:
            created.unlock()
            raise
        return created

    @classmethod
    def open(cls, path: str | Path) -> "SweepDirectory":
        """The sweep at `path`. Raises `RunError` if there is none."""
        file = Path(path) / _FILE
        try:
            stored = json_text.parse(file.read_text(encoding="utf-8"))
            if stored["format"] != _FORMAT:
                raise ValueError(f"it says format {stored['format']!r}, not {_FORMAT!r}")
            members = [Member(**row) for row in stored["runs"]]
            for member in members:
                _check(member)
            return cls(Path(path), members, stored["token"])
        except FileNotFoundError:
            raise RunError(f"{path} is no sweep: it has no {_FILE}") from None
        except (OSError, ValueError, LookupError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise RunError(f"{file}: this is not the table of a sweep ({reason})") from None

    def replace(self, members: Sequence[Member]) -> None:
        """Writes down that the sweep is of `members` from now on."""
        self.members = list(members)
        rows = [dataclasses.asdict(member) for member in members]
        write_json(self.path / _FILE, {"format": _FORMAT, "token": self.token, "runs": rows})

    @property
    def logs(self) -> Path:
        """Where workers write what they have to say."""
        return self.path / "logs"

    def run_path(self, name: str) -> Path:
        """Where the run called `name` is."""
        return self.path / "runs" / name

    def member(self, name: str) -> Member:
        """The member called `name`. Raises `RunError` if there is none."""
        for member in self.members:
            if member.name == name:
                return member
        raise RunError(f"{self.path}: the sweep has no run '{name}'")

    def begun(self, member: Member) -> dict[str, Any] | None:
        """What the run was begun with, if it was."""
        if not (self.run_path(member.name) / "run.json").is_file():
            return None
        return RunDirectory(self.run_path(member.name)).specification

    def finished(self, member: Member) -> bool:
        """Whether the run made its last update."""
        folder = self.run_path(member.name) / "checkpoints"
        found = checkpoint.find(folder)
        last = len(member.updates_before), member.updates
        if not found or (found[-1].stage, found[-1].update) < last:
            return False
        return checkpoint.is_whole(checkpoint.path_of(folder, found[-1]))

    def updates_done(self, member: Member) -> int:
        """Updates made so far, as far as the run's files tell."""
        if self.finished(member):
            return member.all_updates
        try:
            with (self.run_path(member.name) / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _TAIL))
                found = re.findall(rb'"stage_index": (\d+), "update": (\d+)', file.read())
        except OSError:
            return 0
        stage, update = map(int, found[-1]) if found else (0, 0)
        return min(sum(member.updates_before[:stage]) + update, member.all_updates)

    def final_returns(self, member: Member) -> list[list[float]]:
        """Returns of what a finished run left, by seed; empty if it was never evaluated."""
        where = self.run_path(member.name)
        directory = RunDirectory(where)
        options = directory.specification.get("options") or {}
        best = bool(options.get("keep_best")) or options.get("patience") is not None
        return final_returns(directory.rows("evaluations"), member.seeds, where, best=best)

    def failed(self, name: str, attempt: int, kind: str, message: str) -> None:
        """Writes down that an attempt at a run came to nothing."""
        row = {
            "run": name,
            "attempt": attempt,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "kind": kind,
            "message": message,
        }
        self._files.append("failures", [row])

    def failures(self) -> dict[str, str]:
        """The latest message about every unfinished run that failed."""
        messages = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.path / "failures.jsonl").read_text(errors="replace").splitlines():
                # A line may have been cut short by a crash; it says nothing that is needed.
                with contextlib.suppress(ValueError, LookupError, TypeError):
                    row = json_text.parse(line)
                    messages[str(row["run"])] = str(row["message"])
        return {
            member.name: messages[member.name]
            for member in self.members
            if member.name in messages and not self.finished(member)
        }

    def lock(self) -> None:
        """Claims the sweep for this process. Raises `RunError` if another carries it out."""
        try:
            self._files.lock()
        except RunError as error:
            raise RunError(str(error).replace("this run", "this sweep")) from None

    def unlock(self) -> None:
        """Gives the sweep back."""
        self._files.unlock()


def is_sweep(path: str | Path) -> bool:
    """Whether there is a sweep at `path`."""
    return (Path(path) / _FILE).is_file()


def _check(member: Member) -> None:
    """Raises `ValueError` for what no sweep writes. Names come from a file and become paths."""
    named = isinstance(member.name, str) and _PLAIN_NAME.fullmatch(member.name)
    if not named or not member.name.strip("."):
        raise ValueError(f"{member.name!r} is no name of a run")
    for kind, values in (
        (str, (member.setting, member.method, member.dataset or "")),
        (int, (member.updates, *member.updates_before, *member.seeds)),
        (dict, (member.chosen, member.specification)),
    ):
        if not all(isinstance(value, kind) for value in values):
            raise ValueError(f"the entry of {member.name} is damaged")
