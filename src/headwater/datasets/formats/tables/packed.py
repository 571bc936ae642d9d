"""Files of text, some of them packed with gzip."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from headwater.core.errors import DataError
from headwater.core.stored_size import refuse_beyond

_BLOCK = 2**20
MAGIC = b"\x1f\x8b"
"""How what is packed so begins."""


def is_packed(path: Path) -> bool:
    """Whether its name says that it is packed."""
    return path.name.lower().endswith(".gz")


def unpacked(path: Path) -> Iterator[bytes]:
    """The bytes of the text, unpacked, as long as they can honestly be in the file.

    Raises `DataError` for what is damaged, or claims too much.
    """
    size, total, packed = path.stat().st_size, 0, is_packed(path)
    try:
        with cast(IO[bytes], gzip.open(path) if packed else path.open("rb")) as file:
            while block := file.read(_BLOCK):
                total += len(block)
                if packed:
                    refuse_beyond(total, size)
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"this .gz file is truncated or corrupt ({error}): copy or download it again"
        ) from None
    except OSError as error:
        raise DataError(f"it cannot be read ({error.strerror or error})") from None
