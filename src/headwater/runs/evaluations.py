"""What the rows of `evaluations.jsonl` say together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from headwater.core.errors import RunError


def returns_by_update(
    rows: Sequence[dict[str, Any]], seeds: Sequence[int], where: object
) -> dict[int, tuple[int, list[list[float]]]]:
    """Environment steps and returns `[seed][episode]` of every evaluation that all seeds have.

    Raises `RunError`, naming `where`, unless each seed has as many returns as the others.
    """
    points: dict[int, tuple[int, dict[int, list[float]]]] = {}
    for row in rows:
        point = points.setdefault(row["update"], (row["environment_steps"], {}))
        point[1][row["seed"]] = row["returns"]
    for update, (_, returns) in points.items():
        if not all(returns.values()) or len({len(each) for each in returns.values()}) > 1:
            raise RunError(
                f"{where}: evaluations.jsonl does not have as many returns for each seed "
                f"at update {update}: restore the file"
            )
    return {
        update: (steps, [returns[seed] for seed in seeds])
        for update, (steps, returns) in points.items()
        if all(seed in returns for seed in seeds)
    }


class BestEvaluations(NamedTuple):
    """Of each seed: the first update `[seed]` at which its mean return was highest, and how many
    evaluations `[seed]` it has had `since`."""

    update: np.ndarray
    since: np.ndarray


def best_evaluations(
    rows: Sequence[dict[str, Any]], seeds: Sequence[int], where: object
) -> BestEvaluations:
    """Where each seed did best, as the rows of one stage say. Raises as `returns_by_update`."""
    points = returns_by_update(rows, seeds, where)
    updates = np.asarray(sorted(points))
    means = np.asarray([[np.mean(each) for each in points[update][1]] for update in updates])
    best = np.argmax(means, axis=0)
    return BestEvaluations(updates[best], len(updates) - 1 - best)


def final_returns(
    rows: Sequence[dict[str, Any]], seeds: Sequence[int], where: object, *, best: bool
) -> list[list[float]]:
    """Returns `[seed][episode]` of what a run left: empty if it was never evaluated.

    **Arguments:** `best`: each seed was kept as it was at its best evaluation, not at the last one.
    Raises as `returns_by_update`.
    """
    points = returns_by_update(rows, seeds, where)
    if not points:
        return []
    if not best:
        return points[max(points)][1]
    found = best_evaluations(rows, seeds, where)
    return [points[update][1][seed] for seed, update in enumerate(found.update)]


def learning_curve(rows: Sequence[dict[str, Any]], seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps `[evaluation]` and mean returns `[seed, evaluation]` of one stage of a run.

    The first evaluation counts as one before any step, though steps at random or of the starting
    policy may have been taken: nothing was learned from them.
    """
    points = returns_by_update(rows, range(seeds), "the run").values()
    steps = [float(steps) for steps, _ in points]
    means = np.asarray([np.mean(returns, axis=1) for _, returns in points])
    return np.asarray([0.0, *steps[1:]]), means.T
