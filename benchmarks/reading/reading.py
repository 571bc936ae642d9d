"""How fast a dataset is read, beside the bare library and beside the bytes themselves.

Writes noise in the shape of a locomotion task in every format, then lets three readers take turns
on each, every one in a process of its own: all bytes of the files in order, the library that knows
the format (NumPy, h5py, PyArrow) turning every column into an array, and `headwater.load`, which
also checks every number and finds the episodes. The files are out of the system's memory before
each measurement (`--warm`: in it).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_OBSERVATION, _ACTION, _EPISODE = 17, 6, 1000
_SUFFIXES = {
    "npz": ".npz",
    "d4rl": ".hdf5",
    "parquet": ".parquet",
    "arrow": ".arrow",
    "minari": "-v0",
    "minari-parquet": "-parquet-v0",
    "columns": "",
}
_READERS = ("bytes", "library", "headwater")


def main() -> None:
    """Writes the data, measures, prints the table and writes the result."""
    options = _parser().parse_args()
    if options.child is not None:
        _read(options.child, options.data, options.small, options.formats[0])
        return
    from headwater.runs.directory import surroundings

    options.folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for kind in options.formats:
        data, small = (_written(options.folder, kind, rows) for rows in (options.rows, _EPISODE))
        size = sum(file.stat().st_size for file in _files(data))
        for turn in range(options.rounds):
            for reader in _READERS[:: 1 if turn % 2 == 0 else -1]:
                found = _child(reader, data, small, kind, options.warm)
                row = {"format": kind, "reader": reader, "megabytes": size / 1e6, **found}
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
    print(_table(rows))
    if options.out is not None:
        settings = {"rows": options.rows, "warm": options.warm, "rounds": options.rounds}
        result = {"settings": settings, "made_with": surroundings(), "measurements": rows}
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="where the data may lie (1 KB a row in all)")
    add("--rows", type=int, default=1_000_000)
    add("--formats", nargs="+", choices=tuple(_SUFFIXES), default=tuple(_SUFFIXES))
    add("--rounds", type=int, default=3)
    add("--warm", action="store_true", help="leave the files in the system's memory")
    add("--out", type=Path, help="JSON file to write")
    add("--child", choices=_READERS, help=argparse.SUPPRESS)
    add("--data", type=Path, help=argparse.SUPPRESS)
    add("--small", type=Path, help=argparse.SUPPRESS)
    return parser


def _written(folder: Path, kind: str, rows: int) -> Path:
    """The file of so many rows; written if it is not there yet."""
    path = folder / f"log-{rows}{_SUFFIXES[kind]}"
    if not path.exists():
        _write(path, kind, rows)
    return path


def _write(path: Path, kind: str, rows: int) -> None:
    import numpy as np

    from headwater.datasets.dataset import Dataset
    from headwater.datasets.write import write

    random = np.random.default_rng(0)
    observations = random.standard_normal((rows + 1, _OBSERVATION), np.float32)
    data = Dataset.from_arrays(
        observations[:-1],
        random.random((rows, _ACTION), np.float32) * 2 - 1,
        random.standard_normal(rows, np.float32),
        np.zeros(rows, bool),
        np.arange(1, rows + 1) % _EPISODE == 0,
        observations[1:],
        action_low=-1.0,
        action_high=1.0,
    )
    write(data, path, kind)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())


def _child(reader: str, path: Path, small: Path, kind: str, warm: bool) -> dict[str, float]:
    for file in _files(path):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        advice = os.POSIX_FADV_WILLNEED if warm else os.POSIX_FADV_DONTNEED
        os.posix_fadvise(descriptor, 0, 0, advice)
        os.close(descriptor)
    if warm:
        _read_bytes(path)
    command = [sys.executable, __file__, "--folder", str(path.parent), "--child", reader]
    command += ["--data", str(path), "--small", str(small), "--formats", kind]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def _read(reader: str, path: Path, small: Path, kind: str) -> None:
    """Reads once, and prints the seconds; what only a first reading costs is not counted."""
    import headwater

    read = {
        "bytes": _read_bytes,
        "library": lambda path: _read_with_library(path, kind),
        "headwater": headwater.load,
    }[reader]
    read(small)
    before = time.perf_counter()
    read(path)
    print(json.dumps({"seconds": time.perf_counter() - before}))


def _read_bytes(path: Path) -> None:
    room = bytearray(8 * 2**20)
    for file in _files(path):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(room):
                pass


def _read_with_library(path: Path, kind: str) -> None:
    import h5py
    import numpy as np
    import pyarrow.feather
    import pyarrow.parquet

    def datasets(group):
        for item in group.values():
            yield from datasets(item) if isinstance(item, h5py.Group) else (item,)

    for file in _files(path):
        if file.suffix == ".npz":
            with np.load(file) as archive:
                for name in archive.files:
                    archive[name]
        elif file.suffix == ".npy" or (kind == "columns" and file.suffix != ".json"):
            np.fromfile(file, np.uint8)
        elif file.suffix == ".hdf5":
            with h5py.File(file) as stored:
                for item in datasets(stored):
                    item[()]
        elif file.suffix in (".parquet", ".arrow"):
            parquet = file.suffix == ".parquet"
            table = (pyarrow.parquet if parquet else pyarrow.feather).read_table(file)
            for column in table.columns:
                whole = column.combine_chunks()
                while hasattr(whole, "flatten") and pyarrow.types.is_nested(whole.type):
                    whole = whole.flatten()
                    whole = whole[0] if isinstance(whole, list) else whole
                whole.to_numpy(zero_copy_only=False)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| format | MB | bytes, MB/s | library, MB/s | Headwater, MB/s | of the library's speed "
        "| slowest over fastest |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(row["format"] for row in rows):
        mine = [row for row in rows if row["format"] == kind]
        size = mine[0]["megabytes"]
        taken = {
            reader: [r["seconds"] for r in mine if r["reader"] == reader] for reader in _READERS
        }
        rate = {reader: size / statistics.median(taken[reader]) for reader in _READERS}
        spread = max(max(seconds) / min(seconds) for seconds in taken.values())
        speeds = " | ".join(f"{rate[reader]:,.0f}" for reader in _READERS)
        share = rate["headwater"] / rate["library"]
        lines.append(f"| {kind} | {size:,.0f} | {speeds} | {share:.2f} | {spread:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
