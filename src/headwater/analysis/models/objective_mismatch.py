"""Where a model of a process has to be right: near what a good policy does."""

import numpy as np
from jaxtyping import Float

from headwater.analysis.registry import analysis
from headwater.core.errors import DataError, SpecificationError

_BLOCK = 4_096
"""Rows that are compared with the good ones at a time."""


@analysis(paper="lambert2020objective")
def nearness_weights(
    rows: Float[np.ndarray, "row entry"],
    good: Float[np.ndarray, "good good_entry"],
    temperature: float = 0.2,
) -> Float[np.ndarray, " row"]:
    r"""How much each row of a log should count for a model that a good policy will use.

    $w \propto e^{-d/\tau}$ with the Euclidean distance $d$ to the nearest good row, in units of the
    log's standard deviations, divided by the root of the number of entries; the mean is one. For
    `WeightedReplay`.

    **Arguments:** `rows`: observations and actions of the log, side by side; `good`: those of a few
    good episodes; `temperature`: τ; the paper names none.

    Raises `DataError` if the two have different entries or there are no rows, and
    `SpecificationError` for a temperature that is not above zero.
    """
    if not temperature > 0.0:
        raise SpecificationError(f"temperature = {temperature:g}: it must be more than 0")
    if rows.shape[1] != good.shape[1]:
        raise DataError(
            f"rows have {rows.shape[1]} entries and good rows {good.shape[1]}: both need the "
            "observation and the action, side by side"
        )
    if not len(rows) or not len(good):
        raise DataError("there are no rows to compare: give both the log and good episodes")
    spread = np.std(rows, axis=0, dtype=np.float64)
    # What never changes in the log tells nothing apart.
    scale = np.where(spread > 0.0, 1.0 / np.where(spread > 0.0, spread, 1.0), 0.0)
    near, others = rows * scale, good * scale
    parts = []
    for first in range(0, len(near), _BLOCK):
        block = near[first : first + _BLOCK]
        squared = ((block[:, None] - others[None]) ** 2).mean(axis=-1)
        parts.append(np.sqrt(squared.min(axis=1)))
    distance = np.concatenate(parts)
    weights = np.exp(-(distance - distance.min()) / temperature)
    return weights / weights.mean()
