"""Trains for hours, or starts a thousand short runs in one process, and watches the memory.

    python drills/soak.py --minutes 120
    python drills/soak.py --runs 1000

Resident memory and the number of memory maps are read from the operating system. The first fifth
is left out: what is compiled, and buffers that fill, are no leak. The verdict is by the slope of a
line through the rest: over the whole drill it may add no more than 5 % or 24 MiB, whichever is
more, and the memory maps no more than 2,000. The exit status is 1 if it does.
"""

import argparse
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_SHARE, _BYTES, _MAPS = 0.05, 24 * 2**20, 2_000


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def maps() -> int:
    """Memory maps of this process, of which Linux allows 65,530."""
    return Path("/proc/self/maps").read_bytes().count(b"\n")


def verdict(times: list[float], memory: list[int], counts: list[int]) -> dict:
    """Slopes over the whole drill, and whether memory is flat."""
    kept = slice(len(times) // 5, None)
    x = np.asarray(times[kept]) / (times[-1] or 1.0)
    grown = float(np.polyfit(x, memory[kept], 1)[0])
    mapped = float(np.polyfit(x, counts[kept], 1)[0])
    allowed = max(_SHARE * float(np.median(memory[kept])), _BYTES)
    return {
        "resident_mib": {
            "first": memory[0] / 2**20,
            "median": float(np.median(memory[kept])) / 2**20,
            "last": memory[-1] / 2**20,
            "growth_by_slope": grown / 2**20,
            "allowed": allowed / 2**20,
        },
        "maps": {"last": counts[-1], "growth_by_slope": mapped},
        "flat": grown <= allowed and mapped <= _MAPS,
    }


def log_of(rows: int):
    """Random transitions of the pendulum."""
    from headwater.datasets.dataset import Dataset

    draw = np.random.default_rng(0)
    return Dataset.from_arrays(
        draw.normal(size=(rows, 3)),
        draw.uniform(-2, 2, (rows, 1)),
        draw.normal(size=rows),
        np.zeros(rows, bool),
        np.arange(rows) % 200 == 199,
        draw.normal(size=(rows, 3)),
        action_low=-2.0,
        action_high=2.0,
    )


def train_for(minutes: float, method: str, every: float) -> dict:
    """One run with a directory, of as many updates as fit, and its memory once a minute."""
    import threading

    from headwater.api.train import train

    times, memory, counts = [], [], []
    over = threading.Event()

    def watch() -> None:
        began = time.monotonic()
        while not over.wait(every):
            times.append(time.monotonic() - began)
            memory.append(resident())
            counts.append(maps())
            print(f"{times[-1] / 60:7.1f} min {memory[-1] / 2**20:8.1f} MiB {counts[-1]} maps",
                  flush=True)  # fmt: skip
            if times[-1] > minutes * 60:
                os.kill(os.getpid(), 2)
                return

    # A shell has what it starts in the background ignore interrupts, which end the run here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher = threading.Thread(target=watch)
    with tempfile.TemporaryDirectory(prefix="headwater-soak-") as folder:
        watcher.start()
        how = {"env": "pendulum", "seeds": 2, "batch_size": 64, "episodes": 4, "progress": False}
        try:
            # Evaluations, checkpoints and rows of logs go on for as long as the run does.
            train(method, log_of(20_000), updates=2**31 - 2**20, evaluations=200_000,
                  out=Path(folder) / "run", **how)  # fmt: skip
        except KeyboardInterrupt:
            pass
        finally:
            over.set()
            watcher.join()
    return verdict(times, memory, counts)


def short_runs(count: int, every: int = 10) -> dict:
    """Many runs one after the other, each with a directory of its own, and the memory meanwhile."""
    from headwater.api.train import train
    from headwater.core.catalogue import build_method

    data = log_of(400)
    times, memory, counts = [], [], []
    how = {"env": "pendulum", "seeds": 1, "batch_size": 8, "updates": 8, "evaluations": 1,
           "episodes": 1, "progress": False}  # fmt: skip
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headwater-soak-") as folder:
        for number in range(count):
            # Other hyper-parameters in every run, as a sweep has them.
            method = build_method(
                "IQL" if number % 2 else "BC",
                {"hidden_sizes": [8], "learning_rate": 1e-3 * (1 + number / count)},
            )
            train(method, data, seed=number, out=Path(folder) / str(number), **how)
            if number % 10 == 9:
                gc.collect()
                times.append(time.monotonic() - began)
                memory.append(resident())
                counts.append(maps())
            if number % every == every - 1:
                print(f"{number + 1:6d} runs {times[-1]:6.0f} s {memory[-1] / 2**20:8.1f} MiB "
                      f"{counts[-1]} maps", flush=True)  # fmt: skip
    return verdict(times, memory, counts)


def main() -> int:
    """Does what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=120.0, help="of one training run")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between measurements")
    parser.add_argument("--method", default="IQL")
    parser.add_argument("--runs", type=int, help="start so many short runs instead")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    given = parser.parse_args()
    if given.runs:
        found = {"runs": given.runs, **short_runs(given.runs)}
    else:
        found = {"minutes": given.minutes, **train_for(given.minutes, given.method, given.every)}
    print(json.dumps(found, indent=1))
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
