"""AutoLRS: a constant learning rate for each stage of training, chosen while training goes on."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from headwater.core.errors import RunError, SpecificationError, nearest
from headwater.core.method import AbstractMethod, Agent
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.core.source import AbstractSource
from headwater.parts.black_boxes import surrogate
from headwater.parts.black_boxes.gaussian_process import Kernel
from headwater.parts.black_boxes.surrogate import AbstractSurrogate
from headwater.runs.learn import advance, shapes_of_metrics

_ROWS = 20
"""Points of the curve that a loss is forecast from, each a mean over equally many updates."""
_GRID, _BY_MEAN = 33, 3
"""Rates that can be tried, evenly spaced in logarithms, and how many of those tried, the last, are
the ones of which most is expected."""
_DECAYS, _ROUNDS, _LEFT_OUT = 100, 3, 0.1
"""Decays that are tried; rounds of fitting, and the share of the points that each leaves out."""


class Tried(NamedTuple):
    """A learning rate that was tried, and the loss that was forecast for the end of the stage."""

    learning_rate: float
    forecast: float


class RateStage(NamedTuple):
    """One stage: the rate it was trained with, its updates, its loss at the end, and the search."""

    learning_rate: float
    updates: int
    loss: float
    tried: tuple[Tried, ...]


class Trained(NamedTuple):
    """What `train_with_chosen_rates` leaves: the method's state, the source's, and the stages."""

    state: Any
    source_state: Any
    stages: tuple[RateStage, ...]


def train_with_chosen_rates(
    method: AbstractMethod,
    problem: Any,
    source: AbstractSource,
    *,
    loss: str,
    updates: int = 1_000,
    longest: int = 8_000,
    stages: int = 5,
    exploration: float = 0.1,
    candidates: int = 10,
    low: float = 1e-5,
    high: float = 1.0,
    field: str = "learning_rate",
    state: Any = None,
    key: Array,
) -> Trained:
    """Trains in stages, each with the learning rate that promises most for its end.

    Before a stage each of `candidates` rates is tried from where training stands, for a share of
    the stage, and so is a rate of zero on the same rows; an exponential is fitted to how far the
    losses of the two are apart and says what the loss would be at the end, and a Gaussian process
    says which rate to try next: first where least is known, the last three where most is expected.
    Then everything is put back (optimiser and source too), and the stage is trained with the best.
    The search costs `(candidates + 1) * exploration` of the training again.

    Too short an exploration favours small rates, whose loss falls at once.

    **Arguments:** `loss`: the metric to minimise, as the method logs it; `updates`: of the first
    stage; each has twice as many as the one before, up to `longest`; `exploration`: share of a
    stage that a rate is tried for; `low`, `high`: rates lie between; `field`: of the method, which
    holds the rate; `state`: begin from it and not from `method.init`.

    Reference: Jin et al. (2021), AutoLRS, ICLR. Differences: the exponential is fitted to the
    difference from a rate of zero and not to the loss itself, of which it often promised less than
    nothing; points that fit worst are left out in place of a spline that smooths; the training loss
    is used throughout; and the last rates are chosen by the mean.

    Raises `SpecificationError` if the method has no such field or metric, or numbers do not fit;
    `RunError` if the loss is not finite where a stage begins, or no rate keeps it finite.
    """
    numbers = [f.name for f in dataclasses.fields(method) if isinstance(f.default, float)]
    if field not in numbers:
        raise SpecificationError(f"{type(method).__name__}: {nearest(field, numbers, 'number')}")
    if not 0.0 < low < high:
        raise SpecificationError(
            f"rates lie between {low:g} and {high:g}: 0 < low < high is needed"
        )
    short = round(updates * exploration)
    if short < _ROWS or candidates < 1 or stages < 1:
        raise SpecificationError(
            f"updates = {updates} and exploration = {exploration:g} leave {short} updates to try a "
            f"rate, of {candidates} in {stages} stages: at least {_ROWS} updates, one rate and one "
            "stage are needed"
        )
    init_key, source_key, prepare_key, key = jax.random.split(key, 4)
    if state is None:
        state = method.init(problem, key=init_key)
    source_state = source.init(key=source_key)
    source_state = source.prepare(source_state, Agent(method, state), key=prepare_key)
    carry = state, source_state
    shapes = shapes_of_metrics(method, source, None, *carry, 1)
    if loss not in shapes:
        raise SpecificationError(f"{type(method).__name__}: {nearest(loss, shapes, 'metric')}")
    found: list[RateStage] = []
    done = 0
    for stage in range(stages):
        length = min(updates * 2**stage, max(longest, updates))
        step = max(1, round(length * exploration) // _ROWS)
        stage_key = jax.random.fold_in(key, stage)
        tried: list[Tried] = []
        search = _Search(candidates, low, high, stage_key)
        given = (loss, stage_key, done, step)
        still = np.asarray(_trained(method, source, carry, field, 0.0, *given)[1])
        if not np.isfinite(still).all():
            raise RunError(
                f"the loss is not finite where stage {stage + 1} begins: try rates below {high:g}"
            )
        for _ in range(candidates):
            rate = search.ask()
            curve = np.asarray(_trained(method, source, carry, field, rate, *given)[1])
            forecast = forecast_loss(curve, still, length / step - 0.5)
            tried.append(Tried(rate, forecast))
            search.tell(rate, forecast, float(still.mean()))
        best = min(tried, key=lambda each: each.forecast)
        if best.forecast == np.inf:
            raise RunError(
                f"the loss was not finite with any of the {candidates} learning rates between "
                f"{low:g} and {high:g}: try lower ones"
            )
        step = max(1, length // _ROWS)
        carry, curve = _trained(
            method, source, carry, field, best.learning_rate, loss, stage_key, done, step
        )
        done += step * _ROWS
        found.append(RateStage(best.learning_rate, step * _ROWS, float(curve[-1]), tuple(tried)))
    state, source_state = carry
    return Trained(state, source_state, tuple(found))


def forecast_loss(curve: np.ndarray, reference: np.ndarray, at: float) -> float:
    """What the loss of a curve would have come to at position `at`.

    The points lie at 0.5, 1.5, …; `reference` is the loss of the same rows at rate zero. a (1 -
    exp(-b t)) is fitted to the difference of the two, in which rows that are hard for both cancel
    and which is zero where the curve begins. It is not extrapolated to a multiple of itself: as
    much again, at most, is expected after the last point. Points that fit worst are left out. What
    is not finite is forecast as infinite.
    """
    gain = np.asarray(curve, np.float64) - np.asarray(reference, np.float64)
    if not np.isfinite(gain).all():
        return float("inf")
    times = np.arange(len(gain)) + 0.5
    kept = np.arange(len(gain))
    low, high = np.log(2.0) / len(gain), 2.0
    decay, height = low, 0.0
    for _ in range(_ROUNDS):
        decay = _best_decay(times[kept], gain[kept], low, high)
        height, _ = _fitted(times[kept], gain[kept], decay)
        error = np.abs(height * _risen(times[kept], decay) - gain[kept])
        dropped = int(_LEFT_OUT * len(kept))
        kept = np.sort(kept[np.argsort(error)[: len(kept) - dropped]])
    return float(np.mean(reference) + height * _risen(at, decay))


def _risen(times: Any, decay: float) -> Any:
    return -np.expm1(-decay * times)


def _best_decay(times: np.ndarray, gain: np.ndarray, low: float, high: float) -> float:
    decays = np.geomspace(low, high, _DECAYS)
    return float(min(decays, key=lambda decay: _fitted(times, gain, decay)[1]))


def _fitted(times: np.ndarray, gain: np.ndarray, decay: float) -> tuple[float, float]:
    """The height for a decay, and the sum of the squared errors that remain."""
    risen = _risen(times, decay)
    height = float(risen @ gain / (risen @ risen))
    return height, float(np.sum((height * risen - gain) ** 2))


class _Belief(AbstractSurrogate):
    """A Gaussian process over rates, and what its deviation adds to its mean."""

    bonus_scale: Any
    kernel: Kernel = "matern52"
    hyperparameters: str = "likelihood"
    length_scale: float = 0.3
    signal_scale: float = 1.0
    noise_scale: float = 0.03
    fit_steps: int = 30


class _Search:
    """Which rate to try next, by a Gaussian process over logarithms of rates."""

    def __init__(self, candidates: int, low: float, high: float, key: Array):
        self._rates = np.geomspace(low, high, _GRID)
        # Of rates, only the order and the distances of their logarithms count.
        self._space = SearchSpace.of_candidates(
            np.linspace(0.0, 1.0, _GRID)[:, None], capacity=candidates
        )
        # First where least is known, then where most is expected.
        self._curious, self._greedy = (
            _Belief(bonus_scale=jnp.float32(scale)) for scale in (1e6, 0.0)
        )
        self._key, self._most = key, candidates
        self._told: list[tuple[float, float]] = []

    def ask(self) -> float:
        told = len(self._told)
        belief = self._greedy if self._most - told <= _BY_MEAN < self._most else self._curious
        # What is not tried yet is no number, and left out.
        places, values = np.zeros(self._most), np.full(self._most, np.nan)
        if told:
            places[:told], values[:told] = zip(*self._told)
        rows = np.float32(places), np.float32(values)
        point = _proposed(belief, self._space, *rows, jax.random.fold_in(self._key, told))
        return float(self._rates[round(float(point[0]) * (_GRID - 1))])

    def tell(self, rate: float, forecast: float, still: float) -> None:
        # What is worse by as much as the loss itself would else be all that the process sees.
        worst = still + abs(still)
        place = np.argmin(np.abs(np.log(self._rates / rate))) / (_GRID - 1)
        self._told.append((float(place), -min(forecast, worst)))


@eqx.filter_jit
def _proposed(belief, space, places, values, key):
    none = jnp.zeros(len(values))
    data = Queries(places[:, None], values, none.astype(jnp.int32), none)
    state = surrogate.learn(belief, surrogate.begin(belief, space), data)
    return surrogate.propose(belief, state, _bound, 1, key=key)


def _bound(settings: _Belief, state, belief, points, *, key):
    mean, deviation = belief.moments(points)
    return mean + settings.bonus_scale * deviation


def _trained(method, source, carry, field, rate, loss, key, first, step):
    """The carry and the losses of the rows after `step` updates for each of the rows."""
    method = eqx.tree_at(lambda m: getattr(m, field), method, jnp.float32(rate))
    return _rows(method, source, carry, loss, key, jnp.uint32(first), jnp.int32(step))


@eqx.filter_jit
def _rows(method, source, carry, loss, key, first, step):
    state, source_state = carry
    zeros = jax.tree.map(
        lambda shape: jnp.zeros(shape.shape, shape.dtype),
        shapes_of_metrics(method, source, None, state, source_state, 1),
    )

    def row(carry, start):
        *carry, sums = advance(method, source, None, (*carry, zeros), key, start, step, 1)
        return tuple(carry), sums[loss] / step

    firsts = first + step.astype(jnp.uint32) * jnp.arange(_ROWS, dtype=jnp.uint32)
    return jax.lax.scan(row, carry, firsts)
