"""Suggestions in a second of processor time, and what they find, beside Optuna and BoTorch.

    python benchmarks/black_boxes/suggestions.py --python PYTHON --out suggestions.json

PYTHON is of an environment with `optuna` and `botorch` (and torch for the processor); what it lacks
is left out. Branin's function and Hartmann's of six components, without noise, from five points at
random, with the same budget for all (`work.py`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OURS = ("ExpectedImprovement", "RandomSearch")
PEERS = ("optuna-tpe", "optuna-gp", "botorch")


def main() -> None:
    """Measures one library after the other, prints a table and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="Python of an environment with the other libraries")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from headwater.evaluation.statistics import interval
    from headwater.runs.directory import surroundings

    if sys.platform == "linux":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    # One thread for everyone, and nothing that was compiled before.
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        cases = [(name, sys.executable, "pace_headwater.py") for name in OURS]
        if options.python is not None:
            cases += [(name, options.python, "pace_peers.py") for name in PEERS]
        for name, python, script in cases:
            command = [python, str(HERE / script), name, str(options.seeds)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                print(f"{name} is left out: {last}")
                continue
            found[name] = json.loads(done.stdout.strip().splitlines()[-1])
            for box, each in found[name]["found"].items():
                first, *later = each["seconds"]
                evaluations = sum(later) and _evaluations(box) * len(later) / sum(later)
                print(
                    f"{name} {found[name]['version']}, {box}: regret "
                    f"{interval(each['regret'], 'mean', expand=True)}; {evaluations:.1f} "
                    f"suggestions a processor-second, the first search {first:.1f} s"
                )
    if options.out is not None:
        result = {
            "settings": {"seeds": options.seeds, "processors": 1},
            "made_with": surroundings(),
            "load_average": os.getloadavg(),
            "found": found,
        }
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _evaluations(box: str) -> int:
    from work import BOXES

    return BOXES[box][-1]


if __name__ == "__main__":
    main()
