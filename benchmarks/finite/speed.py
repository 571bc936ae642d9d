"""Episodes per second of optimistic planners, side by side with rlberry, and how cost grows.

Every measurement is a process of its own on one processor; the two libraries take turns. Run with
the Python that has Headwater; rlberry runs with its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
STATES, ACTIONS, HORIZON = 20, 5, 20
CASES = (("UCBVI", 1), ("UCBVI", 64), ("MVP", 1), ("MVP", 64))
GROWTH = {
    "states": [(s, ACTIONS, HORIZON) for s in (20, 40, 80, 160)],
    "actions": [(STATES, a, HORIZON) for a in (5, 10, 20, 40)],
    "horizon": [(STATES, ACTIONS, h) for h in (20, 40, 80, 160)],
}


def main() -> None:
    """Measures, prints the tables and writes the result."""
    options = _parser().parse_args()
    from headwater.runs.directory import surroundings

    if sys.platform == "linux":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    result: dict[str, Any] = {
        "settings": {"seconds": options.seconds, "rounds": options.rounds, "processors": 1},
        "process": {"states": STATES, "actions": ACTIONS, "horizon": HORIZON},
        "made_with": surroundings(),
        "load_average_before": os.getloadavg(),
        "episodes_per_second": {},
        "microseconds_per_plan": {},
    }
    measured: dict[str, list[float]] = {}
    for turn in range(options.rounds):
        for name, seeds in CASES if turn % 2 == 0 else CASES[::-1]:
            rate = _headwater(name, (STATES, ACTIONS, HORIZON), options.seconds, seeds)
            measured.setdefault(f"Headwater {name}, {seeds} seeds", []).append(rate)
        for planner in ("compiled", "interpreted") if options.rlberry is not None else ():
            theirs = _rlberry(options.rlberry, options.seconds, planner)
            rate, result["rlberry"] = theirs["episodes_per_second"], theirs["versions"]
            measured.setdefault(f"rlberry UCBVI, planner {planner}", []).append(rate)
    rates = {name: statistics.median(each) for name, each in measured.items()}
    result["episodes_per_second"] = measured
    base = rates.get("rlberry UCBVI, planner compiled")
    for name, rate in rates.items():
        ratio = "" if base is None else f"{rate / base:8.2f} x rlberry, compiled"
        print(f"{name:34}{rate:12,.0f} episodes/s{ratio}")
    for what, sizes in GROWTH.items() if options.growth else ():
        rates_ = [_headwater("UCBVI", size, options.seconds, 1) for size in sizes]
        numbers = [size[("states", "actions", "horizon").index(what)] for size in sizes]
        slope = np.polyfit(np.log(numbers[-2:]), -np.log(rates_[-2:]), 1)[0]
        result["microseconds_per_plan"][what] = [1e6 / rate for rate in rates_]
        print(
            f"{what} {numbers}: {[round(1e6 / r) for r in rates_]} µs an episode, "
            f"grows like the power {slope:.2f} at the end"
        )
    result["load_average_after"] = os.getloadavg()
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _headwater(name: str, sizes: tuple[int, ...], seconds: float, seeds: int) -> float:
    command = [sys.executable, str(HERE / "pace_headwater.py"), name, *map(str, sizes)]
    return _pace([*command, str(seconds), str(seeds)])["episodes_per_second"]


def _rlberry(python: str, seconds: float, planner: str) -> dict[str, Any]:
    script = HERE / "pace_rlberry.py"
    sizes = map(str, (STATES, ACTIONS, HORIZON))
    return _pace([python, str(script), *sizes, str(seconds), planner])


def _pace(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rlberry", help="the Python that has rlberry and rlberry-scool")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--growth", action="store_true", help="also measure how cost grows")
    parser.add_argument("--out", type=Path, help="where to write everything as JSON")
    return parser


if __name__ == "__main__":
    main()
