"""Claims that the tests run: one of each verdict, one that raises and one that ends its process."""

import os
import signal

import numpy as np

from headwater.evidence.claim import Claim, Criterion, Finding, exactly, mean_of

SCALES = {"smoke": {"size": 4}, "small": {"size": 8}}


def _walk(seed: int, size: int, at_least: float = -100.0) -> Finding:
    walk = np.random.default_rng(seed).normal(size=(size, 200)).cumsum(1)
    steps = np.arange(1, 201)
    return Finding(
        (
            Criterion("mean of the ends", mean_of(walk[:, -1]), at_least=at_least),
            Criterion("walks", exactly(size), at_most=64.0),
        ),
        {"last": walk[:, -1].astype(np.float32), "never": np.inf, "note": "text"},
        {"walks": (steps, walk), "nought": (steps, np.zeros_like(walk))},
        across="step",
        up="height | sum",
        logarithmic="x",
    )


def _unsure(seed: int, size: int) -> Finding:
    return Finding((Criterion("two ends", mean_of([float(seed), float(size)]), at_least=1.0),))


def _raises(seed: int, size: int) -> Finding:
    raise ValueError(f"no such\nsize as {size}")


def _dies(seed: int, size: int) -> Finding:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _claim(name: str, experiment, scales=SCALES, learned="") -> Claim:
    statement, paper = f"{name} <is> claimed.", "Nobody and Noone 2020, arXiv 0000.00000"
    return Claim(name, statement, ("IQL",), paper, "Theorem 0", scales, experiment, learned)


CLAIMS = (
    _claim("zz-dies", _dies),
    _claim("zz-fails", lambda seed, size: _walk(seed, size, 200.0), learned="Walks stay low."),
    _claim("zz-holds", _walk),
    _claim("zz-raises", _raises),
    _claim("zz-unsure", _unsure, {**SCALES, "paper": {"size": 100}}),
)
BY_NAME = {claim.name: claim for claim in CLAIMS}
