"""What is said of logged experience before a method learns from it, and when it does not begin."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from headwater.analysis.describe import serious_notes
from headwater.core.errors import DataError, printable
from headwater.core.method import (
    AbstractLabeller,
    AbstractMethod,
    AbstractSeveralRewards,
    AbstractStages,
)
from headwater.datasets.dataset import Dataset
from headwater.datasets.formats.directory_format import is_column_directory, open_columns
from headwater.datasets.metadata import require_actions, require_rewards
from headwater.datasets.reading import dropped_sentence, reading_rows


def check_rewards(method: AbstractMethod, data: Dataset | None, metadata: dict[str, Any]) -> None:
    """Raises `DataError` if `method` learns from rewards and there is none left to learn from.

    **Arguments:** `data`: `None` if it stays on disk; `metadata`: of the data.
    """
    if not method.info.rewards:
        return
    name = type(method).__name__
    require_rewards(metadata, name)
    if data is not None and not data.rewards.any() and metadata.get("dropped_reward_rows"):
        raise DataError(
            f"all rewards that are not zero were lost, so that {name} has nothing to learn from: "
            f"{dropped_sentence(metadata)}; if the process ended there, say so with "
            "episodes_end='terminal' (`--episodes-end terminal`, or the same in a file "
            "NAME.columns.toml beside the data), else give next_observations"
        )


def check_actions(
    method: AbstractMethod, confidence: np.ndarray | None, metadata: dict[str, Any]
) -> None:
    """Raises `DataError` if rows have no action, unless `method` infers or never reads them.

    **Arguments:** `confidence`: in the actions, if the data says; `metadata`: of the data.
    """
    if not isinstance(method, AbstractLabeller | AbstractStages):
        require_actions(confidence, metadata, type(method).__name__)


def tell_of(data: Dataset | None, path: str | None, method: AbstractMethod) -> None:
    """Says on standard error how the data was read, and what makes it doubtful.

    **Arguments:** `data`: `None` if it stays on disk; `path`: where it lies; `method`: what learns
    from it.
    """
    metadata: dict[str, Any] = {}
    if data is not None:
        metadata = data.metadata
    elif path is not None and is_column_directory(Path(path)):
        metadata = open_columns(path).metadata
    further = method.auxiliary_rewards if isinstance(method, AbstractSeveralRewards) else ()
    rows = [row for row in reading_rows(metadata, further) if row[0] != "dropped"]
    if data is None:
        dropped = dropped_sentence(metadata)
        rows += [] if dropped is None else [("note", dropped)]
    else:
        rows += [("note", note) for note in serious_notes(data)]
    for label, text in rows:
        print(f"data, {label}: {printable(text)}", file=sys.stderr)
