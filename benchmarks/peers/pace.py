"""Updates per second, measured in the same way for every library, and how it is handed back."""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WARM_UP = 5
_FEWEST = 10


def arguments() -> argparse.Namespace:
    """What `speed.py` asks of the program that runs one library."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--library", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--widths", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--checkout", type=Path)
    options = parser.parse_args()
    options.widths = tuple(int(width) for width in options.widths.split(","))
    return options


def measure(advance: Callable[[int], None], seconds: float, unit: int = 1) -> dict[str, float]:
    """Updates per second of `advance(updates)` over about `seconds`.

    **Arguments:** `unit`: `updates` is always a multiple of it.

    What happens once is left out: the first call, which compiles and fills caches, and whatever
    every call begins with, since a short call is taken off the long one. Time is told twice: by the
    clock, and by how long this process had a processor, which other work disturbs less.
    """
    few = math.ceil(_FEWEST / unit) * unit
    before = time.perf_counter()
    advance(few)
    first = time.perf_counter() - before
    # Some compile again, several times, when they are given what they returned.
    for _ in range(_WARM_UP):
        advance(few)
    taken, busy = _timed(advance, few)
    while taken < seconds / 20:
        few *= 3
        taken, busy = _timed(advance, few)
    many = max(3 * few, int(few / taken * seconds / unit) * unit)
    taken_many, busy_many = _timed(advance, many)
    # What every call begins with may take as long as the updates.
    while taken_many - taken < seconds / 2:
        many = math.ceil(3 * many / unit) * unit
        taken_many, busy_many = _timed(advance, many)
    updates = many - few
    return {
        "updates_per_second": round(updates / max(taken_many - taken, 1e-9), 2),
        "updates_per_processor_second": round(updates / max(busy_many - busy, 1e-9), 2),
        "updates": updates,
        "seconds": round(taken_many - taken, 3),
        "first_seconds": round(first, 3),
    }


def hand_back(measured: dict[str, float], versions: dict[str, str]) -> None:
    """Prints the result as the last line, for `speed.py` to read."""
    line: dict[str, Any] = {**measured, "versions": versions}
    print(json.dumps(line), flush=True)


def _timed(advance: Callable[[int], None], updates: int) -> tuple[float, float]:
    """Seconds on the clock, and of processors at work for this process."""
    before, busy_before = time.perf_counter(), time.process_time()
    advance(updates)
    return time.perf_counter() - before, time.process_time() - busy_before
