"""Plain arrays and tables in files, with what is wrong with them in words."""

import gzip
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core import json_text
from headwater.core.errors import DataError, HeadwaterError, nearest
from headwater.core.stored_size import refuse_beyond

TABLES = (
    *(".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".arrow", ".feather"),
    *(".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"),
)
"""How the names of files with tables end."""


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name."""
    return path.name.lower().endswith(TABLES)


def read_table(path: Path) -> dict[str, np.ndarray]:
    """The columns of a table, lists of equal length as `[row, component]`.

    Raises `DataError` for what is damaged, empty cells, and lists of unequal length.
    """
    try:
        table = _open_table(path)
    except FileNotFoundError:
        raise DataError("there is no such file") from None
    except Exception as error:  # Whatever a damaged file makes the library trip on.
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"this is not a table ({reason})") from None
    if not table.num_rows:
        raise DataError("there is no row")
    found = {}
    for name in table.column_names:
        column = table[name]
        if column.null_count:
            raise DataError(f"column '{name}' has empty cells: fill or remove them")
        array = column.to_numpy()
        if array.dtype.kind == "O" and isinstance(array[0], np.ndarray):
            lengths = {len(row) for row in array}
            if len(lengths) > 1:
                raise DataError(
                    f"column '{name}' has lists of {min(lengths)} to {max(lengths)} numbers: each "
                    "row needs as many"
                )
            array = np.stack(list(array))
        found[name] = array
    return found


def names_in(path: Path) -> list[str]:
    """What the columns of a table, or the arrays of an `.npz`, are called, none of anything else.

    No rows are read but the first ones.
    """
    name = path.name.lower().removesuffix(".gz")
    try:
        if name.endswith(".npz"):
            with zipfile.ZipFile(path) as archive:
                return [each.removesuffix(".npy") for each in archive.namelist()]
        if name.endswith(".parquet"):
            import pyarrow.parquet

            return list(pyarrow.parquet.read_schema(path).names)
        if name.endswith((".jsonl", ".ndjson")):
            packed = path.name.lower().endswith(".gz")
            with gzip.open(path) if packed else path.open("rb") as file:
                return list(json_text.parse(file.readline()))
        if name.endswith((".csv", ".tsv")):
            import pyarrow.csv

            between = pyarrow.csv.ParseOptions(delimiter="\t" if name.endswith(".tsv") else ",")
            with pyarrow.csv.open_csv(path, parse_options=between) as reader:
                return list(reader.schema.names)
        if name.endswith((".arrow", ".feather")):
            import pyarrow.ipc

            with pyarrow.ipc.open_file(path) as reader:
                return list(reader.schema.names)
    except Exception:  # Whatever a damaged file makes the libraries trip on.
        return []
    return []


def _open_table(path: Path) -> Any:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path)
    if name.endswith((".arrow", ".feather")):
        import pyarrow.feather

        return pyarrow.feather.read_table(path)
    if name.endswith((".jsonl", ".ndjson")):
        import pyarrow.json

        return pyarrow.json.read_json(path)
    import pyarrow.csv

    between = "\t" if name.endswith(".tsv") else ","
    return pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter=between))


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`. Raises `DataError`, naming the file, for what is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            unpacked = sum(member.file_size for member in archive.zip.infolist())
            refuse_beyond(unpacked, path.stat().st_size)
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except HeadwaterError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # Whatever a damaged archive makes the libraries trip on.
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: this is not an .npz archive of arrays ({reason})") from None


def array_of(arrays: dict[str, Any], name: str, kinds: str) -> np.ndarray:
    """The array called `name`. Raises `DataError` if there is none or its type is not of `kinds`.

    **Arguments:** `kinds`: letters as NumPy has them.
    """
    if name not in arrays:
        raise DataError(f"there is no '{name}': {nearest(name, arrays, 'array')}")
    found = np.asarray(arrays[name])
    if found.dtype.kind not in kinds:
        needed = "whole numbers" if "f" not in kinds else "numbers"
        raise DataError(f"'{name}' has type {found.dtype}, but {needed} are needed")
    return found
