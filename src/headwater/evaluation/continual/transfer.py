"""Scores of every task after each: what was forgotten, and what helped other tasks.

Entry `[after, task]` of a matrix is the score in a task once tasks up to `after` were learned; more
is better. Entries above the diagonal are of tasks that were not learned yet.
"""

import dataclasses

import numpy as np

from headwater.core.errors import SpecificationError


@dataclasses.dataclass(frozen=True, eq=False)
class TransferScores:
    """What a sequence of tasks came to, each number for every leading index of the matrix.

    **Arguments:** `average`: mean score over tasks after the last; `backward_transfer`: mean over
    tasks but the last of the score after the last task less that right after the own one (negative:
    forgotten); `forgetting`: mean over them of the best score before the last task less that after
    it; `forward_transfer`: mean over tasks but the first of the score right before it was learned
    less that of the `untrained`, or `None` if these are not known.
    """

    average: np.ndarray
    backward_transfer: np.ndarray
    forgetting: np.ndarray
    forward_transfer: np.ndarray | None = None


def transfer_scores(matrix: np.ndarray, untrained: np.ndarray | None = None) -> TransferScores:
    """The scores of a matrix `[…, after, task]`.

    **Arguments:** `untrained`: `[…, task]`, the score in each task before anything is learned.

    Raises `SpecificationError` unless there are as many tasks as states, two at least, and the
    untrained fit.

    **Reference:** Lopez-Paz, Ranzato (2017), arXiv:1706.08840, for the transfer; Chaudhry,
    Dokania, Ajanthan, Torr (2018), arXiv:1801.10112, for forgetting.
    """
    matrix = np.asarray(matrix, np.float64)
    shape = matrix.shape
    if len(shape) < 2 or shape[-1] != shape[-2] or shape[-1] < 2:
        raise SpecificationError(
            f"a matrix of scores is [after, task], with a row for each of two or more tasks, not "
            f"{list(shape)}"
        )
    if untrained is not None and np.shape(untrained) != (*shape[:-2], shape[-1]):
        raise SpecificationError(
            f"scores of the untrained have the shape {list(np.shape(untrained))}, but there are "
            f"{shape[-1]} tasks: give {[*shape[:-2], shape[-1]]}"
        )
    last, own = matrix[..., -1, :], np.diagonal(matrix, axis1=-2, axis2=-1)
    # Of a task, only what came after it was learned can be forgotten.
    tasks = shape[-1]
    learned = np.tril(np.ones((tasks, tasks), bool))[:-1, :-1]
    best = np.where(learned, matrix[..., :-1, :-1], -np.inf).max(-2)
    forward = None
    if untrained is not None:
        before = np.diagonal(matrix, offset=1, axis1=-2, axis2=-1)
        forward = np.asarray((before - np.asarray(untrained)[..., 1:]).mean(-1))
    return TransferScores(
        average=np.asarray(last.mean(-1)),
        backward_transfer=np.asarray((last - own)[..., :-1].mean(-1)),
        forgetting=np.asarray((best - last[..., :-1]).mean(-1)),
        forward_transfer=forward,
    )
