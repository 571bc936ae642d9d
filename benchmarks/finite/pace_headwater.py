"""Episodes per second of Headwater's finite methods; prints one JSON line."""

import dataclasses
import json
import sys
import time

import jax

from headwater.core.catalogue import build_method
from headwater.environments.tabular.finite import random_process
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.episodes import FreshEpisodes

name, *numbers = sys.argv[1:]
states, actions, horizon, seconds, seeds = (int(float(given)) for given in numbers)
process = random_process(states=states, actions=actions, horizon=horizon, key=jax.random.key(0))
process = dataclasses.replace(process, noisy=True)
method = build_method(name, {"bonus_scale": 0.01} if name != "PosteriorSampling" else {})


def timed(episodes: int) -> float:
    """Seconds of a run of that many episodes for each seed."""
    start = time.perf_counter()
    stage = Stage("learn", method, FreshEpisodes(process), episodes)
    run([stage], process.problem(), seeds=seeds, logs=1, progress=False)
    return time.perf_counter() - start


# The difference of two lengths leaves out what happens once (tracing, compilation).
short = 200
timed(short)
base, longer = timed(short), 2_000
while True:
    took = timed(longer) - base
    if took > 0.6 * seconds:
        break
    longer *= 4
print(json.dumps({"episodes_per_second": seeds * (longer - short) / took}))
