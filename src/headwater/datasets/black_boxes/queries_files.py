"""Evaluations of black boxes in files."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.datasets.arrays import array_of, read_archive, read_table

_SLACK = 1e-6
"""By how much of a side a point may lie outside of its box: what rounding does."""


def read_queries(path: str | Path, space: SearchSpace) -> Queries:
    """Evaluations of before, as points of the unit cube.

    A table (`.csv`, `.parquet`) has the columns `point_0`, `point_1`, … in the user's units,
    `value`, and perhaps `fidelity` (by default the last); an archive (`.npz`) the arrays `point`
    `[row, component]`, `value` and `fidelity`.

    Raises `DataError`, naming the file and the row, for what is no evaluation in `space`.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in (".csv", ".parquet"):
            arrays = read_table(path)
            names = [f"point_{i}" for i in range(space.size)]
            arrays["point"] = np.stack([array_of(arrays, name, "biuf") for name in names], axis=1)
            beyond = f"point_{space.size}"
            if beyond in arrays:
                raise DataError(
                    f"there is a column '{beyond}', but points have {space.size} components"
                )
        else:
            arrays = read_archive(path)
        point, value = (array_of(arrays, name, "biuf") for name in ("point", "value"))
        last = np.full(len(value), space.fidelities - 1)
        fidelity = array_of(arrays, "fidelity", "biu") if "fidelity" in arrays else last
        value, fidelity = value.astype(np.float64), fidelity.astype(np.int32)
        _check_shapes(point, value, fidelity, space)
        found = Queries(
            jnp.asarray(space.to_unit(point.astype(np.float64)), jnp.float32),
            jnp.asarray(value, jnp.float32),
            jnp.asarray(fidelity),
            jnp.asarray(space.costs, jnp.float32)[np.clip(fidelity, 0, space.fidelities - 1)],
        )
        check_queries(found, space)
    except DataError as error:
        raise DataError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    return dataclasses.replace(found, point=jnp.clip(found.point, 0.0, 1.0))


def write_queries(path: str | Path, data: Queries, space: SearchSpace) -> None:
    """Writes what `read_queries` reads from an archive."""
    with Path(path).open("wb") as file:
        np.savez(
            file,
            point=space.from_unit(np.asarray(data.point, np.float64)),
            value=np.asarray(data.value),
            fidelity=np.asarray(data.fidelity),
        )


def check_queries(data: Queries, space: SearchSpace) -> None:
    """Raises `DataError`, naming the row, for evaluations that cannot be of `space`.

    **Arguments:** `data`: with points of the unit cube.
    """
    point, value, fidelity = (np.asarray(x) for x in (data.point, data.value, data.fidelity))
    _check_shapes(point, value, fidelity, space)
    outside = ~((point >= -_SLACK) & (point <= 1.0 + _SLACK)).all(axis=1)
    levels = space.fidelities
    for name, wrong, reason in (
        ("point", outside, "lies outside of the space"),
        ("value", ~np.isfinite(value), "is not finite: leave such rows out"),
        ("fidelity", (fidelity < 0) | (fidelity >= levels), f"is not one of 0 … {levels - 1}"),
    ):
        found = np.flatnonzero(wrong)
        if len(found):
            more = f" (and {len(found) - 1:,} more rows)" if len(found) > 1 else ""
            said = "" if name == "point" else f" {getattr(data, name)[found[0]]:g}"
            raise DataError(f"row {found[0] + 1}: {name}{said} {reason}{more}")


def _check_shapes(
    point: np.ndarray, value: np.ndarray, fidelity: np.ndarray, space: SearchSpace
) -> None:
    rows = len(value) if value.ndim else 0
    if not rows:
        raise DataError("there is no evaluation")
    if point.shape != (rows, space.size) or fidelity.shape != (rows,) or value.ndim != 1:
        raise DataError(
            f"points have shape {point.shape}, values {value.shape} and fidelities "
            f"{fidelity.shape}: a row of {space.size} components, a value and a fidelity are "
            "needed for each evaluation"
        )
