"""What the metadata of datasets say: counts, what is missing, how a file was read."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from headwater.core.errors import DataError

COUNTS = ("dropped_rows", "dropped_reward_rows", "dropped_reward_sum", "unmarked_ends")
"""What metadata counts: where datasets are put together, the sum is meant."""
ACTION_NAMES = "action_names"
"""What metadata calls the words that discrete actions are written as, in their numbers' order."""


def add_counts(metadata: dict[str, Any], more: dict[str, Any]) -> None:
    """Adds to what `metadata` counts; whatever else a file may hold there is replaced."""
    for name in COUNTS:
        number = more.get(name, 0)
        if _is_number(number) and number:
            before = metadata.get(name, 0)
            metadata[name] = number + (before if _is_number(before) else 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def lacks_rewards(metadata: dict[str, Any]) -> bool:
    """Whether the data that has this metadata came without rewards: its rewards are all zero."""
    missing = metadata.get("missing")
    return isinstance(missing, list) and "rewards" in missing


def require_rewards(metadata: dict[str, Any], who: str) -> None:
    """Raises `DataError` if the data has no rewards, which `who` learns from or is judged by."""
    if lacks_rewards(metadata):
        raise DataError(
            f"{metadata.get('source') or metadata.get('name') or 'the data'}: {who} needs rewards, "
            "and no column is recognised as them: say which one it is with columns={'rewards': "
            "'NAME'}, or as a command with `--column rewards=NAME`; without "
            "rewards only imitation learns, such as BC"
        )


def require_actions(confidence: np.ndarray | None, metadata: dict[str, Any], who: str) -> None:
    """Raises `DataError` if rows have no action, which `who` learns from or is judged by.

    **Arguments:** `confidence`: the column of a dataset, or of columns on the disk.
    """
    missing = 0 if confidence is None else int(np.count_nonzero(confidence == 0))
    if missing:
        assert confidence is not None
        raise DataError(
            f"{metadata.get('source') or metadata.get('name') or 'the data'}: {missing:,} of "
            f"{len(confidence):,} rows have no action, and {who} needs them: infer them (train "
            "InverseDynamics on this log, then `headwater data label`, in Python hw.label), or "
            "leave these rows out with missing_actions='drop' (`--missing-actions drop`) when the "
            "file is read"
        )


def summed_counts(datasets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the metadata of several datasets count, together."""
    total: dict[str, Any] = {}
    for metadata in datasets:
        add_counts(total, metadata)
    return total


def remark(metadata: dict[str, Any], sentence: str) -> None:
    """Notes in `metadata` how something was read."""
    reading = metadata.get("reading")
    if not isinstance(reading, dict) or not isinstance(reading.get("notes"), list):
        reading = {"columns": {}, "unused": [], "looks": {}, "ignored": {}, "notes": []}
    metadata["reading"] = {**reading, "notes": [*reading["notes"], sentence]}


def remark_of_format(metadata: dict[str, Any] | None, *sentences: str) -> dict[str, Any]:
    """What a format stores of a file, with sentences that say how it read it.

    **Arguments:** `metadata`: as stored so far, of which `reading` is a list of such sentences.
    """
    before = (metadata or {}).get("reading")
    before = before if isinstance(before, list) else []
    return {**(metadata or {}), "reading": [*before, *sentences]}
