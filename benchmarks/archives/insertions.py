"""How many solutions an archive takes in a second of processor time, beside pyribs.

    python benchmarks/archives/insertions.py [PYTHON]

PYTHON is of an environment with `ribs`; without it pyribs is left out. The work is in `work.py`:
batches of 100 and of 10,000 solutions of ten numbers, a grid of 50 × 50 cells.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
from work import CELLS, SIZE, timed

import headwater
from headwater.parts.quality_diversity.archive import Archive

# One thread for everyone; JAX reads this when it is first used.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

insert = jax.jit(lambda archive, *rows: archive.insert(*rows), donate_argnums=0)


def insert_all(data):
    archive = Archive.grid(SIZE, (-1.0, -1.0), (1.0, 1.0), (CELLS, CELLS))
    for solution, objective, measures in data:
        archive = insert(archive, solution, objective, measures)
    return float(archive.coverage()), float(archive.qd_score())


found = [[f"Headwater {headwater.__version__}", timed(insert_all)]]
if len(sys.argv) < 2:
    print("pyribs is left out: give the Python of an environment that has it (pip install ribs).")
else:
    script = Path(__file__).with_name("pace_ribs.py")
    done = subprocess.run([sys.argv[1], script], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"pyribs is left out, since it cannot be run with {sys.argv[1]}: {reason}")
    else:
        found.append(json.loads(done.stdout))
for name, rows in found:
    for size, pace, coverage, score in rows:
        print(
            f"{name}, batches of {size:,}: {pace / 1e6:.2f} million a processor-second; coverage "
            f"{coverage:.4f}, score {score:.1f}"
        )
