"""The scaling law of mixtures of experts: fitting it, and the sparsity that it calls the best."""

import itertools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from headwater.analysis.registry import analysis
from headwater.core.errors import DataError

_PAPER = "abnar2025parameters"
_HUBER = 1e-3
"""Differences of log-losses beyond this count linearly and not squared (Hoffmann et al., 2022)."""


class SparsityLaw(NamedTuple):
    r"""$L = e + a N^{-\alpha} + b D^{-\beta} + c (1-S)^{-\lambda} + d (1-S)^{-\delta} N^{-\gamma}$.

    $N$: parameters of all experts together, $D$: tokens, $S$: share of experts that do not work on
    a token.

    **Arguments:** `e`, `a`, `b`, `c`, `d`: of which none is negative; `alpha` (α), `beta` (β),
    `lamb` (λ; negative if sparsity alone helps), `delta` (δ), `gamma` (γ): exponents.
    """

    e: float
    a: float
    b: float
    c: float
    d: float
    alpha: float
    beta: float
    lamb: float
    delta: float
    gamma: float

    def loss(self, parameters: Any, tokens: Any, sparsity: Any) -> Float[np.ndarray, "*run"]:
        """The loss that the law predicts, in nats."""
        dense = 1.0 - np.asarray(sparsity, np.float64)
        size, seen = (np.asarray(x, np.float64) for x in (parameters, tokens))
        return np.asarray(
            self.e
            + self.a * size**-self.alpha
            + self.b * seen**-self.beta
            + self.c * dense**-self.lamb
            + self.d * dense**-self.delta * size**-self.gamma
        )


class FinishedRuns(NamedTuple):
    """Sizes of finished runs, and where their losses ended.

    **Arguments:** `parameters`: of all experts together; `tokens`: that were learned from;
    `sparsity`: share of experts that do not work on a token, in [0, 1); `losses`: in nats.
    """

    parameters: Float[np.ndarray, " run"]
    tokens: Float[np.ndarray, " run"]
    sparsity: Float[np.ndarray, " run"]
    losses: Float[np.ndarray, " run"]


@analysis(paper=_PAPER)
def fit_sparsity_law(runs: FinishedRuns) -> SparsityLaw:
    """The law that fits finished runs best: by Huber's loss of log-losses, from several starts.

    Ten numbers are fitted: runs have to differ in all three respects, and which of the terms a loss
    is due to is only as certain as runs are many and exact.

    Raises `DataError` for fewer than ten runs, or numbers that cannot be.
    """
    size, seen, sparse, loss = (np.asarray(x, np.float64) for x in runs)
    if not size.shape == seen.shape == sparse.shape == loss.shape or loss.ndim != 1:
        raise DataError(
            "parameters, tokens, sparsity and losses need one number for each run, not "
            f"{size.shape}, {seen.shape}, {sparse.shape} and {loss.shape}"
        )
    if loss.size < 10:
        raise DataError(f"{loss.size} runs do not tell ten numbers apart: give at least 10")
    positive = np.concatenate([size, seen, loss])
    if not (np.isfinite(positive).all() and (positive > 0.0).all()):
        raise DataError("parameters, tokens and losses must be positive numbers")
    if not ((sparse >= 0.0) & (sparse < 1.0)).all():
        raise DataError("sparsity is a share of experts: it must be at least 0 and less than 1")
    # Counted from their middle, so that coefficients and exponents are not confused.
    logs = np.stack([np.log(size), np.log(seen), np.log1p(-sparse)])
    middle = logs.mean(axis=1)
    logs = logs - middle[:, None]
    found = min(
        (_descend(start, logs, np.log(loss)) for start in _starts(np.log(loss))),
        key=lambda pair: pair[1],
    )[0]
    coefficients = found[:5].copy()
    alpha, beta, lamb, delta, gamma = found[5:]
    coefficients[1] += alpha * middle[0]
    coefficients[2] += beta * middle[1]
    coefficients[3] += lamb * middle[2]
    coefficients[4] += delta * middle[2] + gamma * middle[0]
    return SparsityLaw(*(float(x) for x in (*np.exp(coefficients), *found[5:])))


@analysis(paper=_PAPER)
def best_sparsity(
    law: SparsityLaw,
    parameters: float,
    compute: Float[np.ndarray, " budget"],
    candidates: Float[np.ndarray, " sparsity"],
) -> Float[np.ndarray, " budget"]:
    """The sparsity with the least loss at a number of parameters, for each budget of operations.

    A token costs six operations for each parameter that works on it, of which there are
    `parameters` times (1 - sparsity): sparser models learn from more tokens.

    **Arguments:** `parameters`: of all experts together; `compute`: operations of training;
    `candidates`: sparsities to choose from.
    """
    sparse = np.asarray(candidates, np.float64)[None]
    budget = np.asarray(compute, np.float64)[:, None]
    tokens = budget / (6.0 * parameters * (1.0 - sparse))
    losses = law.loss(parameters, tokens, np.broadcast_to(sparse, tokens.shape))
    return np.asarray(candidates, np.float64)[np.argmin(losses, axis=1)]


def _starts(log_losses: Float[np.ndarray, " run"]):
    """Logs of coefficients, then exponents, to begin from."""
    least = log_losses.min()
    shares = np.log([0.6, 0.1, 0.1, 0.1, 0.1])
    for alpha, beta, lamb, delta in itertools.product((0.2, 0.6), (0.2, 0.6), (-0.3, 0.3), (0.2,)):
        yield np.concatenate([least + shares, [alpha, beta, lamb, delta, alpha]])


def _predicted(x: Float[np.ndarray, " number"], logs: Float[np.ndarray, "3 run"]):
    """The log-loss of every run, and its slopes `[run, number]`."""
    size, seen, dense = logs
    zero = np.zeros_like(size)
    slopes = np.stack(
        [
            np.stack([zero, -size, zero, zero, zero]),
            np.stack([zero, zero, -seen, zero, zero]),
            np.stack([zero, zero, zero, -dense, zero]),
            np.stack([zero, zero, zero, zero, -dense]),
            np.stack([zero, zero, zero, zero, -size]),
        ]
    )
    terms = x[:5, None] + np.tensordot(x[5:], slopes, axes=1)
    largest = terms.max(axis=0)
    log_loss = largest + np.log(np.exp(terms - largest).sum(axis=0))
    share = np.exp(terms - log_loss)
    return log_loss, np.concatenate([share, (share[None] * slopes).sum(axis=1)]).T


def _descend(x: Float[np.ndarray, " number"], logs, log_losses):
    """The numbers that least squares with Huber's loss comes to, and that loss."""
    from scipy import optimize

    # Exponents and coefficients that run away are of terms that are not there.
    found = optimize.least_squares(
        lambda x: _predicted(x, logs)[0] - log_losses,
        x,
        lambda x: _predicted(x, logs)[1],  # pyright: ignore[reportArgumentType]
        bounds=(-30.0, 30.0),
        loss="huber",
        f_scale=_HUBER,
        x_scale="jac",
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
        max_nfev=1_000,
    )
    return found.x, float(found.cost)
