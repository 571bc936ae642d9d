"""Writing files so that a crash, at any instant, leaves the old or the new one, never half."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headwater.core.errors import RunError


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Has `write` fill a temporary file beside `path`, syncs it and renames it to `path`.

    Raises `RunError` in plain words if the disk is full or the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise RunError(explain(error, path)) from error
    temporary = Path(name)
    try:
        write(temporary)
        # Temporary files are made for their owner alone; this one is to be like any other.
        temporary.chmod(0o666 & ~_mask())
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise RunError(explain(error, path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def fill_directory(path: Path, fill: Callable[[Path], Any]) -> None:
    """Has `fill` write into a directory beside `path`, which then gets its name.

    Whoever is stopped meanwhile leaves no directory at `path`; what another one left half goes.
    Raises `RunError` as `write_atomically` does.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        fill(temporary)
        for file in temporary.iterdir():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        temporary.rename(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise RunError(explain(error, path)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def no_link(path: str, flags: int) -> int:
    """An opener for `open`: of the file itself, not of what a link in its place leads to."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def explain(error: OSError, path: Path) -> str:
    """An operating-system error about `path`, in one sentence with a remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: the disk is full; free some room and resume (nothing written was lost)"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path}: this place cannot be written; choose another or change its permissions"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{path}: there is a file where a directory is needed; choose another place"
    if error.errno == errno.ELOOP:
        return f"{path}: there is a link to another place, which is not written to: remove it"
    if error.errno == errno.EFBIG:
        return f"{path}: a limit on the size of files was reached; raise it (ulimit -f) and resume"
    return f"{path}: {error.strerror or error}"


def _mask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
