"""Kills what Headwater does at random instants; what goes on must equal what was never killed.

    python drills/interruption.py --instants 100

Subjects: training in the compiled loop and on the host, adaptation, collection, a sweep, claims.
For each, one run is left in peace: the twin. Then others are begun and cut off, again and again,
until they come to their end, and the arrays of their last checkpoint, what they logged and the
data they wrote must be those of the twin, bit for bit. Ways of cutting off:

- `kill`: SIGKILL after a random time since the run's directory appeared;
- `write`: SIGKILL in the middle of writing: before, after, or half-way through one of the calls
  that write, sync or rename a file, whichever the dice choose;
- `interrupt`: Ctrl-C: the process must end within a second and say how to go on;
- `full`: the disk is full at a random moment (a small `tmpfs`): the message must say so, and the
  run must go on once there is room;
- `closed`: the directory cannot be written from a random moment on (`chattr +i`): likewise.

What a command line says may contain no traceback. The exit status is 1 if anything differs.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--set", "hidden_sizes=8", "--batch-size", "16"]
OUT = "place/out"
"""Where everything is written; `place` is where file systems are mounted."""
WALKS = [f"walk-{i}" for i in range(4)]
OFTEN = ["--evaluations", "20", "--episodes", "2"]

_START = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
if os.environ.get("DRILL_WRITE"):
    sys.path.insert(0, {drills!r})
    from dying import die_at
    die_at(int(os.environ["DRILL_WRITE"]), os.environ.get("DRILL_COUNT"))
from headwater.cli import main
sys.exit(main())
"""


class Subject(NamedTuple):
    """Something that can be interrupted.

    **Arguments:** `begin`: the command; `resume`: the one that goes on (default: the same);
    `results`: from the folder to what must be the same.
    """

    begin: list[str]
    results: Callable[[Path], dict[str, bytes]]
    resume: list[str] | None = None


# What must be the same ---------------------------------------------------------------------------


def run_results(path: Path) -> dict[str, bytes]:
    """The arrays of a run's last checkpoint and its logs, but for the speed."""
    from safetensors.numpy import load_file

    last = max((path / "checkpoints").glob("*.safetensors"))
    found = {f"{last.name} {n}": a.tobytes() for n, a in load_file(last).items()}
    found["evaluations"] = (path / "evaluations.jsonl").read_bytes()
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["updates_per_second"]
    found["metrics"] = json.dumps(rows).encode()
    left = [p.name for p in path.rglob("*") if p.name.endswith((".part", ".partial"))]
    # A killed process cannot tidy up; what is left must be no more than one file per kill.
    found["directories"] = str(sorted(p.name for p in path.iterdir() if p.is_dir())).encode()
    assert len(left) < 50, left
    return found


def data_results(path: Path) -> dict[str, bytes]:
    """The fingerprints of the datasets in a collection."""
    from headwater.datasets.read import load

    files = sorted(path.glob("*.npz"))
    return {file.name: load(file).fingerprint().encode() for file in files}


def claim_results(path: Path) -> dict[str, bytes]:
    """What the last record of each claim says, but for when and how fast."""
    from headwater.evidence.record import latest, read_records

    records, _ = read_records(path)
    found = {}
    for place, record in latest(records).items():
        row = {k: v for k, v in record.to_json().items() if k not in ("seconds", "time", "dirty")}
        found[str(place)] = json.dumps(row, sort_keys=True).encode()
    return found


def sweep_results(path: Path) -> dict[str, bytes]:
    """The results of every run of a sweep."""
    return {
        f"{run.name} {name}": value
        for run in sorted((path / "runs").iterdir())
        for name, value in run_results(run).items()
    }


def subjects() -> dict[str, Subject]:
    """By name. A new one needs a command, and what must be the same."""
    iql = ["train", "IQL", "-d", "log.npz", "-e", "pendulum", "--seeds", "2", "--updates", "400"]
    sac = ["train", "SAC", "-e", "Pendulum-v1", "--seeds", "2", "--steps", "240"]
    disk = ["train", "BC", "-d", "log", "--from-disk", "-e", "pendulum", "--seeds", "2"]
    disk += ["--updates", "800"]
    collect = ["data", "collect", "pendulum", "--steps", "600", "--transitions", "400"]
    kinds = ["--kinds", "random", "medium", "medium-replay", "--snapshots", "6"]
    claims = ["claim", "run", *WALKS, "--scale", "smoke", "--file", "own_claims.py"]
    resume = ["resume", OUT]
    return {
        "compiled": Subject([*iql, *TINY, *OFTEN, "-o", OUT], run_results, resume),
        "host": Subject([*sac, "--block", "8", *TINY, *OFTEN, "-o", OUT], run_results, resume),
        "disk": Subject([*disk, *TINY, *OFTEN, "-o", OUT], run_results, resume),
        "adapt": Subject(
            ["adapt", "upstream", "--steps", "300", "--batch-size", "16", *OFTEN, "-o", OUT],
            run_results,
            resume,
        ),
        "collect": Subject([*collect, *kinds, *TINY, "--format", "npz", "-o", OUT], data_results),
        "claims": Subject([*claims, "-o", OUT], claim_results),
        "sweep": Subject(["sweep", "table.toml", "--jobs", "1", "-o", OUT], sweep_results),
    }


# What they need ----------------------------------------------------------------------------------

_TABLE = """
methods = ["BC", "IQL"]
datasets = ["log.npz"]
environment = "pendulum"
updates = 200
seeds = 2
batch_size = 16
evaluations = 10
episodes = 2
[grid]
hidden_sizes = [[8]]
"""
_CLAIMS = '''
"""Claims that take a moment."""

import time

import jax

from headwater.evidence.claim import Claim, Criterion, Finding
from headwater.evaluation.statistics import Interval


def _walk(seed, size):
    time.sleep(0.4)
    total = float(jax.random.normal(jax.random.key(seed), (size,)).sum())
    value = Interval(total, total - 1.0, total + 1.0, 0.95, 4)
    return Finding((Criterion("the walk ends", value, at_least=-100.0),), {"total": total})
'''


def prepare(folder: Path) -> None:
    """Writes a log, an offline run, a table and claims into `folder`."""
    draw = np.random.default_rng(0)
    np.savez(
        folder / "log.npz",
        observations=draw.normal(size=(400, 3)),
        actions=draw.uniform(-2, 2, (400, 1)),
        rewards=draw.normal(size=400),
        terminals=np.zeros(400, bool),
        truncations=np.arange(400) % 10 == 9,
        next_observations=draw.normal(size=(400, 3)),
        action_low=-2.0,
        action_high=2.0,
    )
    (folder / "table.toml").write_text(_TABLE)
    done(folder, ["data", "convert", "log.npz", "log"])
    train = ["train", "IQL", "-d", "log.npz", "-e", "pendulum", "--seeds", "2", "--updates", "40"]
    done(folder, [*train, *TINY, "-o", "upstream"])


# Processes ---------------------------------------------------------------------------------------


def start(folder: Path, command: list[str], **environment: str) -> subprocess.Popen:
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", _START.format(drills=str(ROOT / "drills")), *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def done(folder: Path, command: list[str], **environment: str) -> float:
    """Runs a command to its end; the seconds that it took."""
    began = time.monotonic()
    process = start(folder, command, **environment)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, f"{command}: {errors}"
    return time.monotonic() - began


def begun(folder: Path, subject: Subject) -> list[str]:
    """The command that goes on from what there is."""
    there = (folder / OUT / "run.json").is_file() or (folder / OUT / "sweep.json").is_file()
    return subject.resume if subject.resume and there else subject.begin


def wait_for_output(folder: Path, process: subprocess.Popen) -> None:
    """Until there is something to lose."""
    while process.poll() is None and not (folder / OUT).exists():
        time.sleep(0.002)


class Failed(Exception):
    """A promise was broken."""


def end(process: subprocess.Popen) -> tuple[str, str]:
    """Waits for the end; what was printed."""
    out, errors = process.communicate(timeout=300)
    if "Traceback" in errors:
        raise Failed(f"traceback: {errors[errors.index('Traceback') :][:900]}")
    return out, errors


# Ways of cutting off -----------------------------------------------------------------------------


def cut_kill(folder: Path, subject: Subject, dice: random.Random, seconds: float) -> str:
    """SIGKILL after a random time."""
    process = start(folder, begun(folder, subject))
    if dice.random() < 0.9:
        wait_for_output(folder, process)
    time.sleep(dice.uniform(0.0, seconds))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    end(process)
    return "killed" if process.returncode < 0 else "over before"


def cut_write(folder: Path, subject: Subject, dice: random.Random, seconds: float) -> str:
    """SIGKILL at one of the calls that write."""
    count = folder / "count"
    at = dice.randint(1, 60) * 3 + dice.randint(0, 2)
    process = start(folder, begun(folder, subject), DRILL_WRITE=str(at), DRILL_COUNT=str(count))
    end(process)
    return "killed while writing" if process.returncode < 0 else "over before"


def cut_interrupt(folder: Path, subject: Subject, dice: random.Random, seconds: float) -> str:
    """Ctrl-C."""
    process = start(folder, begun(folder, subject))
    wait_for_output(folder, process)
    time.sleep(dice.uniform(0.0, seconds))
    pressed = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    _, errors = end(process)
    took = time.monotonic() - pressed
    if process.returncode == 0:
        return "over before"
    if process.returncode == -signal.SIGINT and not errors.strip():
        return "interrupted before Python listened"
    if process.returncode != 130 or "interrupted" not in errors:
        raise Failed(f"status {process.returncode} after Ctrl-C: {errors[-300:]}")
    INTERRUPTS.append(took)
    return "interrupted"


INTERRUPTS: list[float] = []


def cut_full(folder: Path, subject: Subject, dice: random.Random, seconds: float) -> str:
    """A full disk, by a small file system or by calls that fail."""
    place, kept = folder / "place", folder / "kept"
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    shutil.copytree(place, kept)
    if subprocess.run(mount, capture_output=True).returncode:
        shutil.rmtree(kept)
        return "not possible here"
    try:
        for item in kept.iterdir():
            move(item, place / item.name)
        shutil.rmtree(kept)
        ballast = place / ".ballast"
        # From nothing to a little more than all that is written.
        size = shutil.disk_usage(place).free - dice.randint(0, 60) * 4096
        ballast.write_bytes(bytes(max(size, 0)))
        process = start(folder, begun(folder, subject))
        _, errors = end(process)
        said = "disk is full" in errors or "No space left" in errors
        outcome = "over before" if process.returncode == 0 else "the disk was full"
        if process.returncode not in (0, 1) or (process.returncode == 1 and not said):
            raise Failed(f"full disk, status {process.returncode}: {errors[-300:]}")
        ballast.unlink()
        shutil.copytree(place, kept)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    shutil.rmtree(place)
    kept.rename(place)
    return outcome


def _marked(place: str) -> bool:
    """Whether nothing can be made in a directory any more."""
    return not subprocess.run(["chattr", "+i", place], capture_output=True).returncode


def move(item: Path, target: Path) -> None:
    """Across file systems."""
    shutil.copytree(item, target) if item.is_dir() else shutil.copy2(item, target)


def cut_closed(folder: Path, subject: Subject, dice: random.Random, seconds: float) -> str:
    """A directory that cannot be written any more."""
    process = start(folder, begun(folder, subject))
    wait_for_output(folder, process)
    time.sleep(dice.uniform(0.0, seconds))
    out = folder / OUT
    places = [str(p) for p in (out, *out.rglob("*")) if p.is_dir()] if out.exists() else []
    closed = [place for place in places if _marked(place)]
    try:
        _, errors = end(process)
    finally:
        for place in closed:
            subprocess.run(["chattr", "-i", place], check=True)
    if process.returncode == 0:
        return "over before"
    if not closed:
        return "not possible here"
    if process.returncode != 1 or not errors.strip():
        raise Failed(f"closed directory, status {process.returncode}: {errors[-300:]}")
    if "cannot be written" not in errors and "Operation not permitted" not in errors:
        raise Failed(f"closed directory: {errors[-300:]}")
    return "the directory was closed"


CUTS = {
    "kill": cut_kill,
    "write": cut_write,
    "interrupt": cut_interrupt,
    "full": cut_full,
    "closed": cut_closed,
}


def compare(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """Raises `Failed`, naming the first difference."""
    if one.keys() != other.keys():
        raise Failed(f"other results: {sorted(one.keys() ^ other.keys())[:3]}")
    for name, value in one.items():
        if value != other[name]:
            raise Failed(f"{name} differs")


def main() -> int:
    """Interrupts as often as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--instants", type=int, default=100, help="how many, over all subjects")
    parser.add_argument("--subjects", nargs="*", choices=list(subjects()), help="only these")
    parser.add_argument("--cuts", nargs="*", choices=list(CUTS), help="only these ways")
    parser.add_argument("--most", type=int, default=6, help="instants for each run, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    given = parser.parse_args()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "headwater" / "drills"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    dice = random.Random(given.seed)
    chosen = {n: s for n, s in subjects().items() if not given.subjects or n in given.subjects}
    ways = given.cuts or ["kill", "kill", "kill", "write", "write", "interrupt", "full", "closed"]
    counts: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="headwater-interruption-") as name:
        top = Path(name)
        base = top / "base"
        (base / "place").mkdir(parents=True)
        prepare(base)
        (base / "own_claims.py").write_text(_own_claims())
        twins, lasts = {}, {}
        for subject, what in chosen.items():
            folder = top / f"twin-{subject}"
            shutil.copytree(base, folder)
            done(folder, what.begin)
            twins[subject] = what.results(folder / OUT)
            shutil.rmtree(folder / OUT)
            # Compiled by now: how long there is something to lose.
            process = start(folder, what.begin)
            wait_for_output(folder, process)
            began = time.monotonic()
            end(process)
            lasts[subject] = time.monotonic() - began
            print(f"{subject}: {len(twins[subject])} results; {lasts[subject]:.1f} s", flush=True)
            compare(twins[subject], what.results(folder / OUT))
        instants = runs = 0
        while instants < given.instants:
            subject = list(chosen)[runs % len(chosen)]
            what, runs = chosen[subject], runs + 1
            folder = top / f"run-{runs}"
            shutil.copytree(base, folder)
            story = []
            try:
                for _ in range(dice.randint(1, given.most)):
                    way = dice.choice(ways)
                    story.append(way)
                    outcome = CUTS[way](folder, what, dice, lasts[subject])
                    counts[f"{subject}: {outcome}"] += 1
                    story[-1] = f"{way} ({outcome})"
                    if outcome in ("over before", "not possible here"):
                        break
                    instants += 1
                done(folder, begun(folder, what))
                compare(twins[subject], what.results(folder / OUT))
            except (Failed, AssertionError, subprocess.TimeoutExpired, OSError) as error:
                failures.append(f"{subject}: {', '.join(story)}: {error}")
                print(f"FAILED {failures[-1]}", flush=True)
            if runs % 10 == 0:
                print(f"{instants} instants in {runs} runs", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
    slow = [f"{t:.2f}" for t in INTERRUPTS if t > 1.0]
    print(f"\n{instants} instants in {runs} runs: {len(failures)} failures")
    for name, count in sorted(counts.items()):
        print(f"  {count:4d}  {name}")
    if INTERRUPTS:
        print(f"Ctrl-C took up to {max(INTERRUPTS):.2f} s; more than a second: {slow or 'never'}")
    if given.out is not None:
        figures = {"instants": instants, "runs": runs, "counts": counts, "failures": failures,
                   "interrupts": INTERRUPTS}  # fmt: skip
        given.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if failures else 0


def _own_claims() -> str:
    lines = [_CLAIMS, "CLAIMS = ("]
    for name in WALKS:
        scales = '{"smoke": {"size": 100}}'
        lines.append(
            f'    Claim("{name}", "It ends.", ("IQL",), "Nobody 2000, arXiv 0000.00000", "", '
            f"{scales}, _walk),"
        )
    return "\n".join([*lines, ")", ""])


if __name__ == "__main__":
    sys.exit(main())
