"""Which segments of a log to compare, and a simulated judge who compares them."""

import numpy as np

from headwater.core.errors import SpecificationError
from headwater.datasets.dataset import Dataset
from headwater.datasets.metadata import require_rewards
from headwater.datasets.segments.answers import Answer, SegmentAnswers, possible_begins


def random_pairs(
    dataset: Dataset, pairs: int, length: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The rows in which the segments of `pairs` pairs begin, drawn uniformly, int64 `[pair]` each.

    The same `seed` gives the same pairs, of which a smaller number are the first ones. Segments of
    one pair differ. Raises `SpecificationError` for no pairs, or if there is only one segment, and
    `DataError` if no episode is so long.
    """
    if pairs < 1:
        raise SpecificationError(f"pairs = {pairs}: at least one is needed")
    begins = possible_begins(dataset, length)
    if begins.size < 2:
        raise SpecificationError(
            f"the log has only one segment of {length:,} steps: compare shorter ones"
        )
    draw = np.random.default_rng(seed).random((pairs, 2))
    first = (draw[:, 0] * begins.size).astype(np.int64)
    second = (draw[:, 1] * (begins.size - 1)).astype(np.int64)
    # One place is taken by the first, and those after it move up.
    second = second + (second >= first)
    return begins[first], begins[second]


def judge_segments(
    dataset: Dataset,
    pairs: int,
    length: int,
    *,
    beyond: int = 0,
    errors: float = 0.0,
    equal_within: float = 0.0,
    seed: int = 0,
) -> SegmentAnswers:
    """What a judge who knows the logged rewards says of random pairs of segments.

    It prefers the segment with the larger sum of rewards, and says the contrary by mistake.

    **Arguments:** `length`: steps of a segment; `beyond`: steps of the episode after the segment
    whose rewards count too; `errors`: share of its preferences that are mistaken; `equal_within`:
    sums that differ by no more are called equal; `seed`: of pairs and mistakes.

    Raises `DataError` if the log has no rewards, `SpecificationError` for numbers out of range.
    """
    require_rewards(dataset.metadata, "a judge of segments by their rewards")
    if not 0.0 <= errors <= 1.0:
        raise SpecificationError(f"errors = {errors} is not in [0, 1]: it is a share of answers")
    if beyond < 0 or not equal_within >= 0.0:
        raise SpecificationError("beyond and equal_within are at least 0")
    first, second = random_pairs(dataset, pairs, length, seed=seed)
    sums = np.concatenate([[0.0], np.cumsum(dataset.rewards, dtype=np.float64)])
    ends = dataset.episode_starts[1:][dataset.episode_of_row]

    def worth(begins: np.ndarray) -> np.ndarray:
        return sums[np.minimum(begins + length + beyond, ends[begins])] - sums[begins]

    margin = worth(first) - worth(second)
    mistaken = np.random.default_rng([seed, 1]).random(pairs) < errors
    answers: list[Answer] = []
    for difference, wrong in zip(margin, mistaken):
        if abs(difference) <= equal_within:
            answers.append("equal")
        else:
            answers.append("first" if (difference > 0) != wrong else "second")
    return SegmentAnswers(first, second, length, tuple(answers))
