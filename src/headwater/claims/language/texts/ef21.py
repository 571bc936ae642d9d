"""How much larger the steps of compressed gradient descent may be, on quadratics."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from headwater.evidence.claim import Claim, Criterion, Finding, exactly, mean_of
from headwater.ops.error_feedback import Mean, safe_step, told
from headwater.ops.linear_algebra import random_orthogonal, solve, symmetric_eigen

_NUMBERS, _MESSAGE, _TARGET = 10, 1, 1e-6

Spread = Literal["uniform", "one steep", "Pareto"]


def _smoothness(spread: Spread, workers: int, key):
    """Of each worker's loss; steep ones are as many times steeper as there are workers."""
    if spread == "uniform":
        return jnp.ones(workers)
    if spread == "one steep":
        return jnp.ones(workers).at[0].set(workers)
    return jax.random.pareto(key, 1.1, (workers,))


def _instance(spread: Spread, workers: int, updates: int, key):
    """Rounds until the squared gradient has fallen to a millionth, and how far the paths differ.

    **Returns:** rounds with the older step, of EF21 with the newer one, and of EF21-W with it; the
    largest distance between the paths of the last two over the distance from the optimum at first.
    """
    keys = jax.random.split(key, 5)
    smoothness = _smoothness(spread, workers, keys[0])
    turns = jax.lax.map(
        lambda key: random_orthogonal(key, (_NUMBERS, _NUMBERS), scale=1.0),
        jax.random.split(keys[1], workers),
    )
    # The steepest direction of each worker's loss is as steep as its smoothness constant.
    curvature = jax.random.uniform(keys[2], (workers, _NUMBERS), minval=0.1).at[:, 0].set(1.0)
    curvature = curvature * smoothness[:, None]
    matrices = jnp.einsum("wij,wj,wkj->wik", turns, curvature, turns)
    centres = jax.random.normal(keys[3], (workers, _NUMBERS))
    whole = jnp.mean(matrices, axis=0)
    most = symmetric_eigen(whole)[0][-1]
    optimum = solve(whole, jnp.mean(jnp.einsum("wij,wj->wi", matrices, centres), axis=0))
    first = optimum + jax.random.normal(keys[4], (_NUMBERS,))

    def path(mean: Mean, weights):
        step = safe_step(smoothness, most, _MESSAGE / _NUMBERS, mean)

        def one(carry, _):
            x, known = carry
            gradients = jnp.einsum("wij,wj->wi", matrices, x[None] - centres)
            known, direction = told(known, gradients, weights, _MESSAGE)
            moved = x - step * direction
            return (moved, known), (jnp.sum(jnp.mean(gradients, axis=0) ** 2), x)

        start = (first, jnp.zeros((workers, _NUMBERS)))
        _, (squares, places) = jax.lax.scan(one, start, None, length=updates)
        reached = squares <= _TARGET * squares[0]
        return jnp.where(jnp.any(reached), jnp.argmax(reached), updates), places

    plain, steep = jnp.full(workers, 1.0 / workers), smoothness / jnp.sum(smoothness)
    older, _ = path("quadratic", plain)
    newer, one = path("arithmetic", plain)
    weighted, other = path("arithmetic", steep)
    apart = jnp.max(jnp.abs(one - other)) / jnp.linalg.norm(first - optimum)
    return jnp.stack([older, newer, weighted]).astype(jnp.float64), apart


def _experiment(seed: int, workers: int, updates: int, instances: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    rounds, apart = {}, {}
    # Differences of 1e-8 are below what 32 bits tell apart.
    with jax.enable_x64(True):
        for spread in ("uniform", "one steep", "Pareto"):
            each = jax.jit(
                lambda spread=spread: jax.lax.map(
                    lambda key: _instance(spread, workers, updates, key), keys
                )
            )
            rounds[spread], apart[spread] = (np.asarray(x) for x in each())
    same, steep = rounds["uniform"], rounds["one steep"]
    criteria = (
        Criterion(
            "rounds that the two steps differ by, smoothness uniform",
            exactly(np.abs(same[:, 0] - same[:, 1]).max()),
            at_most=0,
        ),
        Criterion(
            "rounds of the older step over the newer, one worker steep",
            mean_of(steep[:, 0] / steep[:, 1]),
            at_least=5.0,
        ),
        Criterion(
            "distance of the paths of EF21 and EF21-W, of that from the optimum",
            exactly(max(x.max() for x in apart.values())),
            at_most=1e-8,
        ),
    )
    names = ("EF21, older step", "EF21, newer step", "EF21-W")
    numbers = {
        "rounds, fewest and most": {
            spread: {n: [float(x.min()), float(x.max())] for n, x in zip(names, found.T)}
            for spread, found in rounds.items()
        },
        "numbers sent in a round, of all": f"{workers * _MESSAGE} of {workers * _NUMBERS}",
    }
    return Finding(criteria, numbers)


CLAIMS = (
    Claim(
        name="error-feedback-may-take-steps-by-the-arithmetic-mean",
        statement=(
            "Where one worker of two hundred has a loss two hundred times as steep, EF21 needs at "
            "least five times fewer rounds with the step of the newer analysis than with the "
            "older one; where all are alike the steps are the same; and EF21-W, whose messages "
            "are weighted, goes along the same path as EF21."
        ),
        methods=("EF21",),
        paper="richtarik2024error",
        where="the abstract: from the quadratic to the arithmetic mean; that the paths are the "
        "same is a consequence for compressors that respect multiples",
        scales={
            "smoke": {"workers": 20, "updates": 200, "instances": 3},
            "small": {"workers": 200, "updates": 4_000, "instances": 5},
        },
        experiment=_experiment,
    ),
)
