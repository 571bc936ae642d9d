"""Logged rounds of bandits, and what is known of their arms, in files."""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.datasets.actions.propensities import SLACK
from headwater.datasets.arrays import array_of, is_table, read_archive, read_table
from headwater.datasets.bandits.columns import OF_THE_LOG, roles_of
from headwater.datasets.columns.roles import Mapping

_MOST_ARMS = 2**31 - 1


class PullsFile(NamedTuple):
    """A file with logged rounds, and which of its columns plays which role, if that was said."""

    path: Path
    columns: Mapping | None = None


class ReadPulls(NamedTuple):
    """Logged rounds, their arms, and which columns were used for what and which were not."""

    data: Pulls
    problem: Arms
    used: dict[str, list[str]]
    unused: list[str]


def read_pulls(
    path: str | Path,
    *,
    reward_range: tuple[float, float] | None = None,
    columns: Mapping | None = None,
) -> tuple[Pulls, Arms]:
    """Logged rounds of a bandit and its arms.

    An archive (`.npz`) holds `arm`, `reward` and `propensity` `[row]`, perhaps `context`
    `[row, context]`, and `features` `[arm, feature]` or `[row, arm, feature]`, and `low`, `high`
    and `arms` if there are others than it shows. A table (CSV, TSV, Parquet, Arrow, JSON Lines) has
    the columns `arm`, `reward`, `propensity` and `context_0`, `context_1`, …, or `context` with
    lists. Propensities may also be those of all arms, `[row, arm]`, or logarithms
    (`log_propensity`). The names that obp and logs of episodes have are read too.

    **Arguments:** `reward_range`: what rewards lie between; by default what the file says, or zero
    and one; `columns`: which column is the `arm`, the `reward`, the `propensity` (or the
    `log_propensity`), the `context` (a name, a list of names, or a family such as `x_*`) and the
    `features`, where names are not these; `unused`: columns to be left alone.

    Raises `DataError`, naming the file, the column and the row, for anything else.
    """
    found = read_pulls_file(path, reward_range=reward_range, columns=columns)
    return found.data, found.problem


def read_pulls_file(
    path: str | Path,
    *,
    reward_range: tuple[float, float] | None = None,
    columns: Mapping | None = None,
) -> ReadPulls:
    """As `read_pulls`, with what was read as what."""
    path = Path(path)
    try:
        arrays = read_table(path) if is_table(path) else read_archive(path)
        found, used = roles_of(arrays, columns)
        data, problem = _pulls(found, reward_range)
        taken = {name for names in used.values() for name in names} | {*OF_THE_LOG}
        return ReadPulls(data, problem, used, [name for name in arrays if name not in taken])
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


def _propensities(found: dict[str, np.ndarray], arm: np.ndarray) -> np.ndarray:
    """The probability of each arm that was pulled."""
    if "propensity" not in found and "log_propensity" not in found:
        raise DataError(
            "there is no 'propensity', the probability with which each arm was pulled: log it, or "
            "if all arms were equally likely, add a column of one over their number"
        )
    if "log_propensity" in found:
        logarithm = array_of(found, "log_propensity", "biuf")
        above = np.flatnonzero(~(logarithm <= SLACK))
        if len(above):
            raise DataError(
                f"row {above[0] + 1}: log_propensity {logarithm.reshape(-1)[above[0]]:g} is no "
                "logarithm of a probability: it must not be above 0"
            )
        return np.exp(logarithm.astype(np.float64))
    propensity = array_of(found, "propensity", "biuf")
    if propensity.ndim != 2 or len(propensity) != len(arm) or arm.ndim != 1:
        return propensity
    if propensity.shape[1] == 1:
        return propensity[:, 0]
    outside = np.flatnonzero(~((arm >= 0) & (arm < propensity.shape[1])))
    if len(outside):
        raise DataError(
            f"row {outside[0] + 1}: arm {arm[outside[0]]} is not one of the "
            f"{propensity.shape[1]} that there are propensities of"
        )
    total = propensity.sum(axis=1)
    off = np.flatnonzero(~(np.abs(total - 1.0) <= 1e-3))
    if len(off):
        raise DataError(
            f"row {off[0] + 1}: the propensities of all arms add up to {total[off[0]]:g} instead "
            "of 1"
        )
    return np.take_along_axis(propensity, arm.astype(int)[:, None], axis=1)[:, 0]


def _pulls(
    found: dict[str, np.ndarray], reward_range: tuple[float, float] | None
) -> tuple[Pulls, Arms]:
    arm, reward = (array_of(found, role, "biuf") for role in ("arm", "reward"))
    broken = np.flatnonzero(~((arm == np.round(arm)) & (arm < _MOST_ARMS)))
    if len(broken):
        raise DataError(
            f"row {broken[0] + 1}: arm {arm[broken[0]]} is not a whole number below {_MOST_ARMS:,}"
        )
    propensity = _propensities(found, arm)
    given = found.get("propensity")
    wide = 0 if given is None or given.ndim != 2 else given.shape[1]
    shown = max(2, 1 + int(np.max(arm, initial=0)), wide)
    count = int(_number(found, "arms" if "arms" in found else "n_actions", float(shown)))
    context = found.get("context", np.zeros((len(arm), 0)))
    features = found.get("features", np.zeros((count, 0)))
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
    low, high = reward_range or (_number(found, "low", 0.0), _number(found, "high", 1.0))
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


def _sizes(problem: Arms) -> dict[str, Any]:
    return {"arms": problem.arms, "low": problem.low, "high": problem.high}
