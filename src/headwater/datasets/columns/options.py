"""What is said of a file beyond its content: by the user, by a format, or beside the data."""

import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from headwater.core.errors import DataError, nearest
from headwater.core.spaces import Box
from headwater.datasets.actions.confidence import MissingActions
from headwater.datasets.columns.roles import Mapping, Reading
from headwater.datasets.dataset import Dataset
from headwater.datasets.episodes.ends import EndOptions


class Options(NamedTuple):
    """What the user says about a file beyond its content, and what a format says of its columns.

    **Arguments:** `reading`: of the columns, from a format; the others: see `headwater.load`.
    """

    columns: Mapping | None = None
    action_low: Any = None
    action_high: Any = None
    discrete: bool | None = None
    action_count: int | None = None
    horizon: int | None = None
    dones: Literal["terminal", "truncated"] | None = None
    never_terminal: bool = False
    metadata: dict[str, Any] | None = None
    episodes_end: Literal["terminal", "truncated"] | None = None
    episode_per_row: bool = False
    action_labels: list[int] | None = None
    action_bounds: Literal["data"] | None = None
    last_row: Literal["step", "observation"] | None = None
    missing_actions: MissingActions | None = None
    reading: Reading | None = None

    @property
    def end_options(self) -> EndOptions:
        """What is said of where episodes end, and how."""
        return EndOptions(
            self.dones, self.episodes_end, self.episode_per_row, self.never_terminal, self.horizon
        )

    def over(self, stored: dict[str, Any]) -> "Options":
        """These options where they say something, else those that were `stored` with the file.

        Raises `DataError` for a stored option that does not exist or is of another kind.
        """
        defaults = Options()._asdict()
        for name, value in stored.items():
            if name not in defaults:
                raise DataError(nearest(name, defaults, "option"))
            kind, fits = _KINDS[name]
            if value is not None and not fits(value):
                raise DataError(f"the option '{name}' stored with it must be {kind}")
        given = {k: v for k, v in self._asdict().items() if v != defaults[k]}
        if stored.get("metadata") and self.metadata:
            given["metadata"] = {**stored["metadata"], **self.metadata}
        return Options(**{**stored, **given})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _is_labels(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_count, value))


def _is_bound(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, list) and all(map(_is_number, value)))


def _is_mapping(value: Any) -> bool:
    def names(value: Any) -> bool:
        whole = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
        return isinstance(value, str) or bool(whole)

    return isinstance(value, dict) and all(names(v) for v in value.values())


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "columns": ("a table from roles to names of columns, or lists of them", _is_mapping),
    "action_low": ("a number or a list of them", _is_bound),
    "action_high": ("a number or a list of them", _is_bound),
    "discrete": ("true or false", lambda value: isinstance(value, bool)),
    "action_count": ("a whole number", _is_count),
    "horizon": ("a whole number", _is_count),
    "dones": ("'terminal' or 'truncated'", lambda value: value in ("terminal", "truncated")),
    "never_terminal": ("true or false", lambda value: isinstance(value, bool)),
    "metadata": ("a table", lambda value: isinstance(value, dict)),
    "episodes_end": ("'terminal' or 'truncated'", lambda value: value in ("terminal", "truncated")),
    "episode_per_row": ("true or false", lambda value: isinstance(value, bool)),
    "action_labels": ("a list of whole numbers", _is_labels),
    "action_bounds": ("'data'", lambda value: value == "data"),
    "missing_actions": ("'keep' or 'drop'", lambda value: value in ("keep", "drop")),
    "last_row": ("'step' or 'observation'", lambda value: value in ("step", "observation")),
    "reading": ("left to the reader of the format", lambda value: isinstance(value, Reading)),
}
"""What may be stored under each option."""


def lasting(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata without what is of one reading of one file."""
    return {name: value for name, value in metadata.items() if name != "reading"}


def stored_options(dataset: Dataset) -> dict[str, str]:
    """What a reader must know beyond the columns, each as JSON text."""
    action = dataset.spaces.action
    options: dict[str, Any] = {"metadata": lasting(dataset.metadata)}
    if isinstance(action, Box):
        options |= {"action_low": list(action.low), "action_high": list(action.high)}
        options["discrete"] = False
    elif action.labels is not None:
        options["action_labels"] = list(action.labels)
    else:
        options["action_count"] = action.count
    if dataset.spaces.horizon is not None:
        options["horizon"] = dataset.spaces.horizon
    return {name: json.dumps(value) for name, value in options.items()}
