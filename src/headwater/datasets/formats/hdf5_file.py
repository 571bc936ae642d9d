"""Opening HDF5 files, which may be damaged or made to harm, and reading their arrays."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core.errors import DataError
from headwater.core.stored_size import refuse_beyond
from headwater.datasets.formats.hdf5_walk import survives


def open_file(path: Path) -> Any:
    """An open HDF5 file with nothing in it that points outside. Raises `DataError`."""
    import h5py

    if not survives(path):
        raise DataError(
            "this HDF5 file is corrupt in a way that the HDF5 library does not survive: copy or "
            "download it again"
        )
    try:
        file = h5py.File(path, "r")
    except PermissionError as error:
        raise DataError(f"it cannot be read ({error.strerror}): check its permissions") from None
    except (OSError, RuntimeError) as error:
        raise damaged(error) from None
    try:
        refuse_beyond(_refuse_outside(file, "", set()), path.stat().st_size)
    except DataError:
        file.close()
        raise
    except Exception as error:
        file.close()
        raise damaged(error) from None
    return file


def read_columns(file, columns: list[str], rows: slice) -> np.ndarray:
    """These rows of the arrays of those names, side by side.

    Raises `DataError` for what cannot be read or holds no numbers.
    """
    try:
        parts = [np.asarray(file[name][rows]) for name in columns]
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError) as error:
        if "filter" in str(error) and "not registered" in str(error):
            raise DataError(
                f"column '{columns[0]}' is compressed by a filter that is not installed "
                f"({_reason(error)}): write the file again with gzip or without compression, as "
                "`h5repack -f NONE` does"
            ) from None
        raise DataError(
            f"column '{columns[0]}' cannot be read ({_reason(error)}): the file is truncated or "
            "corrupt; copy or download it again"
        ) from None
    for name, part in zip(columns, parts):
        if part.dtype.kind not in "biuf":
            raise DataError(f"column '{name}' has type {part.dtype}: only numbers can be read")
    return parts[0] if len(parts) == 1 else np.column_stack(parts)


def item_of(file, name: str):
    """The item of this name."""
    try:
        return file[name]
    except (KeyError, OSError, RuntimeError):
        raise DataError(
            f"'{name}' leads to nothing in the file: remove it, or write the file again"
        ) from None


def is_array(item) -> bool:
    """Whether an item is an array with a row for each step."""
    import h5py

    return isinstance(item, h5py.Dataset) and len(item.shape or ()) > 0


def _refuse_outside(group, prefix: str, visited: set[int]) -> int:
    """The bytes that all arrays claim to hold. Raises `DataError` for links that lead outside."""
    import h5py

    claimed = 0

    # Defined in the compiled part, where a type checker does not look.
    from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

    for name in group:
        link = group.get(name, getlink=True)
        where = f"{prefix}{name}"
        if isinstance(link, h5py.ExternalLink):
            raise DataError(
                f"'{where}' is a link to another file ({link.filename}), which is not followed: "
                "write a file that holds the data itself"
            )
        if not isinstance(link, h5py.HardLink):
            continue  # A link inside the file leads to what is visited by its own name.
        item = group[name]
        address = h5o.get_info(item.id).addr
        if address in visited:
            continue
        visited.add(address)
        if isinstance(item, h5py.Group):
            claimed += _refuse_outside(item, where + "/", visited)
        elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            raise DataError(
                f"'{where}' keeps its data in other files, which are not opened: write a file that "
                "holds the data itself"
            )
        elif isinstance(item, h5py.Dataset):
            claimed += math.prod(item.shape or ()) * item.id.get_type().get_size()
    return claimed


def damaged(error: Exception) -> DataError:
    """What to say of a file that the library trips on."""
    return DataError(
        f"this HDF5 file is truncated or corrupt ({_reason(error)}): copy or download it again"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
