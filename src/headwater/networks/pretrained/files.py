"""Reading and writing the files of models: none is left half by a run that is killed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headwater.core import json_text
from headwater.core.errors import DataError


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `DataError` if it holds anything else."""
    try:
        found = json_text.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: it cannot be read as JSON ({error})") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: it must hold one JSON object")
    return found


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """Writes one JSON object into a file."""
    text = json.dumps(fields, indent=2) + "\n"
    replace_file(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Never leaves half a file under the final name."""
    temporary = path.with_name(path.name + ".partial")
    write(temporary)
    os.replace(temporary, path)
