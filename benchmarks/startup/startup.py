"""How long a user waits: for `--help`, for the first update cold, and with programs in the cache.

Each is measured from the start of a new process to its end; the first update is a run of one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Measures, prints the table and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--methods", nargs="+", default=["IQL", "TD3BC", "SACN", "CQL"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        _write_log(here / "log.npz")
        for turn in range(options.rounds):
            found.setdefault("--help", []).append(_seconds(["--help"], here, "none"))
            for method in options.methods:
                command = ["train", method, "-d", "log.npz", "-e", "none", "--seeds", "1"]
                command += ["--updates", "1"]
                for state in ("cold", "warm"):
                    out = ["-o", f"{method}-{state}-{turn}"]
                    seconds = _seconds([*command, *out], here, f"{method}-{turn}")
                    found.setdefault(f"{method}, {state}", []).append(seconds)
    print("| what | seconds |\n|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {statistics.median(seconds):.2f} |")
    if options.out is not None:
        from headwater.runs.directory import surroundings

        result = {"made_with": surroundings(), "seconds": found}
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _seconds(arguments: list[str], folder: Path, cache: str) -> float:
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "cache" / cache)}
    command = [sys.executable, "-m", "headwater", *arguments]
    before = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return time.perf_counter() - before


def _write_log(path: Path) -> None:
    random, rows = np.random.default_rng(0), 10_000
    observations = random.standard_normal((rows + 1, 17)).astype(np.float32)
    np.savez(
        path,
        observations=observations[:-1],
        next_observations=observations[1:],
        actions=random.uniform(-1, 1, (rows, 6)).astype(np.float32),
        rewards=random.standard_normal(rows).astype(np.float32),
        terminals=np.zeros(rows, bool),
        truncations=np.arange(1, rows + 1) % 1000 == 0,
    )


if __name__ == "__main__":
    main()
