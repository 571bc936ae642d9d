"""Goes through an HDF5 file in a process of its own, which a damaged one may take with it.

The library follows what a file says without looking: some damage makes it run for ever or end the
process. Run as a script, by path, so that nothing of Headwater is loaded.
"""

import functools
import math
import os
import subprocess
import sys
from pathlib import Path

_SECONDS, _BYTES_PER_SECOND = 1, 5_000_000
"""Of processor time: for any file, and how much more a larger one may take."""
_ALLOWED = 48 * 2**20
"""Bytes of memory beside twice the size of the file."""
_GREEDY = 3
"""Exit status of a walk that took more."""
_READ_WHOLE = 64 * 2**20
"""Files up to this size are read; of larger ones, only what describes the data."""


def survives(path: Path) -> bool:
    """Whether a process that goes through the file comes to an end by itself."""
    if not sys.executable:
        return True
    found = path.stat()
    return _survives(os.path.abspath(path), found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _survives(path: str, size: int, changed: int) -> bool:
    # Without the folder of this script on the path, whose names other packages could mean.
    command = [sys.executable, "-P", __file__, path]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode >= 0 and done.returncode != _GREEDY


def _walk(path: str) -> None:
    import h5py

    size, before = os.path.getsize(path), _used()
    _limit_processor_time(before[0] + _SECONDS + size // _BYTES_PER_SECOND)
    with h5py.File(path, "r") as file:
        _look(file, "", size <= _READ_WHOLE, set())
    if _used()[1] - before[1] > _ALLOWED + 2 * size:
        os._exit(_GREEDY)


def _look(group, prefix: str, whole: bool, visited: set) -> None:
    import h5py
    from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

    for name in _tried(lambda: list(group.attrs)) or ():
        _tried(lambda name=name: group.attrs[name])
    for name in _tried(lambda: list(group)) or ():
        link = _tried(lambda name=name: group.get(name, getlink=True))
        if not isinstance(link, h5py.HardLink):
            continue
        item = _tried(lambda name=name: group[name])
        if item is None:
            continue
        address = _tried(lambda handle=item.id: h5o.get_info(handle).addr)
        if address in visited:
            continue
        visited.add(address)
        if isinstance(item, h5py.Group):
            _look(item, f"{prefix}{name}/", whole, visited)
        elif isinstance(item, h5py.Dataset):
            _tried(lambda item=item: _read(item, whole))


def _read(item, whole: bool) -> None:
    # Rows one by one are what a large claim cannot make expensive.
    if item.external or item.is_virtual or item.shape is None:
        return
    if item.shape == ():
        item[()]
    elif whole and item.size * item.dtype.itemsize <= _READ_WHOLE:
        item[...]
    else:
        item[:1]


def _tried(look):
    """What it returns; nothing, where the library notices by itself what is wrong."""
    try:
        return look()
    except Exception:
        return None


def _used() -> tuple[int, int]:
    """Processor seconds, rounded up, and the most bytes of memory of this process so far."""
    try:
        import resource
    except ImportError:  # Not on every system.
        return 0, 0
    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    return math.ceil(used.ru_utime + used.ru_stime), used.ru_maxrss * unit


def _limit_processor_time(seconds: int) -> None:
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    # Whatever is wrong and noticed is told by the reader; here only the end of the process counts.
    _tried(lambda: _walk(sys.argv[1]))
