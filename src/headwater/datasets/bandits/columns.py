"""Which column of logged rounds plays which part, by its name or by the user's word."""

import re
from pathlib import Path

import numpy as np

from headwater.core.errors import DataError, nearest
from headwater.datasets.arrays import names_in
from headwater.datasets.columns.roles import ROLES, Mapping

NAMES = {
    "arm": ("arm", "action", "actions", "item_id"),
    "reward": ("reward", "rewards", "click", "clicks"),
    "propensity": (*ROLES["propensities"], "probability", "probabilities"),
    "log_propensity": ROLES["log_propensities"],
    "context": ("context", "contexts", "user_feature"),
    "features": ("features", "action_context"),
}
"""What each column is called: here, in logs of episodes, and in obp's files."""
OF_THE_LOG = ("arms", "n_actions", "low", "high")
"""What an archive may say of the whole log."""


def holds_pulls(path: str | Path, columns: Mapping | None = None) -> bool:
    """Whether a file holds decisions of a bandit rather than steps of episodes, by its columns.

    It has arms, rewards and propensities, and no observations; or the roles in `columns` are those
    of decisions.
    """
    if columns and not {*columns} - {*NAMES, "unused"}:
        return True
    place = Path(path)
    if columns or not place.is_file():
        return False
    names = set(names_in(place))
    episodes = {name for role in ("observations", "terminals", "dones") for name in ROLES[role]}
    plain = {re.sub(r"_\d+$", "", name) for name in names}
    if plain & episodes:
        return False
    return all(any(name in names for name in NAMES[role]) for role in ("arm", "reward")) and any(
        name in names for role in ("propensity", "log_propensity") for name in NAMES[role]
    )


def roles_of(
    arrays: dict[str, np.ndarray], columns: Mapping | None
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The arrays by their roles, and the names of the columns of each."""
    given = {role: names for role, names in (columns or {}).items() if role != "unused"}
    for role in given:
        if role not in NAMES:
            raise DataError(f"{nearest(role, NAMES, 'role of a column')}")
    left_alone = _named((columns or {}).get("unused", []), arrays, "unused")
    used: dict[str, list[str]] = {}
    for role, names in NAMES.items():
        if role in given:
            used[role] = _named(given[role], arrays, role)
        elif role == "log_propensity" and "propensity" in used:
            continue
        else:
            there = [name for name in names if name in arrays and name not in left_alone]
            family = [n for name in names for n in _family(name, arrays) if n not in left_alone]
            if there[:1] or (role == "context" and family):
                used[role] = there[:1] or family
    if "propensity" in given or "log_propensity" not in given:
        if "propensity" in used:
            used.pop("log_propensity", None)
    else:
        used.pop("propensity", None)
    found = {role: _side_by_side(arrays, role, names) for role, names in used.items()}
    for role in ("arm", "reward"):
        if role not in found:
            raise DataError(
                f"there is no '{role}': the columns are {', '.join(map(repr, arrays))}; say which "
                f"one it is with columns={{'{role}': 'NAME'}}, or as a command with "
                f"`--column {role}=NAME`"
                + ("; a cost is no reward: write its negative" if "cost" in arrays else "")
            )
    return found | {name: arrays[name] for name in OF_THE_LOG if name in arrays}, used


def _named(names: str | list[str], arrays: dict[str, np.ndarray], role: str) -> list[str]:
    """The columns that a user names for a role."""
    found = []
    for name in [names] if isinstance(names, str) else names:
        there = _family(name.removesuffix("*").removesuffix("_"), arrays)
        if "*" in name and there:
            found += there
        elif name in arrays:
            found.append(name)
        else:
            raise DataError(f"{role} is to be '{name}': {nearest(name, arrays, 'column')}")
    return found


def _family(name: str, arrays: dict[str, np.ndarray]) -> list[str]:
    """The columns `name_0`, `name_1`, … in the order of their numbers."""
    numbered = [(re.fullmatch(rf"{re.escape(name)}_(\d+)", each), each) for each in arrays]
    return [each for match, each in sorted((int(m[1]), e) for m, e in numbered if m)]


def _side_by_side(arrays: dict[str, np.ndarray], role: str, names: list[str]) -> np.ndarray:
    for name in names:
        if arrays[name].dtype.kind not in "biuf":
            shown = str(np.asarray(arrays[name]).reshape(-1)[0])[:40]
            remedy = {
                "arm": "number the arms from 0 in the file, as its policy will",
                "context": "write a column of 0 and 1 for each word, or leave it out",
            }.get(role, "numbers are needed")
            raise DataError(
                f"column '{name}' ({role}) holds '{shown}', which is no number: {remedy}"
            )
    if role == "context":
        columns = [arrays[name].reshape(len(arrays[name]), -1) for name in names]
        if len({len(column) for column in columns}) > 1:
            raise DataError(f"the columns of the context have unequal lengths: {', '.join(names)}")
        whole = len(names) == 1 and arrays[names[0]].ndim != 1
        return arrays[names[0]] if whole else np.concatenate(columns, axis=1)
    if len(names) > 1:
        raise DataError(f"{role} is one column, not {len(names)}: {', '.join(names)}")
    return arrays[names[0]]
