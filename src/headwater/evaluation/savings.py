"""Sample savings: how many fewer new samples it takes to reach a target with logged experience.

**What is estimated.** Each run's *samples to target* is the number of environment steps at the
first evaluation, after the first update, from which on two evaluations in a row reach the target:
it has to be reached and held. A lucky evaluation does not count, and neither does what was there
before anything was learned: that level is reported beside the benefit. The benefit is the median
over runs without the log divided by the median over runs with it: how many times fewer new samples
a typical run needs.

**Why medians.** Runs that never reach the target are censored at their budget: all that is known is
that they need more. A mean then has to invent a number for them; a mean restricted to the budget
understates the slow side, and if both sides are censored its ratio is neither a lower nor an upper
bound. The median (the Kaplan–Meier one, since all runs of a side share a budget) is known exactly
as long as fewer than half of the runs are censored, however slow the slowest run is.

**What is not known is carried as a range.** A censored run lies between its budget and infinity.
Each range is pushed through the medians, the ratio, and every resample of the bootstrap over seeds;
the interval goes from the lower quantile of the lower ends to the upper quantile of the upper ends.
So an end that the runs do not determine is reported as open (`None`), a ratio of which only one end
is known as "at least" or "at most", and nothing is imputed. With five seeds a side, one censored
run is enough to open one end: a resample holds it three times with probability 5.8 %.

**How good the interval is.** In simulations with log-normal times and no censoring, a nominal 95 %
holds the true ratio about 97 % of the time with five seeds a side, 93 % with four and 90 % with
three; the percentile interval of a ratio of geometric means reaches 89 % at five.

**Resolution.** Times are those of evaluations, so both sides are rounded up to their spacing. Equal
rounding pulls the ratio towards 1. A coarser spacing of the side without the log would exaggerate
the savings, and is therefore taken back to the earliest time that the other side's spacing could
have shown.
"""

import dataclasses
import math
from typing import Any, Literal

import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.evaluation.statistics import FEWEST_SEEDS, Interval, interval, short

Known = Literal["exactly", "at least", "at most"]


@dataclasses.dataclass(frozen=True, eq=False)
class SamplesToTarget:
    """How many environment steps each run of one kind took to reach the target and hold it.

    **Arguments:** `earliest`, `latest`: `[seed]`, what the run's number is known to lie between:
    equal where the target was seen to be held; the budget and infinity where it never was.
    `budget`: steps per run.
    """

    earliest: np.ndarray
    latest: np.ndarray
    budget: float

    @property
    def seeds(self) -> int:
        """Number of runs."""
        return self.latest.size

    @property
    def reached(self) -> np.ndarray:
        """Which runs reached the target and held it, `[seed]`."""
        return np.isfinite(self.latest)

    @property
    def median(self) -> float | None:
        """Median samples to target, `None` if too few runs held it."""
        value = float(np.median(self.latest))
        return value if math.isfinite(value) else None


@dataclasses.dataclass(frozen=True, eq=False)
class Savings:
    """The benefit of upstream experience.

    **Arguments:** `target`: the return to reach; `with_log`, `without_log`: samples to it;
    `ratio`: median samples without the log over median samples with it, `None` if the runs do not
    bound it; `known`: whether they determine the ratio exactly or bound it; `low`, `high`:
    interval over seeds, an end being `None` if it is open; `level`: nominal coverage; `before`:
    return of the runs with the log before their first update, if they were evaluated then.
    """

    target: float
    with_log: SamplesToTarget
    without_log: SamplesToTarget
    ratio: float | None
    known: Known
    low: float | None
    high: float | None
    level: float
    before: Interval | None = None

    @property
    def sentence(self) -> str:
        """The result for people."""
        target = short(self.target)
        ours, theirs = self.with_log, self.without_log
        if not ours.reached.any() and not theirs.reached.any():
            return (
                f"no run holds {target} within {ours.budget:,.0f} steps with the log or "
                f"{theirs.budget:,.0f} without: nothing can be said of savings at this target"
                f"{self._start()}"
            )
        when = f"after {_time(ours)} steps instead of {_time(theirs)}"
        failures = _failures(ours, "run", " with the log") + _failures(theirs, "scratch run", "")
        return f"reaches and holds {target} {when}: {self._verdict()}{failures}{self._start()}"

    def __str__(self) -> str:
        return self.sentence

    @property
    def interval(self) -> Interval:
        """The ratio with its interval; an end that the runs leave open is 0 or infinite.

        The ratio is not a number, and the interval open, where the runs do not determine it.
        """
        seeds = min(self.with_log.seeds, self.without_log.seeds)
        if self.ratio is None or seeds < FEWEST_SEEDS:
            return Interval(math.nan, None, None, self.level, seeds)
        low = 0.0 if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return Interval(self.ratio, low, high, self.level, seeds)

    def plain(self) -> dict[str, Any]:
        """Everything as values that JSON can hold; a run that never arrived has `None` samples."""
        return {
            "target": self.target,
            "ratio": self.ratio,
            "known": self.known if self.ratio is not None else None,
            "low": self.low,
            "high": self.high,
            "level": self.level,
            "before": self.before and dataclasses.asdict(self.before),
            "with_log": _plain(self.with_log),
            "without_log": _plain(self.without_log),
            "sentence": self.sentence,
        }

    def _verdict(self) -> str:
        if self.ratio is None:
            return "the runs do not determine the ratio"
        if (self.ratio >= 1.0 and self.known == "at most") or (
            self.ratio < 1.0 and self.known == "at least"
        ):
            return "how many times fewer the runs do not tell"
        if self.ratio >= 1.0:
            fewer = f"{_bound(self.known)}{_times(self.ratio)}× fewer"
            return f"{fewer} ({self._interval(False)})"
        more = "at least " if self.known == "at most" else ""
        return f"{more}{_times(1.0 / self.ratio)}× more ({self._interval(True)})"

    def _start(self) -> str:
        if self.before is None:
            return ""
        return f"; before its first update it was at {short(self.before.point)}"

    def _interval(self, inverted: bool) -> str:
        level = f"{100 * self.level:g}% interval"
        seeds = min(self.with_log.seeds, self.without_log.seeds)
        if seeds < FEWEST_SEEDS:
            return f"no interval: {seeds} seed{'s' if seeds > 1 else ''}"
        low, high = self.low, self.high
        if inverted:
            low, high = (None if end is None else 1.0 / end for end in (high, low))
        if low is None and high is None:
            return f"{level} open at both ends"
        if low is None or high is None:
            return f"{level} {_times(low or high or 0.0)}× or {'less' if low is None else 'more'}"
        return f"{level} {_times(low)}–{_times(high)}×"


def samples_to_target(steps, returns, target: float, *, hold: int = 2) -> SamplesToTarget:
    """Environment steps at the first evaluation from which on each run holds `target`.

    **Arguments:** `steps`: `[evaluation]`, new environment steps taken before each evaluation,
    rising; one at 0 is of what was there before the first update, and does not count; `returns`:
    `[seed, evaluation]`, mean over the evaluation's episodes; `target`: the return to reach;
    `hold`: how many evaluations in a row have to reach it.

    Raises `DataError` if the shapes do not fit or a return is not finite.
    """
    steps, returns = _curve(steps, returns)
    if hold < 1:
        raise SpecificationError(f"hold = {hold}: a target is held for at least one evaluation")
    budget = float(steps[-1])
    returns, steps = returns[:, steps > 0.0], steps[steps > 0.0]
    if steps.size < hold:
        missing = np.full(returns.shape[0], budget)
        return SamplesToTarget(missing, np.full_like(missing, math.inf), budget)
    reaches = np.lib.stride_tricks.sliding_window_view(returns >= target, hold, axis=-1)
    holds = reaches.all(axis=-1)
    reached = holds.any(axis=-1)
    time = steps[np.argmax(holds, axis=-1)]
    earliest = np.where(reached, time, budget)
    return SamplesToTarget(earliest, np.where(reached, time, math.inf), budget)


def sample_savings(
    with_log: tuple[Any, Any],
    without_log: tuple[Any, Any],
    target: float,
    *,
    hold: int = 2,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Savings:
    """How many times fewer new samples reach `target` with logged experience than without.

    See the top of this file for what is estimated and how runs that never arrive are treated.

    **Arguments:** `with_log`, `without_log`: learning curves, each `(steps [evaluation], returns
    [seed, evaluation])`, steps counting new samples only; `target`: the return to reach; `hold`:
    for how many evaluations in a row; `level`: nominal coverage; `resamples`, `seed`: of the
    bootstrap.

    Raises `DataError` if the curves' shapes do not fit or a return is not finite.
    """
    if not 0.0 < level < 1.0:
        raise SpecificationError(f"level = {level}: a nominal coverage lies between 0 and 1")
    ours = samples_to_target(*with_log, target, hold=hold)
    theirs = _at_spacing_of(
        np.asarray(with_log[0], np.float64),
        np.asarray(without_log[0], np.float64),
        samples_to_target(*without_log, target, hold=hold),
    )
    everyone = np.arange(ours.seeds)[None], np.arange(theirs.seeds)[None]
    lowest, highest = (float(end[0]) for end in _ratios(ours, theirs, *everyone))
    ratio, known = _summarise(lowest, highest)
    low = high = None
    if min(ours.seeds, theirs.seeds) >= FEWEST_SEEDS:
        rng = np.random.default_rng(seed)
        drawn = (rng.integers(0, arm.seeds, (resamples, arm.seeds)) for arm in (ours, theirs))
        lows, highs = _ratios(ours, theirs, *drawn)
        tail = 0.5 * (1.0 - level)
        # No interpolation: between a finite and an infinite ratio there is nothing.
        low = _closed(float(np.quantile(lows, tail, method="lower")))
        high = _closed(float(np.quantile(highs, 1.0 - tail, method="higher")))
    steps, returns = _curve(*with_log)
    before = interval(returns[:, 0], level=level) if steps[0] == 0.0 else None
    return Savings(float(target), ours, theirs, ratio, known, low, high, float(level), before)


def _ratios(ours: SamplesToTarget, theirs: SamplesToTarget, our_rows, their_rows):
    """The range of the ratio of medians, `[resample]`, for runs drawn as `[resample, seed]`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.median(theirs.earliest[their_rows], 1) / np.median(ours.latest[our_rows], 1)
        high = np.median(theirs.latest[their_rows], 1) / np.median(ours.earliest[our_rows], 1)
    return low, high


def _summarise(lowest: float, highest: float) -> tuple[float | None, Known]:
    if lowest == highest:
        return lowest, "exactly"
    if lowest > 0.0:
        return lowest, "at least"
    return (highest, "at most") if math.isfinite(highest) else (None, "exactly")


def _closed(end: float) -> float | None:
    return end if 0.0 < end < math.inf else None


def _at_spacing_of(finer, coarser, times: SamplesToTarget) -> SamplesToTarget:
    """`times` on the grid `coarser`, taken back to what the spacing of `finer` could have shown."""
    if finer.size < 2 or coarser.size < 2:
        return times
    seen = times.reached
    reached_at = np.where(seen, times.latest, 0.0)
    gap = np.diff(coarser, prepend=0.0)[np.searchsorted(coarser, reached_at)]
    nearby = np.clip(np.searchsorted(finer, reached_at), 1, finer.size - 1)
    early = np.where(seen, np.maximum(gap - np.diff(finer)[nearby - 1], 0.0), 0.0)
    return dataclasses.replace(times, earliest=times.earliest - early, latest=times.latest - early)


def _curve(steps, returns) -> tuple[np.ndarray, np.ndarray]:
    steps, returns = np.asarray(steps, np.float64), np.asarray(returns, np.float64)
    if steps.ndim != 1 or returns.ndim != 2 or returns.shape[1] != steps.size or not returns.size:
        raise DataError(
            f"a learning curve has steps of shape {steps.shape} and returns of shape "
            f"{returns.shape}: one step per evaluation, and one row of returns per seed, are needed"
        )
    if np.any(np.diff(steps) <= 0.0) or steps[0] < 0.0 or not np.isfinite(steps).all():
        raise DataError("the steps of a learning curve must rise from 0 or more")
    if not np.isfinite(returns).all():
        seed, evaluation = (int(i) for i in np.argwhere(~np.isfinite(returns))[0])
        raise DataError(
            f"the return of seed {seed} at evaluation {evaluation} is {returns[seed, evaluation]}: "
            "savings need finite returns"
        )
    return steps, returns


def _times(value: float) -> str:
    if value >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.95 else f"{value:.2g}"


def _bound(known: str) -> str:
    return "" if known == "exactly" else f"{known} "


def _time(arm: SamplesToTarget) -> str:
    return f"more than {arm.budget:,.0f}" if arm.median is None else f"{arm.median:,.0f}"


def _failures(arm: SamplesToTarget, one: str, suffix: str) -> str:
    missing = int(np.count_nonzero(~arm.reached))
    if not missing:
        return ""
    if arm.seeds == 1:
        return f", the {one}{suffix} never did"
    if missing == arm.seeds:
        return f", none of {arm.seeds} {one}s{suffix} ever did"
    return f", {missing} of {arm.seeds} {one}s{suffix} never did"


def _plain(arm: SamplesToTarget) -> dict[str, Any]:
    return {
        "samples": [float(t) if math.isfinite(t) else None for t in arm.latest],
        "reached": int(np.count_nonzero(arm.reached)),
        "seeds": arm.seeds,
        "budget": arm.budget,
        "median": arm.median,
    }
