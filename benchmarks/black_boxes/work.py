"""The black boxes that searches are timed with: the same for every library. NumPy alone."""

import time

import numpy as np

_STEEPNESS = np.array(
    [
        [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
        [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
        [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
        [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
    ]
)
_TOPS = 1e-4 * np.array(
    [
        [1312.0, 1696.0, 5569.0, 124.0, 8283.0, 5886.0],
        [2329.0, 4135.0, 8307.0, 3736.0, 1004.0, 9991.0],
        [2348.0, 1451.0, 3522.0, 2883.0, 3047.0, 6650.0],
        [4047.0, 8828.0, 8732.0, 5743.0, 1091.0, 381.0],
    ]
)


def branin(point):
    """Of two components, turned so that more is better."""
    x, y = point
    bent = y - 5.1 / (4.0 * np.pi**2) * x**2 + 5.0 / np.pi * x - 6.0
    return -(bent**2 + 10.0 * (1.0 - 1.0 / (8.0 * np.pi)) * np.cos(x) + 10.0)


def hartmann(point):
    """Of six components."""
    apart = _STEEPNESS * (np.asarray(point)[None, :] - _TOPS) ** 2
    return float(np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-apart.sum(axis=1)))


BOXES = {
    "branin": (branin, [(-5.0, 10.0), (0.0, 15.0)], -0.39788735, 30),
    "hartmann": (hartmann, [(0.0, 1.0)] * 6, 3.3223680, 40),
}
"""Function, bounds of each component, maximum, and evaluations."""
FIRST = 5
"""Points at random before the first proposal, where a library lets one choose."""


def searched(begin, seeds: range) -> dict[str, dict[str, list[float]]]:
    """Seconds of processor time that a library takes to propose and to take note, and the regret
    of its best evaluation, of each search; the first search compiles what there is to compile.

    **Arguments:** `begin`: from a seed and bounds to `ask()` and `tell(value)` of a search.
    """
    found = {}
    for name, (function, bounds, highest, evaluations) in BOXES.items():
        seconds, regrets = [], []
        for seed in seeds:
            begun, best, spent = time.process_time(), -np.inf, 0.0
            ask, tell = begin(seed, bounds)
            for _ in range(evaluations):
                point = ask()
                spent += time.process_time() - begun
                value = float(function(point))
                begun, best = time.process_time(), max(best, value)
                tell(value)
            seconds.append(spent + time.process_time() - begun)
            regrets.append(highest - best)
        found[name] = {"seconds": seconds, "regret": regrets}
    return found
