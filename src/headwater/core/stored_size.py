"""How much a file may unpack to: what it claims is checked before room is made for it."""

from pathlib import Path

from headwater.core.errors import DataError

ALWAYS = 16 * 2**20
"""Bytes that any file may unpack to."""
MOST_TIMES = 200
"""Beyond that, how many times its size. Deflate reaches about 1000 on zeros and nothing else;
logged experience is rarely packed to less than a thirtieth."""


def refuse_beyond(claimed: int, stored: int) -> None:
    """Raises `DataError` if `claimed` bytes cannot honestly be in a file of `stored` bytes."""
    if claimed > max(ALWAYS, MOST_TIMES * stored):
        raise DataError(
            f"it claims {_size(claimed)} of data but holds {_size(stored)}: it is corrupt, or made "
            "to fill the memory; if neither, write it again without compression"
        )


def require_regular(path: Path) -> None:
    """Raises `DataError` for pipes and devices, which never end or never begin."""
    if path.exists() and not path.is_file():
        what = "a directory" if path.is_dir() else "a pipe or a device"
        raise DataError(f"{path} is {what}, and no file: give a file")


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"
