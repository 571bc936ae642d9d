"""What a seed costs when many are trained in one program, and against one process for each core.

Every measurement is a process of its own; layouts and numbers of seeds take turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Measures, prints the table and writes the result."""
    options = _parser().parse_args()
    if options.child is not None:
        _train(options)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert cores is not None
    rows: list[dict[str, Any]] = []
    for turn in range(options.rounds):
        jobs = [(layout, seeds) for layout in options.layouts for seeds in options.seeds]
        jobs = [job for job in jobs if job != ("devices", 1)]
        jobs.append(("processes", cores))
        for layout, seeds in jobs[:: 1 if turn % 2 == 0 else -1]:
            row = {"layout": layout, "seeds": seeds, **_measure(layout, seeds, options)}
            rows.append(row)
            print(
                f"{layout}, {seeds} seeds: {row['seed_updates_per_second']:,.0f} in all",
                file=sys.stderr,
                flush=True,
            )
    print(_table(rows))
    if options.out is not None:
        settings = {"method": options.method, "batch_size": 256, "widths": [256, 256]}
        result = {"settings": settings, "cores": cores, "measurements": rows}
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--method", default="IQL")
    add("--seeds", type=int, nargs="+", default=[1, 2, 8, 64])
    add("--layouts", nargs="+", default=["map", "vmap", "devices"])
    add("--seconds", type=float, default=10.0, help="timed in each measurement")
    add("--rounds", type=int, default=3)
    add("--out", type=Path, help="JSON file to write")
    add("--child", help=argparse.SUPPRESS)
    return parser


def _measure(layout: str, seeds: int, options) -> dict[str, Any]:
    """One process; or, for `processes`, as many as there are cores, each with one seed on one."""
    command = [sys.executable, __file__, "--method", options.method]
    command += ["--seconds", str(options.seconds)]
    if layout != "processes":
        done = _start([*command, "--child", layout, "--seeds", str(seeds)], None)
        return _read(done)
    one = [*command, "--child", "map", "--seeds", "1"]
    started = [_start(one, core) for core in sorted(os.sched_getaffinity(0))]
    each = [_read(process) for process in started]
    return {
        "seed_updates_per_second": sum(row["seed_updates_per_second"] for row in each),
        "compile_seconds": max(row["compile_seconds"] for row in each),
        "peak_bytes": sum(row["peak_bytes"] for row in each),
    }


def _start(command: list[str], core: int | None) -> subprocess.Popen[str]:
    confine = None if core is None else (lambda: os.sched_setaffinity(0, {core}))
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=confine)


def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode != 0:
        sys.exit("a measurement failed")
    return json.loads(out.strip().splitlines()[-1])


def _train(options) -> None:
    """Updates per second, all seeds together, what every run begins with taken off."""
    import resource

    import jax

    layout, (seeds,) = options.child, options.seeds
    if layout == "devices":
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    import jax.numpy as jnp
    import numpy as np

    import headwater as hw
    from headwater.core.records import Transitions
    from headwater.core.spaces import Box, Spaces
    from headwater.runs.loop import run
    from headwater.runs.stage import Stage
    from headwater.sources.replay import Replay

    random, rows = np.random.default_rng(0), 100_000

    def draw(*shape):
        return jnp.asarray(random.standard_normal(shape), jnp.float32)

    observations, ends = draw(rows + 1, 17), jnp.zeros(rows, bool)
    data = Transitions(
        observations[:-1], jnp.tanh(draw(rows, 6)), draw(rows), observations[1:], ends, ends
    )
    spaces = Spaces(Box((-np.inf,) * 17, (np.inf,) * 17), Box((-1.0,) * 6, (1.0,) * 6))
    method, source = hw.build_method(options.method, {}), Replay(data, 256)

    def seconds(updates: int) -> float:
        stage = Stage("offline", method, source, updates)
        before = time.perf_counter()
        run([stage], spaces, seeds=seeds, layout=layout, logs=1, progress=False)
        return time.perf_counter() - before

    compilation = seconds(1)
    few = 8
    short = seconds(few)
    while (taken := seconds(2 * few) - short) < options.seconds / 20:
        few *= 2
        short = seconds(few)
    many = max(4 * few, int(options.seconds * few / taken))
    elapsed = seconds(many) - seconds(few)
    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get("peak_bytes_in_use")
    if memory is None:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "seed_updates_per_second": round(seeds * (many - few) / elapsed, 1),
                "compile_seconds": round(compilation, 2),
                "peak_bytes": memory,
                "device": device.device_kind,
                "jax": jax.__version__,
            }
        )
    )


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| layout | seeds | updates/s of all seeds | of each | first update, s | memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    kinds = list(dict.fromkeys((row["layout"], row["seeds"]) for row in rows))
    for layout, seeds in kinds:
        mine = [row for row in rows if (row["layout"], row["seeds"]) == (layout, seeds)]
        rate = statistics.median(row["seed_updates_per_second"] for row in mine)
        begun = statistics.median(row["compile_seconds"] for row in mine)
        memory = max(row["peak_bytes"] for row in mine) / 1e6
        lines.append(
            f"| {layout} | {seeds} | {rate:,.0f} | {rate / seeds:,.1f} | {begun:.1f} "
            f"| {memory:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
