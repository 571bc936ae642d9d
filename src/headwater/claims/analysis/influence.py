"""How near Kronecker factors come to the Gauss–Newton matrix, and to training again."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.analysis.influence import Curvature, influence
from headwater.core.method import Agent
from headwater.core.records import Transitions
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.evidence.digits import SPACES, digits
from headwater.methods.control.imitation.bc import BC
from headwater.runs.learn import learn
from headwater.sources.replay import Replay, take

_BATCH = 64


def _trained(width: int, rows: Transitions, updates: int, key) -> Agent:
    method = BC(learning_rate=3e-3, normalise_observations=False, hidden_sizes=(width,))
    learned = learn(method, SPACES, Replay(rows, _BATCH), updates, key=key)
    return Agent(method, learned.state)


def _influences(
    agent: Agent, rows: Transitions, asked: Transitions, kinds: tuple[Curvature, ...]
) -> dict[str, np.ndarray]:
    """`[query, row]` by curvature."""
    return {
        kind: np.asarray(influence(agent, rows, asked, curvature=kind), np.float64)
        for kind in kinds
    }


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """The mean over queries of the correlation along the last axis."""
    x, y = (z - z.mean(-1, keepdims=True) for z in (x, y))
    size = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return float(np.mean((x * y).sum(-1) / np.maximum(size, 1e-30)))


def _accuracy(
    seed: int, *, instances: int, widths: tuple[int, ...], rows: int, queries: int, updates: int
) -> Finding:
    kinds: tuple[Curvature, ...] = ("exact", "layers", "ekfac", "kfac", "none")
    train = eqx.filter_jit(_trained)
    found: dict[str, list[float]] = {kind: [] for kind in kinds[1:]}
    for instance in range(instances):
        per_width = []
        for width in widths:
            number = 1_000 * seed + instance
            data, others = digits(number, rows)
            asked = take(others, slice(0, queries))
            agent = train(width, data, updates, jax.random.key(number))
            scores = _influences(agent, data, asked, kinds)
            per_width.append([_correlation(scores[k], scores["exact"]) for k in kinds[1:]])
        for kind, value in zip(kinds[1:], np.mean(per_width, axis=0)):
            found[kind].append(float(value))
    gain = np.subtract(found["ekfac"], found["none"])
    names = {"ekfac": "EK-FAC", "kfac": "K-FAC", "layers": "exact in layers", "none": "dot product"}
    return Finding(
        (
            Criterion("correlation of EK-FAC, less dot products'", mean_of(gain), at_least=0.25),
            Criterion("correlation of EK-FAC", mean_of(found["ekfac"]), at_least=0.45),
            Criterion("correlation of the exact blocks", mean_of(found["layers"]), at_least=0.85),
        ),
        numbers={names[kind]: mean_of(values) for kind, values in found.items()},
    )


def _retraining(
    seed: int,
    *,
    instances: int,
    width: int,
    rows: int,
    queries: int,
    updates: int,
    retrainings: int,
) -> Finding:
    kinds: tuple[Curvature, ...] = ("ekfac", "none")
    scores: dict[str, list[float]] = {kind: [] for kind in kinds}
    train = eqx.filter_jit(_trained)
    again = eqx.filter_jit(_losses_of_halves)
    for instance in range(instances):
        number = 1_000 * seed + instance
        data, others = digits(number, rows)
        asked = take(others, slice(0, queries))
        random = np.random.default_rng(number)
        halves = np.stack([random.permutation(rows)[: rows // 2] for _ in range(retrainings)])
        key = jax.random.key(number)
        losses = np.asarray(again(width, data, asked, updates, jnp.asarray(halves), key))
        agent = train(width, data, updates, key)
        for kind, score in _influences(agent, data, asked, kinds).items():
            foreseen = score[:, halves].sum(-1)  # [query, retraining]
            scores[kind].append(_correlation(_ranks(foreseen), _ranks(-losses.T)))
    gain = np.subtract(scores["ekfac"], scores["none"])
    return Finding(
        (
            Criterion("score of EK-FAC, less dot products'", mean_of(gain), at_least=0.0),
            Criterion("score of EK-FAC", mean_of(scores["ekfac"]), at_least=0.0),
        ),
        numbers={"EK-FAC": mean_of(scores["ekfac"]), "dot product": mean_of(scores["none"])},
    )


def _losses_of_halves(width: int, data: Transitions, asked: Transitions, updates, halves, key):
    """Of each query after training on each half `[retraining, query]`, from the same start."""

    def one(half) -> Any:
        agent = _trained(width, take(data, half), updates, key)
        method = agent.method
        assert isinstance(method, BC)
        return method.losses(agent.state, asked)

    return jax.lax.map(one, halves, batch_size=10)


def _ranks(x: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(x, axis=-1), axis=-1).astype(np.float64)


CLAIMS = (
    Claim(
        name="ek-fac-is-near-gauss-newton",
        statement="On networks that name digits, influences with EK-FAC correlate with those of "
        "the damped Gauss–Newton matrix at 0.45 at least, and by 0.25 more than inner products "
        "of gradients do; exact within layers they correlate at 0.85 at least.",
        methods=("BC",),
        paper="grosse2023influence",
        where="the abstract, on a small scale: the paper compares on networks of many layers",
        scales={
            "smoke": {"instances": 3, "widths": (6,), "rows": 96, "queries": 8, "updates": 100},
            "small": {
                "instances": 6,
                "widths": (12, 24),
                "rows": 900,
                "queries": 60,
                "updates": 1_500,
            },
        },
        experiment=_accuracy,
    ),
    Claim(
        name="ek-fac-foresees-retraining",
        statement="Summed over the rows of a half of the digits, influences with EK-FAC rank what "
        "training on that half does to the loss of a query better than chance, and better than "
        "inner products of gradients (linear datamodelling score).",
        methods=("BC",),
        paper="grosse2023influence",
        where="a consequence: what influence is an approximation of",
        scales={
            "smoke": {
                "instances": 3,
                "width": 6,
                "rows": 96,
                "queries": 8,
                "updates": 100,
                "retrainings": 10,
            },
            "small": {
                "instances": 6,
                "width": 12,
                "rows": 900,
                "queries": 60,
                "updates": 1_500,
                "retrainings": 60,
            },
        },
        experiment=_retraining,
    ),
)
