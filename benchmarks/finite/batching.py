"""What a batch of seeds is worth to methods for finite processes, all in one run.

For each method and size of the process: episodes per second of the processor's time, of all seeds,
for one seed alone, for all one after the other (`map`) and side by side (`vmap`), by `run`, and by
`learn` mapped over keys in one compiled loop without a host around it. They take turns.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

METHODS = ("UCBVI", "MVP", "EULER", "OptimisticQLearning", "QLearning", "PosteriorSampling")
SIZES = {"S8 A3 H6": (8, 3, 6), "S20 A5 H20": (20, 5, 20)}


def main() -> None:
    """Measures, prints a line for each case and writes the result."""
    options = _parser().parse_args()
    if sys.platform == "linux":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import jax

    from headwater.core.catalogue import build_method
    from headwater.environments.tabular.finite import random_process
    from headwater.runs.directory import surroundings

    result: dict[str, Any] = {"made_with": surroundings(), "seeds": options.seeds, "cases": []}
    for size, (states, actions, horizon) in SIZES.items():
        key = jax.random.key(0)
        process = random_process(states=states, actions=actions, horizon=horizon, key=key)
        process = dataclasses.replace(process, noisy=True)
        for name in options.methods.split(","):
            ways = _ways(build_method(name), process, options.seeds)
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(options.rounds):
                for way, (seeds, go) in ways.items():
                    rates[way].append(seeds * _rate(go, options.seconds))
            middle = {way: statistics.median(each) for way, each in rates.items()}
            result["cases"].append({"method": name, "size": size, "episodes_per_second": rates})
            print(
                f"{name:20} {size:11}"
                + "".join(f"  {way} {rate:10,.0f}" for way, rate in middle.items())
                + f"  vmap / map {middle['run, vmap'] / middle['run, map']:5.2f}",
                flush=True,
            )
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def _ways(method: Any, process: Any, seeds: int) -> dict[str, tuple[int, Callable[[int], None]]]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from headwater.runs.learn import learn, seed_key
    from headwater.runs.loop import run
    from headwater.runs.stage import Stage
    from headwater.sources.episodes import FreshEpisodes

    source, problem = FreshEpisodes(process), process.problem()
    options: dict[str, Any] = {"logs": 1, "evaluations": 1, "progress": False}

    def hosted(count: int, layout: Any) -> Callable[[int], None]:
        def go(episodes: int) -> None:
            stage = Stage("learn", method, source, episodes)
            run([stage], problem, seeds=count, layout=layout, **options)

        return go

    keys = jax.vmap(lambda index: seed_key(0, index))(jnp.arange(seeds))

    @eqx.filter_jit
    def together(keys, episodes: int):
        one = lambda key: learn(method, problem, source, episodes, key=key).state
        return jax.vmap(one)(keys)

    return {
        "run, one seed": (1, hosted(1, "map")),
        "run, map": (seeds, hosted(seeds, "map")),
        "run, vmap": (seeds, hosted(seeds, "vmap")),
        "learn, vmap": (seeds, lambda n: jax.block_until_ready(together(keys, n)) and None),
    }


def _rate(go: Callable[[int], None], seconds: float) -> float:
    """Episodes of each seed per second that the process had the processor.

    The difference of two lengths leaves out what happens once (tracing, compilation).
    """
    short, long = 100, 400
    go(short)
    base = _seconds(go, short)
    while True:
        go(long)
        took = _seconds(go, long) - base
        if took > seconds:
            return (long - short) / took
        long *= 4


def _seconds(go: Callable[[int], None], episodes: int) -> float:
    began = time.process_time()
    go(episodes)
    return time.process_time() - began


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--out", type=Path, default=None)
    return parser


if __name__ == "__main__":
    main()
