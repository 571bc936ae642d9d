"""Updates per second, side by side with other libraries.

Every measurement is a process of its own, confined to the same processors; the libraries take
turns, so that what else the machine does falls on all of them. Run with the Python that has
Headwater; the peers run with theirs.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

METHODS = {
    "iql": ("IQL", "256,256"),
    "td3_bc": ("TD3+BC", "256,256"),
    # Three layers, as CORL fixes them for these two.
    "sac_n": ("SAC-N, 10 critics", "256,256,256"),
    "cql": ("CQL", "256,256,256"),
    "sac": ("SAC", "256,256"),
}


class Library(NamedTuple):
    """How one library is run.

    **Arguments:** `program`: what measures it; `methods`: which it has; `python`: the option that
    names its Python; `checkout`: the option that names its checkout, if it is used from one.
    """

    program: str
    methods: tuple[str, ...]
    python: str | None
    checkout: str | None = None


LIBRARIES = {
    "headwater": Library("headwater", tuple(METHODS), None),
    "headwater_bfloat16": Library("headwater", tuple(METHODS), None),
    "unifloral": Library("unifloral", ("iql", "td3_bc", "sac_n"), "jax_python", "unifloral"),
    "jax_corl": Library("jax_corl", ("iql", "td3_bc", "cql"), "jax_python", "jax_corl"),
    "sbx": Library("sb3", ("sac",), "jax_python"),
    "corl": Library("corl", ("iql", "td3_bc", "sac_n", "cql"), "torch_python", "corl"),
    "d3rlpy": Library("d3rlpy", tuple(METHODS), "torch_python"),
    "torchrl": Library("torchrl", ("iql", "td3_bc", "sac"), "torch_python"),
    "sb3": Library("sb3", ("sac",), "torch_python"),
}
PEERS = tuple(name for name, library in LIBRARIES.items() if library.python is not None)

_ROWS, _OBSERVATION, _ACTION = 100_000, 17, 6


def main() -> None:
    """Measures, prints the table and writes the result."""
    options = _parser().parse_args()
    given = vars(options)
    wanted = {"headwater", *(options.libraries or PEERS)}
    if options.bfloat16:
        wanted.add("headwater_bfloat16")
    libraries = [
        name
        for name, library in LIBRARIES.items()
        if name in wanted
        and all(given[each] for each in (library.python, library.checkout) if each is not None)
    ]
    processors = _confine(options.threads)
    result: dict[str, Any] = {
        "settings": {
            "threads": options.threads,
            "processors": processors,
            "batch_size": options.batch_size,
            "seconds": options.seconds,
            "rounds": options.rounds,
            "data": "synthetic" if options.data is None else options.data.name,
            "widths": {method: METHODS[method][1] for method in options.methods},
        },
        "machine": {"processor": _processor(), "system": platform.platform(terse=True)},
        "load_average_before": _load(),
        "measurements": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or _synthetic(Path(folder) / "data.npz")
        for turn in range(options.rounds):
            order = libraries if turn % 2 == 0 else libraries[::-1]
            for method in options.methods:
                for library in order:
                    if method not in LIBRARIES[library].methods:
                        continue
                    measured = _measure(library, method, data, options)
                    row = {"round": turn, "method": method, "library": library, **measured}
                    result["measurements"].append(row)
                    print(
                        f"round {turn + 1} of {options.rounds}, {METHODS[method][0]}, {library}: "
                        f"{measured['updates_per_second']:,.0f} updates/s",
                        file=sys.stderr,
                        flush=True,
                    )
    result["load_average_after"] = _load()
    result["summary"] = _summary(result["measurements"])
    print(
        f"Updates per second, median (lowest to highest) of {options.rounds} measurements of "
        f"{options.seconds:g} s; batch {options.batch_size}, {options.threads} thread(s), "
        f"{result['machine']['processor']}, load average {result['load_average_before']} before "
        f"and {result['load_average_after']} after\n"
    )
    print(_table(result["summary"]["updates_per_second"], libraries))
    if options.threads == 1:
        # With more, threads that wait in a loop would count as work.
        print("\nThe same by seconds that the process had the processor\n")
        print(_table(result["summary"]["updates_per_processor_second"], libraries))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--torch-python", help="a Python with PyTorch, d3rlpy, torchrl and stable-baselines3")
    add("--jax-python", help="a Python with jax, flax, distrax, omegaconf, pydantic and sbx-rl")
    add("--corl", type=Path, help="root of a checkout of CORL; without one, it is left out")
    add("--unifloral", type=Path, help="root of a checkout of Unifloral, likewise")
    add("--jax-corl", type=Path, help="root of a checkout of JAX-CORL, likewise")
    add("--libraries", nargs="+", choices=PEERS, help="only these and Headwater")
    add("--bfloat16", action="store_true", help="Headwater with --precision bfloat16 as well")
    add("--data", type=Path, help=".npz file (default: synthetic, 17 observations, 6 actions)")
    add("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    add("--batch-size", type=int, default=256)
    add("--threads", type=int, default=1)
    add("--seconds", type=float, default=10.0, help="timed in each measurement")
    add("--rounds", type=int, default=3, help="measurements of each library and method")
    add("--out", type=Path, help="JSON file to write")
    return parser


def _confine(threads: int) -> int:
    """Keeps this process and its children on `threads` processors; returns on how many they are."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
        sys.exit(f"{threads} threads were asked for, but only {len(allowed)} processors are here")
    os.sched_setaffinity(0, allowed[-threads:])
    return threads


def _measure(library: str, method: str, data: Path, options) -> dict[str, Any]:
    how, chosen = LIBRARIES[library], vars(options)
    python = sys.executable if how.python is None else chosen[how.python]
    given = {
        "--library": library,
        "--method": method,
        "--data": str(data),
        "--batch-size": str(options.batch_size),
        "--widths": METHODS[method][1],
        "--seconds": str(options.seconds),
        "--threads": str(options.threads),
    }
    if how.checkout is not None:
        given["--checkout"] = str(chosen[how.checkout])
    program = Path(__file__).with_name(f"pace_{how.program}.py")
    count = str(options.threads)
    done = subprocess.run(
        [python, str(program), *(part for pair in given.items() for part in pair)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count},
    )
    if done.returncode != 0:
        sys.exit(f"{library} failed on {method}:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _synthetic(path: Path) -> Path:
    """Noise in the shape of a locomotion task: speed does not depend on what is learned."""
    random = np.random.default_rng(0)
    observations = random.standard_normal((_ROWS + 1, _OBSERVATION)).astype(np.float32)
    truncations = np.arange(1, _ROWS + 1) % 1000 == 0
    np.savez(
        path,
        observations=observations[:-1],
        actions=random.uniform(-1, 1, (_ROWS, _ACTION)).astype(np.float32),
        rewards=random.standard_normal(_ROWS).astype(np.float32),
        next_observations=observations[1:],
        terminals=np.zeros(_ROWS, bool),
        truncations=truncations,
    )
    return path


def _summary(measurements: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By kind of time and method: each library's rates, and how much faster Headwater is."""
    summary: dict[str, dict[str, Any]] = {}
    for kind in ("updates_per_second", "updates_per_processor_second"):
        methods: dict[str, dict[str, Any]] = summary.setdefault(kind, {})
        for row in measurements:
            measured = methods.setdefault(row["method"], {})
            measured.setdefault(row["library"], {"rates": []})["rates"].append(row[kind])
        for measured in methods.values():
            for each in measured.values():
                each["median"] = statistics.median(each["rates"])
            own = measured["headwater"]["median"]
            for each in measured.values():
                each["headwater_over_this"] = round(own / each["median"], 3)
    return summary


def _table(methods: dict[str, Any], libraries: list[str]) -> str:
    rows = [["method", *libraries, *(f"headwater / {name}" for name in libraries[1:])]]
    for method, measured in methods.items():
        cells = [f"{METHODS[method][0]} ({METHODS[method][1].replace(',', '×')})"]
        for name in libraries:
            if name not in measured:
                cells.append("–")
                continue
            low, high = min(measured[name]["rates"]), max(measured[name]["rates"])
            middle = measured[name]["median"]
            digits = 1 if middle < 20 else 0
            cells.append(f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})")
        cells += [
            f"{measured[name]['headwater_over_this']:.2f}" if name in measured else "–"
            for name in libraries[1:]
        ]
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
        for row in rows
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _load() -> list[float]:
    return [round(each, 2) for each in os.getloadavg()] if os.name == "posix" else []


if __name__ == "__main__":
    main()
