"""Reading logged experience, whatever format it is in."""

import contextlib
import itertools
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headwater.core import json_text
from headwater.core.errors import DataError, HeadwaterError, nearest
from headwater.core.stored_size import require_regular
from headwater.datasets.actions.confidence import MissingActions
from headwater.datasets.columns.blocks import join, whole_episodes
from headwater.datasets.columns.finish import finish
from headwater.datasets.columns.options import Options
from headwater.datasets.columns.roles import Chunk, Mapping
from headwater.datasets.dataset import Dataset
from headwater.datasets.foreign import HEAD, refuse_directory, refuse_file
from headwater.datasets.format import AbstractFormat, all_formats, format_of
from headwater.datasets.formats.minari_format import data_directory, local_names, local_root
from headwater.datasets.several import files_of_directory, files_of_pattern, open_several

_SIDECARS = (".columns.toml", ".columns.json")
_PACKED = ".gz"


def load(
    path: str | Path | Sequence[str | Path],
    *,
    columns: Mapping | None = None,
    action_low: Any = None,
    action_high: Any = None,
    discrete: bool | None = None,
    action_count: int | None = None,
    horizon: int | None = None,
    dones: Literal["terminal", "truncated"] | None = None,
    never_terminal: bool = False,
    metadata: dict[str, Any] | None = None,
    episodes_end: Literal["terminal", "truncated"] | None = None,
    episode_per_row: bool = False,
    action_labels: list[int] | None = None,
    action_bounds: Literal["data"] | None = None,
    last_row: Literal["step", "observation"] | None = None,
    missing_actions: MissingActions | None = None,
) -> Dataset:
    """The dataset in a file or directory, or the Minari dataset of that name on this machine.

    Several files are one dataset if they are given as a list, as a pattern such as
    `logs/*.parquet`, or as the directory that holds them. The format is recognised by the content:
    Minari (HDF5, Arrow or Parquet), LeRobot, HDF5, tables (Parquet, Arrow/Feather, text, JSON),
    NumPy's `.npz` or a directory of `.npy`, and Headwater's column directory. Options may also be
    written, as TOML or JSON, into a file next to it, such as `log.columns.toml` for `log.parquet`,
    or `logs.columns.toml` for all in `logs/`.

    **Arguments:** `columns`: which column plays which role, where names are not the usual ones: a
    name, a list of names, or a family such as `obs_*`; the roles are observations, actions,
    rewards, next_observations, what says where episodes end (terminals, truncations, dones, ends,
    starts, continues, episodes, steps), how probable the logged actions were (propensities,
    log_propensities), how sure it is that they are those that were taken (action_confidence: 1
    where it was logged, 0 where there is none), and unused, for columns to be left alone;
    `action_low`, `action_high`, `discrete`, `action_count`, `action_labels`, `action_bounds`,
    `horizon`, `metadata`: see `Dataset.from_arrays`;
    `dones`: whether a column that only says "done" means terminal or truncated; `never_terminal`:
    the process never ends by itself, so that no column says so; `episodes_end`: how episodes end
    where an episode's number, a start or a counter alone shows that they do (truncated unless
    said); `episode_per_row`: every row is an episode of its own, which ends with it; `last_row`:
    what the last row of an episode is: a step like any other, or `"observation"`, as in RLDS, what
    was observed after the last step; `missing_actions`: what becomes of rows whose action is empty
    or NaN: `"keep"` to have it inferred, `"drop"` to leave them out.

    All columns that say where episodes end are combined. What was read as what, and what was not
    read, stands in the dataset's `metadata["reading"]`; `headwater data describe` puts it into
    words.

    Raises `DataError`, naming the file, column, row and remedy, if it cannot be used.
    """
    options = Options(
        columns,
        action_low,
        action_high,
        discrete,
        action_count,
        horizon,
        dones,
        never_terminal,
        metadata,
        episodes_end,
        episode_per_row,
        action_labels,
        action_bounds,
        last_row,
        missing_actions,
    )
    place, files = _places(path)
    try:
        options, opened = _open(files, options, None)
        if isinstance(opened, Dataset):
            dataset = opened
            dataset.metadata.update(metadata or {})
        else:
            with _counted_through(files):
                dataset = finish(join(opened), options)
    except DataError as error:
        raise _named(place, error) from None
    dataset.metadata.setdefault("name", _title(place))
    dataset.metadata["source"] = place.name
    return dataset


def load_blocks(
    path: str | Path | Sequence[str | Path], rows: int, options: Options | None = None
) -> Iterator[Dataset]:
    """The same data as blocks of whole episodes, at least `rows` rows each, read as they are used.

    Memory use is that of a few blocks, or of the longest episode, except for `.npz` and CSV, which
    are read whole. Raises `DataError` as `load` does.
    """
    options = options or Options()
    place, files = _places(path)
    try:
        options, opened = _open(files, options, rows)
        if isinstance(opened, Dataset):
            yield opened
            return
        if options.action_bounds is not None:
            # Bounds are of the whole, so that it is read twice.
            options = _bounded(opened, options)
            _, opened = _open(files, options, rows)
        for _, block in whole_episodes(opened, options, rows):
            block.metadata.setdefault("name", _title(place))
            block.metadata["source"] = place.name
            yield block
    except DataError as error:
        raise _named(place, error) from None


def locate(path: str | Path) -> Path:
    """The file or directory that `path` means, which may be the name of a local Minari dataset.

    Raises `DataError`, with the nearest names, if there is nothing there.
    """
    try:
        place = Path(path).expanduser()
        if place.exists() or files_of_pattern(path):
            return place
        return _named_dataset(place, path)
    except (OSError, ValueError, RuntimeError) as error:
        # Too long a name, a link that leads to itself, no such user.
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"'{path}' is no path that can be followed ({reason})") from None


def _named_dataset(place: Path, path: str | Path) -> Path:
    name = str(path).removeprefix("minari:").strip("/")
    local = local_root() / name
    if name and ".." not in local.parts and data_directory(local) is not None:
        return local
    siblings = []
    if place.parent.is_dir():
        siblings = [item.name for item in place.parent.iterdir() if item.suffix or item.is_file()]
    known = local_names()
    hint = ""
    for candidates, kind in ((siblings, "file"), (known, "Minari dataset")):
        sentence = nearest(place.name if kind == "file" else name, candidates, kind)
        if "did you mean" in sentence:
            hint = f"; did you mean {sentence.split('did you mean ')[1]}"
            break
    raise DataError(
        f"there is no file or directory '{path}', and no Minari dataset of that name on this "
        f"machine{hint or ': check the path'}"
    )


def _places(path: str | Path | Sequence[str | Path]) -> tuple[Path, list[Path]]:
    """What the data is called in messages, and the files or the directory that it is in."""
    if isinstance(path, str | Path):
        place = locate(path)
        if not place.exists():
            return place, files_of_pattern(place)
        if place.is_dir() and format_of(place, b"") is None:
            try:
                refuse_directory(place)
                return place, files_of_directory(place) or [place]
            except DataError as error:
                raise _named(place, error) from None
        return place, [place]
    given = list(path)
    if not given:
        raise DataError("the list of files is empty: name at least one")
    files = [file for each in given for file in _places(each)[1]]
    return locate(given[0]), files


def _open(files: list[Path], options: Options, rows: int | None) -> tuple[Options, Any]:
    """The options with what is stored with the data, and chunks of it; or the dataset itself."""
    if len(files) == 1:
        return _open_one(files[0], options, rows)

    def one(place: Path) -> tuple[Options, Iterator[Chunk]]:
        found, chunks = _open_one(place, options, rows)
        if isinstance(chunks, Dataset):
            raise DataError("a column directory is read alone: it cannot be one of several files")
        return found, chunks

    return open_several(files, one)


def _open_one(place: Path, options: Options, rows: int | None) -> tuple[Options, Any]:
    sidecar = _sidecar(place) or _sidecar(place.parent)
    opened = _recognised(place).open(place, options.over(sidecar).columns, rows)
    if isinstance(opened, Dataset):
        # What is not said is not stored there anew.
        given = [n for n, value in options._asdict().items() if value and n != "metadata"]
        if given:
            raise DataError(
                f"a column directory holds what was said when it was written, so {given[0]} cannot "
                "be said again: leave it out, or convert the original once more"
            )
        return options, opened
    stored, chunks = opened
    return options.over({**stored, **sidecar}), chunks


@contextlib.contextmanager
def _counted_through(files: list[Path]) -> Iterator[None]:
    """Says in errors on the whole of several files how rows are counted."""
    try:
        yield
    except DataError as error:
        if len(files) == 1 or str(error).startswith(tuple(map(str, files))):
            raise
        raise DataError(f"{error} (rows are counted through all {len(files):,} files)") from None


def _title(place: Path) -> str:
    """What a dataset is called that has no name: a pattern is called after its directory."""
    return place.stem if place.exists() else place.absolute().parent.name


def _recognised(place: Path) -> AbstractFormat:
    if place.is_dir():
        found = format_of(place, b"")
        if found is not None:
            return found
        signs = [f"a {f.title} ({f.sign})" for f in all_formats() if f.directory]
        held = ", ".join(sorted(item.name for item in place.iterdir())[:10]) or "nothing"
        raise DataError(f"this directory is neither {' nor '.join(signs)}; it holds {held}")
    require_regular(place)
    try:
        with place.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise DataError(f"it cannot be read ({error.strerror}): check its permissions") from None
    if not head:
        raise DataError("the file is empty: copy or download it again")
    refuse_file(place, head)
    found = format_of(place, head)
    if found is not None:
        return found
    if place.suffix in {suffix for f in all_formats() for suffix in f.suffixes} - {""}:
        raise DataError(
            f"the content is not that of a {place.suffix} file: it is truncated or corrupt; copy "
            "or download it again"
        )
    titles = [f.title for f in all_formats()]
    raise DataError(
        f"its format is not recognised: {', '.join(titles[:-1])} and {titles[-1]} can be read"
    )


def _sidecar(place: Path) -> dict[str, Any]:
    if not place.name:
        return {}  # The root of the file system, or this directory.
    stems = [place.stem, Path(place.stem).stem] if place.suffix == _PACKED else [place.stem]
    for stem, suffix in itertools.product(stems, _SIDECARS):
        file = place.with_name(stem + suffix)
        if not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8")
            found = tomllib.loads(text) if suffix.endswith("toml") else json_text.parse(text)
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{file.name} next to it cannot be read: {error}") from None
        if not isinstance(found, dict) or not isinstance(found.get("columns", {}), dict):
            raise DataError(f"{file.name} next to it must be a table with a part [columns]")
        return found
    return {}


def _bounded(chunks: Iterator[Chunk], options: Options) -> Options:
    """The options with the bounds of the actions of all chunks."""
    extremes: list[np.ndarray] = []
    for chunk in chunks:
        actions = np.asarray(chunk["actions"])
        if actions.dtype.kind in "biuf" and actions.size:
            flat = actions.reshape(actions.shape[0], -1)
            known = ~np.isnan(flat).all(1)
            if "action_confidence" in chunk:
                known &= np.asarray(chunk["action_confidence"]).reshape(-1) > 0
            if not known.any():
                continue
            flat = flat[known]
            extremes.append(np.stack([flat.min(0), flat.max(0)]))
    if not extremes or len({part.shape for part in extremes}) > 1:
        return options  # Whoever reads the actions says what is wrong with them.
    low = np.min([part[0] for part in extremes], axis=0)
    high = np.max([part[1] for part in extremes], axis=0)
    return options._replace(
        action_low=low.tolist() if options.action_low is None else options.action_low,
        action_high=high.tolist() if options.action_high is None else options.action_high,
        action_bounds=None,
    )


def _named(place: Path, error: HeadwaterError) -> DataError:
    text = str(error)
    return DataError(text if text.startswith(str(place)) else f"{place}: {text}")
