"""A log whose rewards are row numbers, in memory and as a column directory."""

from pathlib import Path

import numpy as np

from headwater.datasets.dataset import Dataset
from headwater.datasets.write import write

LENGTHS = (7, 1, 12, 30, 1, 9)


def numbered_dataset(discrete: bool = False, lengths=LENGTHS) -> Dataset:
    """Episodes of these lengths, in turn terminal and truncated; rewards are row numbers."""
    random = np.random.default_rng(0)
    rows, ends = sum(lengths), np.cumsum(lengths) - 1
    terminals, truncations = np.zeros((2, rows), bool)
    terminals[ends[::2]], truncations[ends[1::2]] = True, True
    actions = random.integers(0, 4, rows) if discrete else random.uniform(-2, 2, (rows, 2))
    bounds = {} if discrete else {"action_low": -2.0, "action_high": 2.0}
    return Dataset.from_arrays(
        random.normal(size=(rows, 3)),
        actions,
        np.arange(rows),
        terminals,
        truncations,
        random.normal(size=(rows, 3)),
        **bounds,
    )


def numbered_directory(tmp_path: Path, **options) -> tuple[Path, Dataset]:
    """The directory, and what was written into it."""
    written = numbered_dataset(**options)
    return write(written, tmp_path / "columns"), written
