"""Rounds of bandits with contexts in a second of processor time, beside other libraries.

    python benchmarks/bandits/rounds.py --python PYTHON --out rounds.json

PYTHON is of an environment with `vowpalwabbit`, `mabwiser` and `river`; what it lacks is left out.
Ten arms and contexts of ten numbers, the same rounds for all (`rounds_work.py`): one at a time, as
they come, and from a log; and in Headwater's compiled loop, with ten arms and with 10,000.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIBRARIES = ("vowpalwabbit", "mabwiser", "river")


def main() -> None:
    """Measures in turns, prints a table and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="Python of an environment with the other libraries")
    parser.add_argument("--rounds", type=int, default=2_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from headwater.runs.directory import surroundings

    if sys.platform == "linux":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    # One thread for everyone.
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    count = str(options.rounds)
    ours = [sys.executable, str(HERE / "rounds_headwater.py")]
    cases: dict[str, list[str]] = {
        "Headwater": [*ours, "python", count],
        "Headwater, 10 arms": [*ours, "compiled", "20000", "10"],
        "Headwater, 10,000 arms": [*ours, "compiled", "5000", "10000"],
    }
    if options.python is not None:
        script = str(HERE / "rounds_peers.py")
        cases |= {name: [options.python, script, name, count] for name in LIBRARIES}
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.turns):
        for name, command in cases.items():
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                print(f"{name} is left out: {last}")
                continue
            found.setdefault(name, []).append(json.loads(done.stdout.strip().splitlines()[-1]))
    for name, turns in found.items():
        for kind in turns[0]["paces"]:
            pace = statistics.median(turn["paces"][kind]["rounds_per_second"] for turn in turns)
            regret = turns[-1]["paces"][kind]["regret"]
            print(
                f"{name} {turns[0]['version']}, {kind}: {pace:,.0f} a processor-second; regret of "
                f"a round in the second half {regret:.3f}"
            )
    if options.out is not None:
        result = {
            "settings": {"rounds": options.rounds, "turns": options.turns, "processors": 1},
            "made_with": surroundings(),
            "load_average": os.getloadavg(),
            "found": found,
        }
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
