"""LeRobot's datasets (versions 2 and 3): Parquet files of frames, and what describes them."""

from pathlib import Path
from typing import Any

from headwater.core import json_text
from headwater.core.errors import DataError
from headwater.datasets.columns.options import Options
from headwater.datasets.columns.roles import Mapping
from headwater.datasets.format import AbstractFormat
from headwater.datasets.formats.table_format import open_table
from headwater.datasets.several import files_of_directory, open_several

_SIGN = "meta/info.json"
_SEEN = ("image", "video")
_STATES = ("observation.state", "observation.environment_state")


def open_lerobot(place: Path, mapping: Mapping | None, rows: int | None):
    """What is stored beside the columns, and the columns in chunks of about `rows`.

    Observations are the vectors of the state; what cameras saw is left out, and said. Raises
    `DataError` for a description that is damaged or does not fit the files.
    """
    info = _info(place)
    features: dict[str, Any] = info["features"]
    seen = [name for name, feature in features.items() if _type(feature) in _SEEN]
    vectors = [name for name in _STATES if name in features and name not in seen]
    if not vectors and "observations" not in (mapping or {}):
        raise DataError(
            f"its observations are {', '.join(seen) or 'not described'}, and no vector is among "
            f"them: name the features that are to be observed with columns={{'observations': "
            f"['NAME', …]}}; the features are {', '.join(features)}"
        )
    chosen: Mapping = {"observations": vectors, **(mapping or {})}
    files = files_of_directory(place / "data")
    if not files:
        raise DataError("there are no files in data/: download the dataset again, with its data")

    def one(file: Path):
        stored, chunks = open_table(file, "parquet", chosen, rows)
        return Options().over(stored), chunks

    options, chunks = one(files[0]) if len(files) == 1 else open_several(files, one)
    earlier = (options.metadata or {}).get("reading", [])
    reading = options.reading
    assert reading is not None
    notes = [*earlier, f"a dataset of LeRobot ({info.get('codebase_version', 'of no version')})"]
    if seen:
        notes.append(f"what cameras saw is left out: {', '.join(seen)}")
    stored: dict[str, Any] = {"reading": reading._replace(unused=_left(reading, seen))}
    # Joints are told in their own units, and no file of the dataset says how far they go.
    stored["action_bounds"] = "data"
    marks = [name for role in ("dones", "ends") for name in reading.columns.get(role, ())]
    if marks and not {"terminals", "truncations"} & set(reading.columns):
        # Whoever says otherwise is heard: what is stored gives way.
        stored["dones"] = "terminal"
        notes.append(
            f"'{marks[0]}' is taken as the end of the process, as LeRobot learns from it; if it "
            "only marks the last frame of the record, say dones='truncated' (`--dones truncated`)"
        )
    elif not {"terminals", "truncations"} & set(reading.columns):
        stored["episodes_end"] = "truncated"
    metadata = {name: info[name] for name in ("fps", "robot_type") if info.get(name) is not None}
    return {**stored, "metadata": {**metadata, "reading": notes}}, chunks


def _left(reading: Any, seen: list[str]) -> tuple[str, ...]:
    return tuple(name for name in reading.unused if name not in seen)


def _info(place: Path) -> dict[str, Any]:
    try:
        info = json_text.parse((place / _SIGN).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{_SIGN} cannot be read ({error}): download it again") from None
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        raise DataError(f"{_SIGN} describes no features: download it again")
    return info


def _type(feature: Any) -> str:
    return str(feature.get("dtype", "")) if isinstance(feature, dict) else ""


class _LeRobot(AbstractFormat):
    title = "LeRobot dataset"
    sign = _SIGN

    def recognises(self, place: Path, head: bytes) -> bool:
        return place.is_dir() and (place / _SIGN).is_file() and (place / "data").is_dir()

    def open(self, place: Path, mapping: Mapping | None, rows: int | None):
        return open_lerobot(place, mapping, rows)


FORMATS = (_LeRobot(),)
