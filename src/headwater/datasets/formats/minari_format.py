"""Minari datasets: a directory with metadata and one group (or file) per episode."""

import collections
import json
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core import json_text
from headwater.core.errors import DataError
from headwater.core.spaces import Box, parts_of
from headwater.core.stored_size import require_regular
from headwater.datasets.columns.options import lasting
from headwater.datasets.columns.roles import ROLES, Chunk, Mapping
from headwater.datasets.dataset import OPTIONAL_COLUMNS, Dataset
from headwater.datasets.format import AbstractFormat
from headwater.datasets.formats.arrow_messages import arrow_batches, refuse_large_parquet
from headwater.datasets.formats.hdf5_file import open_file

_COMPONENTS = 1_000_000
"""More numbers than that are in no observation."""


def local_root() -> Path:
    """The directory in which Minari keeps its datasets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def local_names() -> list[str]:
    """The names of the Minari datasets on this machine."""
    root = local_root()
    found = root.glob("**/data/metadata.json") if root.is_dir() else ()
    return sorted(path.parent.parent.relative_to(root).as_posix() for path in found)


def data_directory(path: Path) -> Path | None:
    """The directory of a Minari dataset in (or at) `path`, or `None` if there is none."""
    for candidate in (path / "data", path):
        if (candidate / "metadata.json").is_file():
            return candidate
    return None


def open_minari(path: Path, rows: int | None):
    """What is stored beside the columns, and the columns in chunks of at least `rows`.

    **Arguments:** `path`: the directory that holds `metadata.json`. Observations of several parts
    are laid end to end in the order of their space. Raises `DataError` for a damaged dataset or
    spaces that are neither vectors nor finite sets.
    """
    storage, metadata = _storage(path)
    stored = _stored(storage, metadata)
    return stored, _chunks(storage, path, metadata, rows)


def write_minari(
    dataset: Dataset, path: Path, *, name: str, data_format: str, overview: str | None = None
) -> None:
    """Writes a Minari dataset called `name` into the new directory `path`.

    **Arguments:** `data_format`: `hdf5`, `arrow` or `parquet`; `overview`: a description. Raises
    `DataError` if next observations are not those of the next rows, which Minari cannot hold.
    """
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.dataset.minari_storage import MinariStorage

    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):
        raise DataError(
            f"'{name}' is no name for a Minari dataset: it must read like 'task/kind-v0'"
        ) from None
    broken = discontinuities(dataset)
    if broken.size:
        raise DataError(
            f"the next observation of row {broken[0]} is not the observation of row "
            f"{broken[0] + 1}, which follows it in the same episode (so for {broken.size:,} rows): "
            "Minari stores each state once and cannot hold this; write Parquet or .npz"
        )
    size = dataset.spaces.observation_size
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
    action = dataset.spaces.action
    if isinstance(action, Box):
        action_space = gymnasium.spaces.Box(
            np.asarray(action.low, np.float32), np.asarray(action.high, np.float32)
        )
    else:
        first = action.names[0]
        if action.names != tuple(range(first, first + action.count)):
            raise DataError(
                "the actions are not numbered one after the other, which Minari cannot hold: write "
                "Parquet or .npz"
            )
        action_space = gymnasium.spaces.Discrete(action.count, start=first)
    raw = dataset.raw_actions()
    raw = raw if isinstance(action, Box) else raw.astype(np.int64)
    beside = dataset.beside()

    def buffers():
        for number, begin in enumerate(dataset.episode_starts[:-1]):
            rows = slice(begin, dataset.episode_starts[number + 1])
            yield EpisodeBuffer(
                id=number,
                observations=np.concatenate(  # pyright: ignore[reportArgumentType]
                    [dataset.observations[rows], dataset.next_observations[rows][-1:]]
                ),
                actions=raw[rows],  # pyright: ignore[reportArgumentType]
                rewards=dataset.rewards[rows],  # pyright: ignore[reportArgumentType]
                terminations=dataset.terminals[rows],  # pyright: ignore[reportArgumentType]
                truncations=dataset.truncations[rows],  # pyright: ignore[reportArgumentType]
                # As the information that came with each step; the first comes with the reset.
                infos={
                    name: np.append(np.float32(0.0), column[rows])[:, None]
                    for name, column in beside.items()
                }
                or None,
            )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = MinariStorage.new(
            path,
            observation_space=observation_space,
            action_space=action_space,
            env_spec=_environment(dataset),
            data_format=data_format,
        )
        references = dataset.references()
        details: dict[str, Any] = {"dataset_id": name, "minari_version": minari.__version__}
        details["headwater"] = json.dumps(
            {"metadata": lasting(dataset.metadata), "horizon": dataset.spaces.horizon}
        )
        if overview:
            details["description"] = overview
        if references is not None and references.source == "stored with the dataset":
            details |= {"ref_min_score": references.random, "ref_max_score": references.expert}
        storage.update_metadata(details)
        storage.update_episodes(buffers())


def discontinuities(dataset: Dataset) -> np.ndarray:
    """Rows whose next observation is not the observation of the next row of their episode."""
    same = np.all(dataset.next_observations[:-1] == dataset.observations[1:], axis=1)
    last = (dataset.terminals | dataset.truncations)[:-1]
    return np.flatnonzero(~same & ~last)


def _environment(dataset: Dataset):
    import gymnasium

    try:
        return gymnasium.spec(str(dataset.metadata.get("environment", "")))
    except gymnasium.error.Error:
        return None


def _storage(path: Path):
    import minari
    from minari.dataset.minari_storage import MinariStorage

    require_regular(path / "metadata.json")
    try:
        metadata = json_text.parse((path / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"metadata.json cannot be read ({error}): copy it again") from None
    for space in ("observation_space", "action_space"):
        # Without it Minari would build the environment that the file names, and run its code.
        if not isinstance(metadata, dict) or space not in metadata:
            raise DataError(
                f"metadata.json does not describe the {space}: write the dataset again with "
                "Minari 0.5 or newer"
            )
        _refuse_large_space(space, metadata[space])
    if str(metadata.get("minari_version")) not in minari.supported_dataset_versions:
        raise DataError(
            f"Minari {minari.__version__} cannot read what version "
            f"{metadata.get('minari_version')} wrote: install another version"
        )
    episodes = metadata.get("total_episodes")
    if not isinstance(episodes, int) or episodes < 0:
        raise DataError(f"metadata.json gives {episodes!r} as its total_episodes: copy it again")
    if metadata.get("data_format") == "hdf5":
        data = path / "main_data.hdf5"
        if not data.is_file():
            raise DataError("main_data.hdf5 is missing next to metadata.json: copy it again")
        if data.resolve().parent != path.resolve():
            raise DataError("main_data.hdf5 is a link to another place, which is not followed")
        open_file(path / "main_data.hdf5").close()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return MinariStorage.read(path), metadata
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"Minari cannot open this dataset: {_reason(error)}") from None


def _stored(storage, metadata: dict[str, Any]) -> dict[str, Any]:
    import gymnasium

    stored: dict[str, Any] = {}
    if metadata.get("headwater"):
        try:
            stored = json_text.parse(metadata["headwater"])
        except (ValueError, TypeError):
            raise DataError("the 'headwater' entry of metadata.json is no JSON text") from None
        if not isinstance(stored, dict) or not isinstance(stored.get("metadata") or {}, dict):
            raise DataError("the 'headwater' entry of metadata.json is no table: remove it")
        stored = {name: value for name, value in stored.items() if value is not None}
    details = dict(stored.get("metadata") or {})
    details.setdefault("name", str(metadata.get("dataset_id", "unnamed")))
    if metadata.get("env_spec"):
        try:
            specification = json_text.parse(metadata["env_spec"])
        except (ValueError, TypeError):
            raise DataError("the 'env_spec' of metadata.json is no JSON text") from None
        if not isinstance(specification, dict):
            raise DataError("the 'env_spec' of metadata.json describes no environment")
        details.setdefault("environment", specification.get("id"))
        if specification.get("max_episode_steps"):
            stored.setdefault("horizon", specification["max_episode_steps"])
    if metadata.get("ref_min_score") is not None and metadata.get("ref_max_score") is not None:
        scores = [metadata["ref_min_score"], metadata["ref_max_score"]]
        details.setdefault("reference_returns", scores)
    for key in ("algorithm_name", "description", "author", "code_permalink"):
        if metadata.get(key):
            details.setdefault(key, metadata[key])
    parts = parts_of(storage.observation_space)
    if parts is not None:
        details["observation_parts"] = [list(part) for part in parts]
    stored["metadata"] = details
    action = storage.action_space
    if isinstance(action, gymnasium.spaces.Discrete):
        first = int(action.start)
        stored["action_labels"] = list(range(first, first + int(action.n)))
    elif isinstance(action, gymnasium.spaces.Box):
        stored["discrete"] = False
        if np.all(np.isfinite(action.low)) and np.all(np.isfinite(action.high)):
            stored["action_low"] = action.low.reshape(-1).tolist()
            stored["action_high"] = action.high.reshape(-1).tolist()
    else:
        raise DataError(
            f"actions are of the space {action}: only vectors (Box) and finite sets (Discrete) can "
            "be learned from"
        )
    return stored


def _chunks(storage, path: Path, metadata: dict[str, Any], rows: int | None) -> Iterator[Chunk]:
    held: list[Chunk] = []
    kind = metadata["data_format"]
    for number in range(metadata["total_episodes"]):
        try:
            for file in sorted((path / str(number)).glob(f"*.{kind}")):
                _check_table(file, kind)
            # One at a time: the Arrow storage would otherwise list every file first.
            (episode,) = storage.get_episodes([number])
        except DataError as error:
            raise DataError(f"episode {number}: {error}") from None
        except Exception as error:
            raise DataError(
                f"episode {number} cannot be read ({_reason(error)}): the dataset is truncated or "
                "corrupt; download it again"
            ) from None
        held.append(_checked_episode(storage, episode, number))
        if rows is not None and sum(len(part["rewards"]) for part in held) >= rows:
            yield _stack(held)
            held = []
    if held:
        yield _stack(held)


def _check_table(file: Path, kind: str) -> None:
    """Raises if an episode's table claims too much, or is damaged where nobody would look."""
    require_regular(file)
    if file.resolve().parent != file.parent.resolve():
        raise DataError(f"{file} is a link to another place, which is not followed: copy the file")
    if kind == "parquet":
        refuse_large_parquet(file)
    else:
        # Read to the end, a batch at a time: damage shows where a batch is decoded.
        collections.deque(arrow_batches(file)[1], maxlen=0)


def _checked_episode(storage, episode: dict[str, Any], number: int) -> Chunk:
    try:
        return _episode(storage, episode, number)
    except DataError:
        raise
    except Exception as error:  # Whatever does not fit the spaces that the metadata describe.
        raise DataError(
            f"episode {number} does not fit metadata.json ({_reason(error)}): the dataset is "
            "corrupt; download it again"
        ) from None


def _refuse_large_space(name: str, text: Any) -> None:
    """Raises `DataError` for a space larger than anything that can be learned from."""
    try:
        space = json_text.parse(text)
        size = _components(space)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(f"the {name} in metadata.json is damaged ({_reason(error)})") from None
    if size > _COMPONENTS:
        raise DataError(f"the {name} in metadata.json has {size:,} components, which is too many")


def _components(space: Any) -> int:
    """Numbers in one element of a space that Minari describes, one-hot where it is a set."""
    inner = space.get("subspaces")
    if inner is not None:
        parts = inner.values() if isinstance(inner, dict) else inner
        return sum(
            map(_components, (json_text.parse(p) if isinstance(p, str) else p for p in parts))
        )
    if "shape" in space:
        return math.prod(max(int(length), 0) for length in space["shape"])
    if "n" in space:
        return math.prod(map(int, space["n"])) if isinstance(space["n"], list) else int(space["n"])
    return len(space.get("nvec", ()))


def _episode(storage, episode: dict[str, Any], number: int) -> Chunk:
    import gymnasium

    observations = _flat(storage.observation_space, episode["observations"])
    rewards = np.asarray(episode["rewards"])
    steps = len(rewards)
    actions = np.asarray(episode["actions"])
    if isinstance(storage.action_space, gymnasium.spaces.Discrete):
        actions = actions.reshape(-1)
    for name, found, expected in (
        ("observations", len(observations), steps + 1),
        ("actions", len(actions), steps),
        ("terminations", len(episode["terminations"]), steps),
        ("truncations", len(episode["truncations"]), steps),
    ):
        if found != expected:
            raise DataError(
                f"episode {number} has {steps} rewards and {found} {name}, but {expected} are "
                "needed: the dataset is corrupt; download it again"
            )
    terminals = np.asarray(episode["terminations"], bool)
    truncations = np.asarray(episode["truncations"], bool)
    if steps and not terminals[-1] and not truncations[-1]:
        truncations = truncations.copy()
        truncations[-1] = True
    return {
        "observations": observations[:-1],
        "actions": actions,
        "rewards": rewards,
        "terminals": terminals,
        "truncations": truncations,
        "next_observations": observations[1:],
        **_beside(episode.get("infos"), steps, number),
    }


def _beside(infos: Any, steps: int, number: int) -> Chunk:
    """What the information that came with the steps says of the actions, if it does."""
    found: Chunk = {}
    for role in ("propensities", *OPTIONAL_COLUMNS):
        for name in ROLES[role] if isinstance(infos, dict) else ():
            if role not in found and name in infos:
                values = np.asarray(infos[name]).reshape(-1)
                if len(values) not in (steps, steps + 1):
                    raise DataError(
                        f"episode {number} has {steps} rewards and {len(values)} {name}: one for "
                        "each step is needed"
                    )
                # One more than steps: the first came with the reset.
                found[role] = values[-steps:]
    return found


def _flat(space, values) -> np.ndarray:
    import gymnasium

    if isinstance(space, gymnasium.spaces.Dict):
        parts = [_flat(part, values[name]) for name, part in space.spaces.items()]
        return np.concatenate(parts, axis=1)
    if isinstance(space, gymnasium.spaces.Tuple):
        return np.concatenate([_flat(p, v) for p, v in zip(space.spaces, values)], axis=1)
    if isinstance(space, gymnasium.spaces.Discrete):
        codes = np.asarray(values).reshape(-1) - int(space.start)
        if codes.size and (codes.min() < 0 or codes.max() >= space.n):
            raise DataError(f"an observation is not one of the {space.n} of its space")
        return np.eye(int(space.n), dtype=np.float32)[codes]
    if isinstance(space, gymnasium.spaces.Box | gymnasium.spaces.MultiBinary):
        array = np.asarray(values)
        return array.reshape(array.shape[0], -1)
    raise DataError(
        f"observations are of the space {space}: only numbers (Box, Discrete, and Dict or Tuple of "
        "them) can be learned from"
    )


def _stack(held: list[Chunk]) -> Chunk:
    if any(part.keys() != held[0].keys() for part in held):
        raise DataError(
            "some episodes have propensities and others have not: all or none need them"
        )
    return {role: np.concatenate([part[role] for part in held]) for role in held[0]}


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


class _Minari(AbstractFormat):
    title = "Minari dataset"
    variants = ("minari", "minari-arrow", "minari-parquet")
    sign = "metadata.json"
    # Blocks and file system entries of its own for every episode.
    episode_bytes = 24_000

    def recognises(self, place: Path, head: bytes) -> bool:
        return place.is_dir() and data_directory(place) is not None

    def open(self, place: Path, mapping: Mapping | None, rows: int | None):
        directory = data_directory(place)
        assert directory is not None
        return open_minari(directory, rows)

    def write(self, dataset: Dataset, place: Path, *, variant: str, name: str | None) -> None:
        place.mkdir()
        name = name or "unnamed"
        # Minari takes a relative path as one below the file that it is just writing.
        write_minari(
            dataset,
            place.absolute() / "data",
            name=name if "-v" in name else f"{name}-v0",
            data_format={"minari": "hdf5"}.get(variant, variant.removeprefix("minari-")),
        )


FORMATS = (_Minari(),)
