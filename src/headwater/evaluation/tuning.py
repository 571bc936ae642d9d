"""The one tuner: settings are chosen on instances that are not among those judged.

What is judged on the instances that it was chosen on looks better than it is, and the more so the
more settings were tried.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float

from headwater.core.errors import SpecificationError

Candidate = TypeVar("Candidate")

_HELD_OUT = 100_000
"""Added to the seed of an experiment: experiments with seeds below it share no instance with it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Choice(Generic[Candidate]):
    """What was chosen, and why.

    **Arguments:** `index`, `value`: of the candidate; `scores`: of all candidates on the instances
    held out; none where there was but one candidate.
    """

    index: int
    value: Candidate
    scores: Float[np.ndarray, "candidate instance"]


def tune(
    candidates: Sequence[Candidate],
    score: Callable[[Sequence[Candidate], int], Any],
    *,
    seed: int,
    largest: bool = False,
) -> Choice[Candidate]:
    """The candidate (a setting or a method) with the best mean score on instances held out.

    **Arguments:** `score`: what the candidates get, `[candidate, instance]`, on instances made from
    the seed that it is given, as the judged ones are made from `seed`; `largest`: whether a large
    score is good.

    Raises `SpecificationError` as `choose` does, or if `seed` is so large that instances might not
    be held out.
    """
    if not 0 <= seed < _HELD_OUT:
        raise SpecificationError(f"seed = {seed} must be one of 0 … {_HELD_OUT - 1:,} to be tuned")
    if not len(candidates):
        raise SpecificationError("there is no candidate to choose")
    if len(candidates) == 1:
        return Choice(0, candidates[0], np.zeros((1, 0)))
    scores = np.asarray(score(candidates, held_out_seed(seed)), np.float64)
    if scores.shape[:1] != (len(candidates),):
        raise SpecificationError(
            f"scores have shape {list(scores.shape)}, but {len(candidates)} candidates need "
            "[candidate, instance]"
        )
    index = choose(scores, largest=largest)
    return Choice(index, candidates[index], scores)


def held_out_seed(seed: int) -> int:
    """The seed of the instances that an experiment with this seed is tuned on."""
    return seed + _HELD_OUT


def choose(scores: Any, *, largest: bool = False) -> int:
    """The candidate with the best mean score; the first of several, and none that is not finite.

    **Arguments:** `scores`: `[candidate, instance]`; `largest`: whether a large score is good.

    For programs that compute all candidates on all instances at once: give it the rows of the
    instances held out.

    Raises `SpecificationError` if there is no instance, or no candidate has finite scores.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or not scores.size:
        raise SpecificationError(
            f"scores have shape {list(scores.shape)}, but [candidate, instance] is needed"
        )
    means = scores.mean(axis=1) if largest else -scores.mean(axis=1)
    means = np.where(np.isfinite(means), means, -np.inf)
    if np.all(means == -np.inf):
        raise SpecificationError("no candidate has finite scores on the instances held out")
    return int(np.argmax(means))
