"""What an executable claim is: a statement, an experiment, and criteria on intervals."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import SpecificationError, nearest
from headwater.core.papers import citation
from headwater.evaluation.statistics import Interval, interval

Verdict = Literal["holds", "fails", "undecided"]

SCALES = ("smoke", "small", "paper")
"""`smoke`: seconds, part of the tests; `small`: minutes on two cores; `paper`: the paper's own."""


@dataclasses.dataclass(frozen=True)
class Criterion:
    """One number that the claim needs to be large or small enough.

    **Arguments:** `what`: the number, in words; `value`: with its interval, or exact (an interval
    whose ends are the point); `at_least`, `at_most`: where it has to be, one of the two.
    """

    what: str
    value: Interval
    at_least: float | int | None = None
    at_most: float | int | None = None

    def __post_init__(self):
        if (self.at_least is None) == (self.at_most is None):
            raise SpecificationError(
                f"criterion '{self.what}' needs either at_least or at_most, and not both"
            )

    @property
    def verdict(self) -> Verdict:
        """`holds` or `fails` if the whole interval says so, else `undecided`."""
        low, high = self.value.low, self.value.high
        if low is None or high is None or not np.isfinite(self.value.point):
            return "undecided"
        if self.at_least is not None:
            return _side(low >= self.at_least, high < self.at_least)
        assert self.at_most is not None
        return _side(high <= self.at_most, low > self.at_most)

    def __str__(self) -> str:
        return f"{self.what}: {self.found}, must be {self.bound}: {self.verdict}"

    @property
    def found(self) -> str:
        """The number with its interval, which an exact one does not need, as text."""
        value = self.value
        exact = value.low == value.point == value.high
        return str(value).partition(" [")[0] if exact else str(value)

    @property
    def bound(self) -> str:
        """Where the number has to be, as text."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What an experiment found.

    **Arguments:** `criteria`: all have to hold; `numbers`: what else is worth keeping, as JSON can
    hold it; `curves`: for the figure, by label, `x` `[position]` and `y` `[seed, position]`;
    `across`, `up`: what the figure's axes are; `logarithmic`: of the axes, `"x"`, `"y"`, `"xy"`.
    """

    criteria: tuple[Criterion, ...]
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    across: str = ""
    up: str = ""
    logarithmic: str = ""

    @property
    def verdict(self) -> Verdict:
        """`fails` if any criterion fails, `holds` if all hold, else `undecided`."""
        found = {criterion.verdict for criterion in self.criteria}
        if "fails" in found:
            return "fails"
        return "holds" if found == {"holds"} else "undecided"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of a paper, or a consequence of it that can fail, as a program.

    **Arguments:** `name`: for the command line, such as `mvp-replans-rarely`; `statement`: one or
    two sentences, with the numbers that are tested; `methods`: names in the catalogue, none
    where it is about an analysis; `paper`:
    its key in `papers.bib`, or a citation in words for a claim of your own; `where`: in the paper
    (a theorem, a table, the abstract), or that it is a consequence; `scales`: arguments of
    `experiment` by scale (`SCALES`), at least `smoke` and `small`; `experiment`: `(seed,
    **arguments)` to a `Finding`; another `seed` must give other instances and other randomness;
    `learned`: what is known where the claim fails, or where its criterion differs from the paper's
    numbers.
    """

    name: str
    statement: str
    methods: tuple[str, ...]
    paper: str
    where: str
    scales: Mapping[str, Mapping[str, Any]]
    experiment: Callable[..., Finding]
    learned: str = ""

    @property
    def source(self) -> str:
        """The short citation of the paper, and where in it."""
        return f"{citation(self.paper)}: {self.where}"

    def find(self, scale: str, *, seed: int = 0) -> Finding:
        """Runs the experiment. Raises `SpecificationError` for a scale that it does not have."""
        if scale not in self.scales:
            raise SpecificationError(f"{self.name}: " + nearest(scale, self.scales, "scale"))
        return self.experiment(seed=seed, **self.scales[scale])


def with_numbers(method: Any, **values: Any) -> Any:
    """`method` with settings replaced by arrays, so that `jax.vmap` can sweep them."""
    for name, value in values.items():
        place = functools.partial(_field, name=name)
        value = jnp.asarray(value, jnp.float32)
        # What is left open is `None`.
        method = eqx.tree_at(place, method, value, is_leaf=lambda x: x is None)
    return method


def exactly(value: Any) -> Interval:
    """A number that is known exactly, or that counts over all that there is."""
    return Interval(float(value), float(value), float(value), 1.0, 1)


def mean_of(scores: Any) -> Interval:
    """The mean over seeds (or instances) with its bootstrap interval, widened for few seeds."""
    return interval(scores, "mean", expand=True)


def ratio_of_means(numerators: Any, denominators: Any, *, seed: int = 0) -> Interval:
    """The ratio of two means over the same seeds, which are resampled together."""
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if above.shape != below.shape or above.ndim != 1 or len(above) == 0:
        raise SpecificationError(
            f"a ratio needs one number per seed on both sides, not {above.shape} and {below.shape}"
        )
    if not below.mean() > 0.0:
        raise SpecificationError(
            f"a ratio of means needs a positive denominator, and this one is {below.mean():g}"
        )
    point = above.mean() / below.mean()
    if len(above) < 3:
        return Interval(float(point), None, None, 0.95, len(above))
    rows = np.random.default_rng(seed).integers(0, len(above), (4000, len(above)))
    under = below[rows].mean(1)
    drawn = above[rows].mean(1) / np.where(under > 0.0, under, 1.0)
    # Where nothing is left to divide by, the ratio may be anything.
    low = np.quantile(np.where(under > 0.0, drawn, 0.0), 0.025, method="lower")
    high = np.quantile(np.where(under > 0.0, drawn, np.inf), 0.975, method="higher")
    return Interval(float(point), float(low), float(high), 0.95, len(above))


def _side(right: bool, wrong: bool) -> Verdict:
    if right:
        return "holds"
    return "fails" if wrong else "undecided"


def _field(method: Any, name: str) -> Any:
    return getattr(method, name)
