"""Checkpoints: one safetensors file each, arrays by path and a JSON description in its header."""

import errno
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from headwater.core import json_text
from headwater.core.errors import RunError
from headwater.runs.files import write_atomically

_NAME = re.compile(r"^([0-9]{2})-(.+)-([0-9]{12})\.safetensors$")
_KEPT = 2


class Position(NamedTuple):
    """Where in a run: index of the stage, its name, updates done in it."""

    stage: int
    name: str
    update: int


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of `tree` by path, on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def restore(template: Any, arrays: dict[str, np.ndarray], where: str) -> Any:
    """A tree like `template` holding `arrays`.

    Raises `RunError`, naming the first array that is missing, left over, or of another shape or
    type, which happens when the file belongs to another method or version.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    expected = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    for name in expected:
        if name not in arrays:
            raise RunError(f"{where}: array '{name}' is missing; was it written by another method?")
    for name, array in arrays.items():
        if name not in expected:
            raise RunError(f"{where}: unexpected array '{name}'; was it written by another method?")
        leaf = expected[name]
        if tuple(array.shape) != tuple(leaf.shape) or array.dtype != leaf.dtype:
            raise RunError(
                f"{where}: array '{name}' is {array.dtype}{list(array.shape)} where "
                f"{leaf.dtype}{list(leaf.shape)} is needed; was it trained with other settings?"
            )
    return jax.tree_util.tree_unflatten(structure, [jnp.asarray(arrays[n]) for n in expected])


def save(
    directory: Path,
    position: Position,
    parts: dict[str, dict[str, np.ndarray]],
    kept: int | None = _KEPT,
) -> Path:
    """Writes one checkpoint and removes all but the newest `kept` of its stage, if there are more.

    **Arguments:** `parts`: named groups of arrays by path, as `flatten` returns them; `kept`:
    `None` removes nothing.
    """
    name = f"{position.stage:02d}-{position.name}-{position.update:012d}.safetensors"
    arrays = {
        f"{part}|{path}": np.asarray(array, order="C")
        for part, group in parts.items()
        for path, array in group.items()
    }
    description = {
        "format": "headwater checkpoint 1",
        "position": json.dumps(position._asdict()),
        "parts": json.dumps({part: list(group) for part, group in parts.items()}),
    }
    path = directory / name
    write_atomically(path, lambda temporary: _write(temporary, arrays, description))
    if kept is not None:
        mine = [p for p in find(directory) if p.stage == position.stage]
        for old in mine[:-kept]:
            path_of(directory, old).unlink(missing_ok=True)
    return path


def _write(path: Path, arrays: dict[str, np.ndarray], description: dict[str, str]) -> None:
    try:
        save_file(arrays, path, metadata=description)
    except SafetensorError as error:
        # The library hides the operating system's error in its text.
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


def find(directory: Path) -> list[Position]:
    """Every checkpoint in `directory`, oldest first."""
    found = []
    if directory.is_dir():
        for entry in directory.iterdir():
            if match := _NAME.match(entry.name):
                found.append(Position(int(match[1]), match[2], int(match[3])))
    return sorted(found, key=lambda p: (p.stage, p.update))


def path_of(directory: Path, position: Position) -> Path:
    """The file of the checkpoint at `position`."""
    name = f"{position.stage:02d}-{position.name}-{position.update:012d}.safetensors"
    return directory / name


def is_whole(path: Path) -> bool:
    """Whether a checkpoint can be read, as far as its header and its size tell."""
    try:
        if not path.is_file():
            return False
        with safe_open(path, framework="numpy") as file:
            return "parts" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """The groups of arrays in a checkpoint. Raises `RunError` if it is damaged."""
    try:
        if not path.is_file():
            raise OSError("it is no file")
        with safe_open(path, framework="numpy") as file:
            parts = json_text.parse((file.metadata() or {})["parts"])
            if "method" not in parts:
                raise ValueError("it holds no method")
            return {
                part: {name: file.get_tensor(f"{part}|{name}") for name in names}
                for part, names in parts.items()
            }
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: not a readable checkpoint ({error})") from error
