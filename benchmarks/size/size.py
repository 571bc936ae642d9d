"""Training from data far larger than memory: how fast, and in how much memory.

Writes noise in the shape of a locomotion task as a column directory, if it is not there yet, and
trains IQL from it, by a pool in memory (`pool`, what commands do with large data) or row by row
(`rows`); beside that, from a hundredth of the rows in memory. Each is a process of its own, whose
resident memory is read from the operating system while it trains.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_OBSERVATION, _ACTION, _EPISODE = 17, 6, 1000
_KINDS = ("pool", "rows", "memory")


def main() -> None:
    """Writes the data, lets the processes take turns, prints and writes the result."""
    options = _parser().parse_args()
    if options.child is not None:
        _train(options)
        return
    from headwater.runs.directory import surroundings

    data = options.folder / f"{options.rows}.columns"
    if not data.exists():
        _write(data, options.rows)
    small = options.folder / f"{options.rows // 100}.columns"
    if not small.exists():
        _write(small, options.rows // 100)
    rows: list[dict[str, Any]] = []
    for turn in range(options.rounds):
        jobs = [(kind, small if kind == "memory" else data) for kind in options.kinds]
        for kind, path in jobs[:: 1 if turn % 2 == 0 else -1]:
            rows.append({"kind": kind, **_child(kind, path, options)})
            print(rows[-1], file=sys.stderr, flush=True)
    speed = {
        kind: statistics.median(r["updates_per_second"] for r in rows if r["kind"] == kind)
        for kind in options.kinds
    }
    peak = {
        kind: max(r["peak_resident_bytes"] for r in rows if r["kind"] == kind)
        for kind in options.kinds
    }
    size = sum(file.stat().st_size for file in data.iterdir())
    settings = {name: getattr(options, name) for name in ("rows", "updates", "together", "cold")}
    result = {
        "settings": settings,
        "made_with": surroundings(),
        "bytes_on_disk": size,
        "updates_per_second": speed,
        "peak_resident_bytes": peak,
        "measurements": rows,
    }
    print(f"{options.rows:,} transitions, {size / 2**30:.1f} GiB on disk")
    for kind in options.kinds:
        ratio = f", {speed[kind] / speed['memory']:.2f} of memory" if "memory" in speed else ""
        print(
            f"{kind}: {speed[kind]:,.0f} updates/s{ratio}; at most {peak[kind] / 2**30:.2f} GiB "
            "resident"
        )
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="where the data may lie (166 bytes a row)")
    add("--rows", type=int, default=100_000_000)
    add("--updates", type=int, default=8192)
    add("--together", type=int, default=32, help="updates whose rows are drawn at once")
    add("--rounds", type=int, default=3)
    add("--out", type=Path, help="JSON file to write")
    add("--kinds", nargs="+", choices=_KINDS, default=["pool", "memory"])
    add("--cold", action="store_true", help="have the system forget the files before each run")
    add("--child", choices=_KINDS, help=argparse.SUPPRESS)
    add("--data", type=Path, help=argparse.SUPPRESS)
    return parser


def _write(path: Path, rows: int) -> None:
    """Blocks of a million rows, so that writing needs little memory too."""
    import numpy as np

    from headwater.datasets.dataset import Dataset
    from headwater.datasets.formats.directory_format import write_directory

    def blocks():
        random = np.random.default_rng(0)
        size = min(1_000_000, rows)
        for begin in range(0, rows, size):
            observations = random.standard_normal((size + 1, _OBSERVATION), np.float32)
            ends = np.arange(1, size + 1) % _EPISODE == 0
            actions = random.random((size, _ACTION), np.float32) * 2 - 1
            yield Dataset.from_arrays(
                observations[:-1],
                actions,
                random.standard_normal(size, np.float32),
                np.zeros(size, bool),
                ends,
                observations[1:],
                action_low=-1.0,
                action_high=1.0,
            )
            print(f"written {begin + size:,} rows", file=sys.stderr, end="\r", flush=True)

    unfinished = path.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write_directory(blocks(), unfinished)
    unfinished.rename(path)


def _child(kind: str, path: Path, options) -> dict[str, Any]:
    command = [sys.executable, __file__, "--folder", str(options.folder), "--child", kind]
    command += ["--data", str(path), "--updates", str(options.updates)]
    command += ["--together", str(options.together)]
    if options.cold:
        _forget(path)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            for line in status.read_text().splitlines():
                if line.startswith("VmRSS:"):
                    peak = max(peak, int(line.split()[1]) * 1024)
        except OSError:
            break
        time.sleep(0.05)
    assert process.stdout is not None
    measured = process.stdout.read()
    if process.wait() != 0:
        sys.exit(f"training from {kind} failed")
    return {**json.loads(measured), "peak_resident_bytes": peak}


def _forget(path: Path) -> None:
    for file in path.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _train(options) -> None:
    """Updates per second of a run, what every run begins with taken off."""
    import jax
    import jax.numpy as jnp

    from headwater.datasets.formats.directory_format import open_columns, read_directory
    from headwater.methods.control.offline.iql import IQL
    from headwater.runs.loop import run
    from headwater.runs.stage import Stage
    from headwater.sources.out_of_core import OutOfCoreReplay
    from headwater.sources.pooled import PooledReplay
    from headwater.sources.replay import Replay

    together = options.together
    spaces = open_columns(options.data).spaces
    if options.child == "pool":
        source = PooledReplay(options.data, 256 * together)
    elif options.child == "rows":
        source = OutOfCoreReplay(options.data, 256 * together)
    else:
        rows = read_directory(options.data).transitions()
        source = Replay(jax.tree.map(jnp.asarray, rows), 256 * together)

    def seconds(updates: int) -> float:
        stage = Stage("offline", IQL(), source, updates, updates_per_draw=together)
        before = time.perf_counter()
        run([stage], spaces, progress=False)
        return time.perf_counter() - before

    few = 16 * together
    seconds(few)
    short = seconds(few)
    rate = (options.updates - few) / (seconds(options.updates) - short)
    print(json.dumps({"updates_per_second": round(rate, 1)}))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
