"""What a file or a directory is that is not read, and how it becomes one that is."""

import re
import zipfile
from pathlib import Path

from headwater.core.errors import DataError

HEAD = 512
"""Bytes from the beginning of a file by which it is told what it is."""

_NEVER_LOADED = "pickles are never loaded because they can run code"
_COLUMNS = "np.savez('log.npz', observations=…, actions=…, rewards=…, terminals=…)"
_TRUSTED = f"where it was made, or wherever you trust it, load it and write {_COLUMNS}"
_PANDAS = "`.to_parquet('log.parquet')` writes what is read"
_UNPACK = "unpack it first, and give the directory or the file that was in it"

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "this is a pointer of Git LFS and not the file itself: `git lfs pull` fetches that",
    ),
    (
        b"SQLite format 3\0",
        "this is an SQLite database: read the table with pandas.read_sql, and " + _PANDAS,
    ),
    (
        b"Obj\x01",
        "this is an Avro file: pandas.DataFrame(fastavro.reader(open(PATH, 'rb'))) reads it, and "
        + _PANDAS,
    ),
    (
        b"ORC",
        "this is an ORC file: pyarrow.orc.read_table reads it, and pyarrow.parquet.write_table "
        "writes what is read",
    ),
    (
        b"FEA1",
        "this is a Feather file of version 1: pandas.read_feather reads it, and " + _PANDAS,
    ),
    (b"PARE", "this is an encrypted Parquet file: decrypt it with its key first"),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "this is an Excel workbook: save the sheet as CSV, or read it with pandas.read_excel, and "
        + _PANDAS,
    ),
    (
        b"#ROSBAG",
        "this is a bag of ROS 1: its messages have times and no steps; read the topics with the "
        f"package rosbags, take one row for each step, and write {_COLUMNS}",
    ),
    (
        b"\x89MCAP0",
        "this is an MCAP recording: its messages have times and no steps; read the topics with the "
        f"package mcap, take one row for each step, and write {_COLUMNS}",
    ),
    (
        b"MATLAB 5.0",
        f"this is a MATLAB file: scipy.io.loadmat reads it; then write {_COLUMNS}",
    ),
    (
        b"MATLAB 7.3",
        f"this is a MATLAB file of version 7.3: read its arrays with h5py (their axes are "
        f"reversed), and write {_COLUMNS}",
    ),
    (b"BZh", f"this is a bzip2 archive: {_UNPACK}"),
    (b"\xfd7zXZ\0", f"this is an xz archive: {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"this is a zstd archive: {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"this is a 7z archive: {_UNPACK}"),
)
"""How the content of kinds of files begins that are not read, and what is said of them."""

_R = (
    "this is a file of R: there, arrow::write_parquet(TABLE, 'log.parquet') writes a table of it "
    "(readRDS reads an .rds file, load an .RData file)"
)
_SUFFIXES = {
    ".dta": f"this is a file of Stata: pandas.read_stata reads it, and {_PANDAS}",
    ".sas7bdat": f"this is a file of SAS: pandas.read_sas reads it, and {_PANDAS}",
    ".xpt": f"this is a file of SAS: pandas.read_sas reads it, and {_PANDAS}",
    ".sav": f"this is a file of SPSS: pandas.read_spss reads it, and {_PANDAS}",
    ".rds": _R,
    ".rda": _R,
    ".rdata": _R,
    ".arff": "this is an ARFF file: pandas.DataFrame(scipy.io.arff.loadarff(PATH)[0]) reads it, "
    f"and {_PANDAS}",
    ".xml": f"this is an XML file: pandas.read_xml reads its table, and {_PANDAS}",
    ".yaml": "this is a YAML file: pandas.DataFrame(yaml.safe_load(open(PATH))) reads a list of "
    f"rows, and {_PANDAS}",
    ".yml": "this is a YAML file: pandas.DataFrame(yaml.safe_load(open(PATH))) reads a list of "
    f"rows, and {_PANDAS}",
    ".msgpack": f"this is a MessagePack file: unpack it with msgpack.unpack, and write {_COLUMNS}",
    ".md": "this is a text in Markdown: write the table of it as CSV",
    ".ods": "this is a spreadsheet: save the sheet as CSV",
}
"""What is said of kinds of files that are told by their names."""

_READ_PACKED = (".csv.gz", ".tsv.gz", ".json.gz", ".jsonl.gz", ".ndjson.gz")
_NUMBER = rb"-?[0-9.]+(?:[eE][-+]?[0-9]+)?"
_VOWPAL_WABBIT = re.compile(
    rb"shared ?\||(?:ccb|slates) shared|[0-9]+:" + _NUMBER + rb":" + _NUMBER + rb"(?: [^|\n]*)?\|"
    rb'|\{[^\n]*"_label_(?:cost|probability|Action)" ?:'
)
"""How decisions begin there: `action:cost:probability | features`, of several actions, as JSON."""
_RECORDS = (
    "TFRecord files, as RLDS and TensorFlow Datasets write them: with TensorFlow Datasets, "
    "`tfds.builder_from_directory(PATH).as_dataset(split='train')` gives the episodes; write their "
    "steps one after the other into a table with observation, action, reward, is_first, is_last "
    "and is_terminal, and load that with last_row='observation'"
)


def refuse_file(place: Path, head: bytes) -> None:
    """Raises `DataError`, with what it is and how to convert it, for a known kind that is not read.

    **Arguments:** `head`: its first `HEAD` bytes.
    """
    reason = _file(place, head)
    if reason is not None:
        raise DataError(reason)


def refuse_directory(place: Path) -> None:
    """Raises `DataError` as `refuse_file` does, for a directory."""
    reason = _directory(place)
    if reason is not None:
        raise DataError(reason)


def _file(place: Path, head: bytes) -> str | None:
    name = place.name.lower()
    suffix = place.suffix.lower()
    for magic, reason in _MAGIC:
        if head.startswith(magic):
            return reason
    if suffix in (".pkl", ".pickle") or (head[:1] == b"\x80" and head[1:2] <= b"\x05"):
        what = "a file of PyTorch" if suffix in (".pt", ".pth") else "a pickle"
        return f"this is {what}: {_NEVER_LOADED}; {_TRUSTED}"
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if head.startswith(b"PK"):
        return _archive(place)
    if head[257:262] == b"ustar":
        return f"this is a tar archive: {_UNPACK}"
    if head.startswith(b"\x1f\x8b") and not name.endswith(_READ_PACKED):
        return (
            "this is a gzip archive, of which only text tables (.csv.gz, .tsv.gz) and JSON "
            f"(.json.gz, .jsonl.gz) are read as they are: {_UNPACK}"
        )
    if _is_records(head, place.stat().st_size) and ("tfrecord" in name or "tfevents" in name):
        if "tfevents" in name:
            return (
                "this is a log of TensorBoard: it has curves of a training and no transitions; "
                "give the data that was learned from"
            )
        return f"this is one of the {_RECORDS}"
    if head.startswith(b'#{"t_start"'):
        return (
            "this is a monitor file of Stable-Baselines3: it has the returns of episodes and no "
            "transitions; give the data that was collected"
        )
    if _VOWPAL_WABBIT.match(head):
        return (
            "this is a log of Vowpal Wabbit: write a row for each decision, with the features of "
            "the context, the action, the reward (the cost with the other sign) and the "
            "probability of the action, and load it with episode_per_row=True and "
            "columns={'propensities': 'NAME'}"
        )
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return (
            "this is a web page: if you meant a file, the address leads to a page about it; a "
            f"table in the page is read by pandas.read_html, and {_PANDAS}"
        )
    if text.startswith(b"<table"):
        return f"this is a table in HTML: pandas.read_html reads it, and {_PANDAS}"
    return None


def _archive(place: Path) -> str | None:
    """What a ZIP file is that holds no plain arrays."""
    try:
        with zipfile.ZipFile(place) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError):
        if place.suffix.lower() not in ("", ".npz", ".zip"):
            return (
                f"this {place.suffix} file, which should be a ZIP archive, is truncated or "
                "corrupt: copy or download it again"
            )
        # Damaged, or of a version of ZIP that Python does not read (a `RuntimeError`): whoever
        # opens it says what is wrong with it.
        return None
    bare = {name.rpartition("/")[2] for name in names}
    if "[Content_Types].xml" in bare:
        return (
            "this is an Excel workbook: save the sheet as CSV, or read it with pandas.read_excel, "
            f"and {_PANDAS}"
        )
    if "policy.pth" in bare:
        return (
            "this is a policy of Stable-Baselines3 and no log: record what it does with `headwater "
            "data collect`, or with Minari's DataCollector"
        )
    if "data.pkl" in bare:
        return f"this is a file of PyTorch, which is a pickle: {_NEVER_LOADED}; {_TRUSTED}"
    if bare & {".zgroup", ".zarray", "zarr.json"}:
        return _zarr()
    if any(name.endswith(".npy") for name in names):
        return None
    return f"this is a ZIP archive without arrays: {_UNPACK}" if names else None


def _directory(place: Path) -> str | None:
    names = {item.name for item in place.iterdir()}
    if names & {".zgroup", ".zarray", ".zmetadata", "zarr.json"}:
        return _zarr()
    if "data.mdb" in names:
        return (
            "this is an LMDB database, whose values only their writer can read: read them with "
            f"that program, and write {_COLUMNS}"
        )
    if "metadata.yaml" in names and any(n.endswith((".db3", ".mcap")) for n in names):
        return (
            "this is a bag of ROS 2: its messages have times and no steps; read the topics with "
            f"the package rosbags, take one row for each step, and write {_COLUMNS}"
        )
    if any("tfrecord" in name for name in names) or _holds(place, "*/*.tfrecord*"):
        return f"this directory holds {_RECORDS}"
    for pattern in ("", "monitor/", "*/monitor/"):
        actions = next(iter(sorted(place.glob(f"{pattern}agent_actions.csv"))), None)
        if actions is not None and (actions.parent / "observations.csv").is_file():
            where = str(actions.parent.relative_to(place)).replace(".", "this directory", 1)
            return (
                "this is a log of sinergym, with a file for each of observations (one row more "
                f"than steps), actions and rewards, as in {where}: for each episode, join "
                "observations.csv without its last row, agent_actions.csv and rewards.csv side by "
                "side into one table, next to the observations without their first row as columns "
                "next_NAME, number the episodes in a column 'episode', and load it with "
                "columns={'observations': […], 'actions': […]} and episodes_end='truncated'"
            )
    return None


def _zarr() -> str:
    return (
        "this is a Zarr store: zarr.open(PATH, mode='r') reads its arrays; write them with "
        f"{_COLUMNS} (for the layout of Diffusion Policy, truncations are true where meta/"
        "episode_ends say so, less one)"
    )


def _holds(place: Path, pattern: str) -> bool:
    return next(place.glob(pattern), None) is not None


def _is_records(head: bytes, size: int) -> bool:
    """Whether it begins with the length of a record, of which the file holds at least one."""
    length = int.from_bytes(head[:8], "little")
    return len(head) >= 16 and 0 < length <= size - 16
