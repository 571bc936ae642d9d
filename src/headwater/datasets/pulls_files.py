"""Logged rounds of bandits, and what is known of their arms, in files."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.datasets.actions.propensities import SLACK
from headwater.datasets.arrays import array_of, read_archive, read_table

_NAMES = {
    "arm": ("arm", "action", "item_id"),
    "reward": ("reward", "click"),
    "propensity": ("propensity", "pscore", "propensity_score", "probability"),
    "context": ("context", "user_feature"),
    "features": ("features", "action_context"),
}
"""What each column is called, here and in obp's files."""
_MOST_ARMS = 2**31 - 1


def read_pulls(
    path: str | Path, *, reward_range: tuple[float, float] | None = None
) -> tuple[Pulls, Arms]:
    """Logged rounds of a bandit and its arms.

    An archive (`.npz`) holds `arm`, `reward` and `propensity` `[row]`, perhaps `context`
    `[row, context]`, and `features` `[arm, feature]` or `[row, arm, feature]`, and `low`, `high`
    and `arms` if there are others than it shows. A table (`.csv`, `.parquet`) has the columns
    `arm`, `reward`, `propensity` and `context_0`, `context_1`, …; the names that obp gives them
    are read too.

    **Arguments:** `reward_range`: what rewards lie between; by default what the file says, or zero
    and one.

    Raises `DataError`, naming the file, the column and the row, for anything else.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in (".csv", ".parquet"):
            arrays = _with_contexts(read_table(path))
        else:
            arrays = read_archive(path)
        return _pulls(arrays, reward_range)
    except (SpecificationError, DataError) as error:
        raise DataError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def write_pulls(path: str | Path, data: Pulls, problem: Arms) -> None:
    """Writes what `read_pulls` reads."""
    arrays: dict[str, Any] = {
        "arm": data.arm,
        "reward": data.reward,
        "propensity": data.propensity,
        "context": data.context,
        "features": data.features[0] if data.features.shape[0] == 1 else data.features,
        **_sizes(problem),
    }
    with Path(path).open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


def write_arms(path: str | Path, problem: Arms) -> None:
    """Writes what `read_arms` reads."""
    arrays = _sizes(problem) | {
        "context_size": problem.context_size,
        "feature_size": problem.feature_size,
    }
    if problem.features is not None:
        arrays["features"] = problem.features
    with Path(path).open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]


def read_arms(path: str | Path) -> Arms:
    """The problem of a bandit in an archive. Raises `DataError` for what is damaged."""
    arrays = read_archive(Path(path))
    try:
        features = arrays.get("features")
        return Arms(
            int(array_of(arrays, "arms", "iu")),
            int(array_of(arrays, "context_size", "iu")),
            int(array_of(arrays, "feature_size", "iu")),
            None if features is None else jnp.asarray(features, jnp.float32),
            float(array_of(arrays, "low", "f")),
            float(array_of(arrays, "high", "f")),
        )
    except (SpecificationError, DataError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None


def check_pulls(data: Pulls, problem: Arms) -> None:
    """Raises `DataError`, naming column and row, for logged rounds that cannot be of `problem`."""
    arm, reward, propensity = (np.asarray(x) for x in (data.arm, data.reward, data.propensity))
    columns = {"arm": arm, "reward": reward, "propensity": propensity}
    rows = len(arm) if arm.ndim else 0
    if not rows:
        raise DataError("there is no row")
    low, high = problem.low, problem.high
    if problem.context_size != data.context.shape[-1] or len(data.context) != rows:
        raise DataError(
            f"contexts have shape {data.context.shape}: {rows} rows of {problem.context_size} "
            "numbers are needed"
        )
    if data.features.shape[1:] != (problem.arms, problem.feature_size) or len(
        data.features
    ) not in (1, rows):
        raise DataError(
            f"features have shape {data.features.shape}: one row for each of {problem.arms} arms "
            f"is needed, with {problem.feature_size} numbers"
        )
    for name, wrong, reason in (
        ("arm", (arm < 0) | (arm >= problem.arms), f"is not one of 0 … {problem.arms - 1}"),
        ("reward", ~np.isfinite(reward), "is not finite"),
        (
            "reward",
            (reward < low) | (reward > high),
            f"lies outside of the range that is declared, {low:g} … {high:g}: give another range "
            "(reward_range)",
        ),
        (
            "propensity",
            ~(propensity > 0.0),
            "is no probability that an arm is pulled with: it must be more than 0",
        ),
        ("propensity", propensity > 1.0 + SLACK, "is more than 1, which no probability is"),
        ("context", ~np.isfinite(np.asarray(data.context)).all(axis=-1), "is not finite"),
    ):
        found = np.flatnonzero(wrong)
        if len(found):
            at = found[0]
            value = "" if name == "context" else f" {columns[name][at]:g}"
            more = f" (and {len(found) - 1:,} more rows)" if len(found) > 1 else ""
            raise DataError(f"row {at + 1}: {name}{value} {reason}{more}")


def _pulls(
    arrays: dict[str, np.ndarray], reward_range: tuple[float, float] | None
) -> tuple[Pulls, Arms]:
    found = {role: _called(arrays, role) for role in _NAMES}
    for role in ("arm", "reward"):
        if found[role] is None:
            array_of(arrays, role, "biuf")
    if found["propensity"] is None:
        raise DataError(
            "there is no 'propensity', the probability with which each arm was pulled: log it, or "
            "if all arms were equally likely, add a column of one over their number"
        )
    arm, reward, propensity = (
        array_of(arrays, str(found[role]), "biuf") for role in ("arm", "reward", "propensity")
    )
    broken = np.flatnonzero(~((arm == np.round(arm)) & (arm < _MOST_ARMS)))
    if len(broken):
        raise DataError(
            f"row {broken[0] + 1}: arm {arm[broken[0]]} is not a whole number below {_MOST_ARMS:,}"
        )
    shown = max(2, 1 + int(np.max(arm, initial=0)))
    count = int(_number(arrays, "arms" if "arms" in arrays else "n_actions", float(shown)))
    context = found["context"]
    context = np.zeros((len(arm), 0)) if context is None else array_of(arrays, context, "biuf")
    features = found["features"]
    features = np.zeros((count, 0)) if features is None else array_of(arrays, features, "biuf")
    if context.ndim != 2 or features.ndim not in (2, 3):
        raise DataError(
            f"contexts have shape {context.shape} and features {features.shape}: they need "
            "[row, context], and [arm, feature] or [row, arm, feature]"
        )
    for name, column in (("rewards", reward), ("propensities", propensity), ("contexts", context)):
        if len(arm.shape) != 1 or column.shape[:1] != arm.shape or column.ndim > 2:
            raise DataError(
                f"{name} have shape {column.shape}, but arms {arm.shape}: each needs a row for "
                "each pull"
            )
    fixed = features.ndim == 2
    low, high = reward_range or (_number(arrays, "low", 0.0), _number(arrays, "high", 1.0))
    problem = Arms(
        count,
        context.shape[1],
        features.shape[-1],
        jnp.asarray(features, jnp.float32) if fixed and features.shape[-1] else None,
        float(low),
        float(high),
    )
    data = Pulls(
        jnp.asarray(context, jnp.float32),
        jnp.asarray(features[None] if fixed else features, jnp.float32),
        jnp.asarray(arm, jnp.int32),
        jnp.asarray(reward, jnp.float32),
        jnp.asarray(propensity, jnp.float32),
    )
    check_pulls(data, problem)
    return data, problem


def _number(arrays: dict[str, np.ndarray], name: str, default: float) -> float:
    """A number of the whole log, or `default` if it says nothing of it."""
    if name not in arrays:
        return default
    found = array_of(arrays, name, "biuf")
    if found.size != 1 or not np.isfinite(found).all():
        raise DataError(
            f"'{name}' has shape {found.shape}: it must be one finite number for the whole log"
        )
    return float(found.reshape(()))


def _called(arrays: dict[str, np.ndarray], role: str) -> str | None:
    return next((name for name in _NAMES[role] if name in arrays), None)


def _with_contexts(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns, with those of contexts side by side."""
    for prefix in _NAMES["context"]:
        parts = [f"{prefix}_{i}" for i in range(len(columns))]
        there = [name for name in parts if name in columns]
        if there:
            texts = [name for name in there if columns[name].dtype.kind not in "biuf"]
            if texts:
                raise DataError(f"column '{texts[0]}' holds texts, but contexts are numbers")
            return columns | {"context": np.stack([columns[name] for name in there], axis=1)}
    return columns


def _sizes(problem: Arms) -> dict[str, Any]:
    return {"arms": problem.arms, "low": problem.low, "high": problem.high}
