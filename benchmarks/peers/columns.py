"""The data that every library is given, and which version of it is a checkout."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class Data:
    """Columns of an archive as Headwater writes them, actions in the user's units.

    **Arguments:** `observations`, `next_observations`: float32 `[row, component]`; `actions`:
    float32 `[row, component]`; `rewards`: float32 `[row]`; `terminals`, `truncations`: bool
    `[row]`.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminals: np.ndarray
    truncations: np.ndarray


def read(path: Path) -> Data:
    """The columns of an `.npz` file. Exits with a sentence if one is missing."""
    names = [field.name for field in dataclasses.fields(Data)]
    with np.load(path, allow_pickle=False) as archive:
        missing = [name for name in names if name not in archive.files]
        if missing:
            sys.exit(f"{path} has no column {missing[0]}: write it with headwater.datasets.write")
        columns = {name: archive[name] for name in names}
    kinds = {"terminals": bool, "truncations": bool}
    return Data(**{n: np.asarray(c, kinds.get(n, np.float32)) for n, c in columns.items()})


def commit(directory: Path) -> str:
    """The commit of the checkout, or "unknown"."""
    command = ["git", "-C", str(directory), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
