"""A run directory: specification, metrics, evaluations and checkpoints."""

import fcntl
import functools
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from headwater.core import json_text
from headwater.core.errors import RunError
from headwater.runs.checkpoint import Position
from headwater.runs.files import explain, no_link, write_atomically, write_json

_PACKAGE = Path(__file__).resolve().parents[1]
_PACKAGES = ("headwater", "jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium", "mujoco")


class RunDirectory:
    """The files of one run.

    `run.json` (what was asked for, versions, device), `metrics.jsonl`, `evaluations.jsonl` (raw
    returns), `checkpoints/` and, if asked for, `snapshots/`. One process at a time may write to it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.snapshots = path / "snapshots"
        self._lock: int | None = None

    @classmethod
    def create(
        cls,
        path: str | Path,
        specification: dict[str, Any],
        fill: Callable[[Path], None] | None = None,
    ) -> "RunDirectory":
        """A new run at `path`, complete or not there at all.

        **Arguments:** `fill`: writes what else the run needs into the directory that it is given.
        Raises `RunError` if something is already at `path`.
        """
        path = Path(path)
        cls.refuse(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        except OSError as error:
            raise RunError(explain(error, path)) from error
        try:
            if fill is not None:
                fill(temporary)
            write_json(temporary / "run.json", {**specification, "made_with": surroundings()})
            temporary.chmod(0o755)
            temporary.rename(path)
        except OSError as error:
            raise RunError(explain(error, path)) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return cls(path)

    @staticmethod
    def refuse(path: str | Path) -> None:
        """Raises `RunError` if something is already at `path`."""
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            remedy = f"continue it with `headwater resume {path}` or choose another name"
            if not (path / "run.json").is_file():
                remedy = "choose another name"
            raise RunError(f"{path} already exists and is not empty: {remedy}")

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """An existing run. Raises `RunError` if `path` holds none."""
        path = Path(path)
        if not (path / "run.json").is_file():
            lacks = "it has no run.json" if path.exists() else "there is nothing of that name"
            raise RunError(f"{path} is no run: {lacks}")
        return cls(path)

    @property
    def specification(self) -> dict[str, Any]:
        """What `run.json` says."""
        try:
            stored = json_text.parse((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / 'run.json'}: not readable ({error})") from error
        if not isinstance(stored, dict):
            raise RunError(f"{self.path / 'run.json'}: this is not the specification of a run")
        return stored

    def lock(self) -> None:
        """Claims the run for this process. Raises `RunError` if another one is writing to it."""
        try:
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise RunError(explain(error, self.path)) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise RunError(f"{self.path}: another process is writing to this run") from None
        self._lock = handle

    def unlock(self) -> None:
        """Gives the run back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def append(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Adds `rows` to `<name>.jsonl`."""
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path = self.path / f"{name}.jsonl"
        try:
            with open(path, "a", encoding="utf-8", opener=no_link) as file:
                file.write(text)
                file.flush()
                # Before the checkpoint that counts on these rows.
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(explain(error, path)) from error

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of `<name>.jsonl`; a last line cut short by a crash is left out.

        Raises `RunError`, naming the line, if one before it is damaged.
        """
        return list(_rows(self.path / f"{name}.jsonl"))

    def rewind(self, position: Position) -> None:
        """Drops what was logged after `position`, which resuming will log again."""
        for name in ("metrics", "evaluations"):
            path = self.path / f"{name}.jsonl"
            if not path.is_file():
                continue
            kept = [
                row
                for row in _rows(path)
                if (row["stage_index"], row["update"]) <= (position.stage, position.update)
            ]
            text = "".join(json.dumps(row) + "\n" for row in kept)
            write_atomically(path, lambda temporary, text=text: temporary.write_text(text))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    damaged = None
    # All at once: a run that goes on would complete a line between two readings of it.
    text = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n")
    for number, line in enumerate(text.split("\n"), 1):
        if damaged is not None:
            raise RunError(
                f"{path}, line {damaged}: this is no row of a run: restore the file, or remove "
                "the line"
            )
        try:
            row = json_text.parse(line)
            _check_row(row, path.stem == "evaluations")
        except (ValueError, TypeError, LookupError):
            damaged = number
            continue
        yield row


def _check_row(row: Any, evaluation: bool) -> None:
    """Raises `ValueError`, `TypeError` or `LookupError` for what no run logs."""
    whole = [row["stage_index"], row["update"], row["environment_steps"]]
    if evaluation:
        whole.append(row["seed"])
        numbers = list(row["returns"])
    else:
        metrics = dict(row["metrics"])
        numbers = [row["updates_per_second"], *(x for each in metrics.values() for x in each)]
    if not isinstance(row["stage"], str) or not all(json_text.fits(x, int) for x in whole):
        raise ValueError("its place")
    if not all(isinstance(x, float) or json_text.fits(x, int) for x in numbers):
        raise ValueError("a number")


def surroundings() -> dict[str, Any]:
    """What a result depends on beside the code: versions, Python, platform, device, commit."""
    import jax

    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    device = jax.devices()[0]
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device.platform}: {device.device_kind}",
        "commit": source_state()[0],
    }


@functools.cache
def source_state() -> tuple[str | None, bool | None]:
    """The commit of the source tree that is running, and whether it has changes beside it.

    Both are `None` for an installed package, whatever repository it is installed in.
    """
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    changes = _git("status", "--porcelain", "--", ".")
    return _git("rev-parse", "HEAD"), None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    """What git says of the package's folder; `None` if it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(_PACKAGE), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
