"""Ways of spoiling a valid input. Everything is drawn from one generator, so cases can be repeated.

What is planted here tries to run code (it would write a file called `canary`), to reach files in
the folder `outside` beside the input, to claim more than there is, and to look right.
"""

import copy
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .seeds import ROWS, SEEDS, columns

Draw = np.random.Generator

_DEEP = 20_000


class Raw(str):
    """Text that goes into a JSON file as it is."""


HOSTILE: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    1.5,
    -0.0,
    10**30,
    2**63,
    2**31,
    10**9,
    1e308,
    Raw("NaN"),
    Raw("-Infinity"),
    Raw("1e999"),
    Raw("9" * 5_000),
    Raw("[" * _DEEP + "]" * _DEEP),
    Raw('{"a":' * _DEEP + "1" + "}" * _DEEP),
    Raw('"\\ud800"'),
    Raw('{"a": 1, "a": 2}'),
    "",
    " ",
    "nan",
    "inf",
    "٣",
    "a\0b",
    "../../outside/secret.txt",
    "/nonexistent/absolute",
    "x" * 5_000,
    "[/bold]{0}%s\x1b[31m",
    "canary:Task-v0",
    "canary_module:main",
    "!!python/object/apply:os.system ['touch canary']",
    "${jndi:ldap://x}",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢\u202e",
    [],
    {},
    [[]],
    [None],
    [1, [2]],
    [1.5] * 300,
    {"": None},
    {"__class__": "os.system"},
    {"method": "IQL"},
)
"""Values that a field of a JSON file does not expect."""


# Any file ---------------------------------------------------------------------------------------


def _files(path: Path) -> list[Path]:
    if path.is_file():
        beside = sorted(p for p in path.parent.iterdir() if p.is_file())
        # The file itself more often than what declares its columns.
        return [path, path, *beside]
    return sorted(p for p in path.rglob("*") if p.is_file() and p.stat().st_size)


def bytes_damaged(path: Path, draw: Draw) -> None:
    """Truncates, flips, overwrites, moves or repeats bytes of one file."""
    file = _pick(_files(path), draw)
    data = bytearray(file.read_bytes())
    for _ in range(int(draw.integers(1, 4))):
        if not data:
            break
        at = int(draw.integers(len(data)))
        # Headers and footers are where formats keep what they claim.
        if draw.random() < 0.5:
            near = int(draw.integers(min(len(data), 400)))
            at = near if draw.random() < 0.5 else len(data) - 1 - near
        length = int(draw.integers(1, 64))
        kind = int(draw.integers(10))
        if kind == 0:
            del data[at:]
        elif kind == 1:
            for _ in range(int(draw.integers(1, 9))):
                place = int(draw.integers(len(data)))
                data[place] ^= 1 << int(draw.integers(8))
        elif kind == 2:
            data[at] ^= 1 << int(draw.integers(8))
        elif kind == 3:
            data[at : at + length] = bytes([int(draw.choice([0, 255, 48, 127]))]) * length
        elif kind == 4:
            data[at : at + length] = draw.bytes(length)
        elif kind == 5:
            del data[at : at + length]
        elif kind == 6:
            data[at:at] = data[at : at + length]
        elif kind == 7:
            huge = int(draw.choice([2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63 - 1]))
            wide = 8 if huge >= 2**32 else 4
            data[at : at + wide] = huge.to_bytes(wide, "little")
        elif kind == 8:
            other = int(draw.integers(len(data)))
            data[at : at + length] = data[other : other + length]
        else:
            data += draw.bytes(length)
    file.write_bytes(bytes(data))


def replaced(path: Path, draw: Draw) -> None:
    """Puts something that is no such file in the place of one."""
    file = _pick(_files(path), draw)
    outside = path.parent / "outside" / "secret.txt"
    kind = int(draw.integers(9))
    file.unlink()
    if kind == 0:
        file.mkdir()
    elif kind == 1:
        file.symlink_to(outside)
    elif kind == 2:
        file.symlink_to(file.name)
    elif kind == 3:
        file.symlink_to("/dev/zero")
    elif kind == 4:
        os.mkfifo(file)
    elif kind == 5:
        file.write_bytes(b"")
    elif kind == 6:
        file.write_bytes(draw.bytes(int(draw.integers(1, 3000))))
    elif kind == 7:
        file.symlink_to(outside.parent)
    # And nothing at all.


# Text -------------------------------------------------------------------------------------------


def written(value: Any) -> str:
    """As JSON, with raw text where there is some."""
    kept: dict[str, str] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Raw):
            kept[f"@@{len(kept)}@@"] = value
            return f"@@{len(kept) - 1}@@"
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list) else value

    text = json.dumps(plain(value))
    for mark, raw in kept.items():
        text = text.replace(f'"{mark}"', raw)
    return text


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value: what holds it, and its key there."""
    found = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in pairs:
        found.append((value, key))
        if isinstance(child, dict | list) and len(child) < 400:
            found += _nodes(child)
    return found


def _hostile(draw: Draw) -> Any:
    # A copy, since it may be spoiled in turn.
    return copy.deepcopy(_pick(HOSTILE, draw))


def spoiled(value: Any, draw: Draw) -> Any:
    """A JSON value with one part replaced, removed, renamed or added."""
    nodes = _nodes(value) if isinstance(value, dict | list) else []
    if not nodes or draw.random() < 0.05:
        return _hostile(draw)
    holder, key = _pick(nodes, draw)
    kind = draw.random()
    if kind < 0.75:
        holder[key] = _hostile(draw)
    elif kind < 0.87:
        del holder[key]
    elif isinstance(holder, dict):
        name = _pick(["x", "", "../x", "__proto__", "ключ", key + "s"], draw)
        holder[name] = holder.pop(key) if draw.random() < 0.5 else _hostile(draw)
    else:
        holder.append(_hostile(draw))
    return value


def json_damaged(path: Path, draw: Draw) -> None:
    """Spoils one value in one JSON or JSON Lines file."""
    files = [p for p in _files(path) if p.suffix in (".json", ".jsonl")]
    if not files:
        return bytes_damaged(path, draw)
    file = _pick(files, draw)
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        lines = text.splitlines()
        if not lines:
            return bytes_damaged(path, draw)
        at = int(draw.integers(len(lines)))
        lines[at] = written(spoiled(json.loads(lines[at]), draw))
        if draw.random() < 0.1:
            lines.insert(at, written(_pick(HOSTILE, draw)))
        text = "\n".join(lines) + "\n"
    else:
        value = json.loads(text)
        for _ in range(int(draw.integers(1, 3))):
            value = spoiled(value, draw) if not isinstance(value, Raw) else value
        text = written(value)
    file.write_text(text, encoding="utf-8")


# Columns ----------------------------------------------------------------------------------------


def hostile_array(array: np.ndarray, draw: Draw) -> np.ndarray:
    """A column of another type, shape or content."""
    if array.dtype.kind not in "biuf" or not array.ndim:
        return array
    wide = array.astype(np.float64)
    flat = wide.reshape(-1)
    at = int(draw.integers(max(flat.size, 1)))

    def at_one_place(value: float) -> np.ndarray:
        flat[at : at + 1] = value
        return wide

    kinds: list[Callable[[], np.ndarray]] = [
        lambda: at_one_place(np.nan),
        lambda: at_one_place(np.inf),
        lambda: at_one_place(-1e300),
        lambda: at_one_place(2.0),
        lambda: array[: array.shape[0] // 2],
        lambda: array[:0],
        lambda: array[..., None, None],
        lambda: np.zeros((array.shape[0], 0)),
        lambda: np.asarray(1.0),
        lambda: array.astype(np.complex64),
        lambda: array.astype("S5"),
        lambda: array.astype("U5"),
        lambda: np.full(array.shape, 2**63, np.uint64),
        lambda: np.full(array.shape, -(2**63), np.int64),
        lambda: array.astype(">f8"),
        lambda: array.astype(np.float16),
        lambda: array.astype(np.longdouble),
        lambda: array.astype(np.int8),
        lambda: np.ones(array.shape, bool),
        lambda: np.zeros(array.shape),
        lambda: np.zeros(array.shape, "datetime64[s]"),
        lambda: np.zeros(array.shape[0], [("a", "f4"), ("b", "O" if draw.random() < 0 else "i4")]),
        lambda: np.zeros(array.shape[0], "V7"),
        lambda: np.asfortranarray(wide),
        lambda: np.concatenate([array, array]),
        lambda: np.full(array.shape, 1e-320),
        lambda: wide * 1e38,
        lambda: wide * 1e30,
    ]
    return _pick(kinds, draw)()


def _spoiled_columns(draw: Draw) -> dict[str, np.ndarray]:
    given = columns()
    for _ in range(int(draw.integers(1, 3))):
        name = _pick(sorted(given), draw)
        kind = draw.random()
        if kind < 0.8:
            given[name] = hostile_array(given[name], draw)
        elif kind < 0.9 and len(given) > 1:
            del given[name]
        else:
            hostile = ["", "../x", "/abs", "a\nb", "ünïcode", "x" * 300, "reward", "obs_1", "[/b]"]
            given[_pick(hostile, draw)] = given.pop(name)
    if draw.random() < 0.2:
        given["episode"] = _pick(
            [np.zeros(ROWS), np.arange(ROWS) % 2, np.full(ROWS, np.nan), np.arange(3)], draw
        )
    return given


def _spoiled_extras(draw: Draw) -> dict[str, str]:
    names = ["horizon", "metadata", "action_low", "action_high", "action_count", "discrete"]
    value = _pick(HOSTILE, draw)
    if draw.random() < 0.3:
        key = _pick(["name", "environment", "reference_returns", "dropped_rows"], draw)
        return {"metadata": written({key: value})}
    return {_pick(names, draw): written(value)}


def npz_columns(path: Path, draw: Draw) -> None:
    """Other columns and options."""
    given: dict[str, Any] = dict(_spoiled_columns(draw))
    if draw.random() < 0.4:
        given = dict(columns()) if draw.random() < 0.7 else given
        given |= {name: np.asarray(text) for name, text in _spoiled_extras(draw).items()}
    given = {name.replace("\0", "0") or "empty": value for name, value in given.items()}
    np.savez(path, **given)


def hdf5_columns(path: Path, draw: Draw) -> None:
    """Other columns and attributes."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in _spoiled_columns(draw).items():
            # What HDF5 has no type for stays away.
            with _ignored(TypeError, ValueError):
                file.create_dataset(name or "empty", data=array)
        if draw.random() < 0.4:
            for name, text in _spoiled_extras(draw).items():
                with _ignored(OSError, RuntimeError, ValueError):
                    file.attrs[f"headwater_{name}"] = text
                    file[f"metadata/{name}"] = text


def table_columns(path: Path, draw: Draw) -> None:
    """Other columns and types."""
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet

    found = {}
    for name, array in _spoiled_columns(draw).items():
        with _ignored(pyarrow.ArrowException, TypeError, ValueError, NotImplementedError):
            found[name] = pyarrow.array(list(array) if array.ndim else [1.0] * ROWS)
    length = max((len(values) for values in found.values()), default=0)
    found = {k: v for k, v in found.items() if len(v) == length}
    if draw.random() < 0.4 and length:
        name = _pick(["observations", "rewards", "terminals", "actions", "episode"], draw)
        found[name] = _pick(
            [
                pyarrow.nulls(length),
                pyarrow.array([{"a": 1}] * length),
                pyarrow.array(["x"] * length).dictionary_encode(),
                pyarrow.array([[1.0]] * (length - 1) + [None]),
                pyarrow.array([[1.0]] * (length - 1) + [[]]),
                pyarrow.array([[[1.0, 2.0]]] * (length - 1) + [[[1.0]]]),
                pyarrow.array([b"\xff"] * length),
                pyarrow.array([10**15] * length, pyarrow.timestamp("us")),
                pyarrow.array(
                    [[("a", 1)]] * length, pyarrow.map_(pyarrow.string(), pyarrow.int8())
                ),
                pyarrow.array([[]] * length, pyarrow.list_(pyarrow.float32())),
                pyarrow.array([[]] * length, pyarrow.list_(pyarrow.float32(), 0)),
                pyarrow.array([1.0] * (length - 1) + [None]),
                pyarrow.array([2**63] * length, pyarrow.uint64()),
                pyarrow.array(["1"] * length).cast(pyarrow.decimal128(20, 2)),
            ],
            draw,
        )
    table = pyarrow.table(found)
    if draw.random() < 0.3:
        extras = {key: Raw(text) for key, text in _spoiled_extras(draw).items()}
        text = written(extras) if draw.random() < 0.8 else written(_pick(HOSTILE, draw))
        table = table.replace_schema_metadata({b"headwater": text.encode("utf-8", "replace")})
    # Some types have no place in every format; then the valid table stays, and other damage counts.
    with _ignored(pyarrow.ArrowException, TypeError):
        if path.suffix == ".arrow":
            _write_arrow(table, path)
        else:
            pyarrow.parquet.write_table(table, path)


def _write_arrow(table: Any, path: Path, **how: Any) -> None:
    import pyarrow

    options = pyarrow.ipc.IpcWriteOptions(**how)
    with (
        pyarrow.OSFile(str(path), "wb") as sink,
        pyarrow.ipc.new_file(sink, table.schema, options=options) as writer,
    ):
        writer.write_table(table)


def directory_columns(path: Path, draw: Draw) -> None:
    """Other arrays in a column directory."""
    file = _pick(sorted(path.glob("*.npy")), draw)
    np.save(file, hostile_array(np.load(file), draw), allow_pickle=False)


def process_arrays(path: Path, draw: Draw) -> None:
    """Other arrays of a finite process."""
    with np.load(path) as archive:
        given = dict(archive)
    name = _pick(sorted(given), draw)
    given[name] = hostile_array(given[name], draw)
    np.savez(path, **given)


def tensors(path: Path, draw: Draw) -> None:
    """Other arrays, names, or lengths in a safetensors file."""
    files = sorted(path.rglob("*.safetensors"))
    file = _pick(files, draw)
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if draw.random() < 0.2:
        claim = _pick([0, 2**63, 2**40, 10**8, length * 2, 1], draw)
        file.write_bytes(claim.to_bytes(8, "little") + data[8:])
        return
    if draw.random() < 0.3 and "__metadata__" in header:
        described = header["__metadata__"]
        name = _pick(sorted(described), draw)
        described[name] = written(_pick(HOSTILE, draw))
    elif draw.random() < 0.4:
        name = _pick(sorted(k for k in header if k != "__metadata__"), draw)
        entry = header[name]
        change = int(draw.integers(5))
        if change == 0:
            entry["dtype"] = _pick(["F64", "I8", "BOOL", "BF16", "F8_E4M3", "X", "U8"], draw)
        elif change == 1:
            entry["shape"] = _pick([[10**12], [-1], [], [2**63, 2], ["a"], [0]], draw)
        elif change == 2:
            entry["data_offsets"] = _pick([[0, 2**60], [8, 0], [-1, 3], [0]], draw)
        elif change == 3:
            header[_pick(["../x", "", "a\0b", "x" * 2000, "method|"], draw)] = header.pop(name)
        else:
            del header[name]
    else:
        header = spoiled(header, draw)
    text = written(header).encode("utf-8", "replace")
    body = bytearray(data[8 + length :])
    if draw.random() < 0.3 and body:
        body[:4] = struct.pack("<f", np.nan)
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(body))


# Planted ----------------------------------------------------------------------------------------


class _Canary:
    """Unpickled, it writes a file."""

    def __reduce__(self):
        return (os.system, ("touch canary",))


def canary_pickle() -> bytes:
    """A pickle that writes a file called `canary` if it is loaded."""
    return pickle.dumps(_Canary())


def object_array(value: Any) -> np.ndarray:
    """An array of one Python object."""
    array = np.empty(1, object)
    array[0] = value
    return array


def npy_claiming(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """An `.npy` file whose header claims more than there is."""
    buffer = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + bytes(64)


def _npz_with(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for column, array in columns().items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{column}.npy", buffer.getvalue())
        archive.writestr(name, content)


def npz_claims(path: Path, draw: Draw) -> None:
    """A column claims a million million rows."""
    shape = _pick([(10**12, 3), (10**12,), (2**62,), (-1,), (10**9, 10**9, 10**9), (10**10,)], draw)
    column = _pick(["observations", "rewards", "horizon", "metadata"], draw)
    given = {k: v for k, v in columns().items() if k != column}
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in given.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())
        archive.writestr(f"{column}.npy", npy_claiming(shape, _pick(["<f4", "|O", "<U9"], draw)))


def npz_bomb(path: Path, draw: Draw) -> None:
    """Small on disk, large when unpacked."""
    rows = int(draw.choice([10_000_000, 60_000_000]))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        header = npy_claiming((rows, 1))[:-64]
        for name in ("observations", "rewards"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(header)
                for _ in range(rows * 4 // 1_000_000):
                    member.write(bytes(1_000_000))
        for name in ("actions", "terminals"):
            buffer = io.BytesIO()
            np.save(buffer, columns()[name])
            archive.writestr(f"{name}.npy", buffer.getvalue())


def npz_pickles(path: Path, draw: Draw) -> None:
    """Python objects among the columns."""
    kind = int(draw.integers(4))
    if kind == 0:
        given = {**columns(), "rewards": object_array(_Canary())}
        np.savez(path, allow_pickle=True, **given)
    elif kind == 1:
        given = {**columns(), "metadata": object_array(_Canary())}
        np.savez(path, allow_pickle=True, **given)
    elif kind == 2:
        _npz_with(path, "metadata.npy", canary_pickle())
    else:
        path.write_bytes(canary_pickle())


def npz_names(path: Path, draw: Draw) -> None:
    """Members that want to lie elsewhere, or twice in the same place."""
    buffer = io.BytesIO()
    np.save(buffer, columns()["rewards"])
    names = ["../../outside/x.npy", "/tmp/x.npy", "rewards.npy", "a\nb.npy", ".npy", "x" * 60_000]
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _npz_with(path, _pick(names, draw), buffer.getvalue())


def hdf5_claims(path: Path, draw: Draw) -> None:
    """Columns that claim rows that were never written, or values far from what fills a chunk."""
    import h5py

    rows = int(draw.choice([10**7, 10**8, 10**12]))
    given = columns()
    with h5py.File(path, "w") as file:
        for name, array in given.items():
            shape = (rows, *array.shape[1:])
            if draw.random() < 0.5:
                file.create_dataset(name, shape, array.dtype, chunks=(1000, *array.shape[1:]))
            else:
                file.create_dataset(name, shape, array.dtype)


def hdf5_bomb(path: Path, draw: Draw) -> None:
    """Small on disk, large when unpacked."""
    import h5py

    rows = 20_000_000
    with h5py.File(path, "w") as file:
        block = np.zeros(4_000_000, np.float32)
        for name in ("observations", "rewards"):
            made = file.create_dataset(name, (rows,), "f4", chunks=(1_000_000,), compression=1)
            for start in range(0, rows, block.size):
                made[start : start + block.size] = block
        for name in ("actions", "terminals"):
            file.create_dataset(name, data=columns()[name])


def hdf5_planted(path: Path, draw: Draw) -> None:
    """Links and types that lead elsewhere."""
    import h5py

    kind = int(draw.integers(12))
    secret = "../outside/secret.hdf5" if draw.random() < 0.5 else "outside/secret.hdf5"
    with h5py.File(path, "a") as file:
        if kind < 8:
            file.pop("rewards", None)
        if kind == 0:
            file["rewards"] = h5py.ExternalLink(secret, "rewards")
        elif kind == 1:
            file["rewards"] = h5py.SoftLink("/nowhere")
        elif kind == 2:
            file["rewards"] = h5py.SoftLink("/rewards")
        elif kind == 3:
            file.create_dataset("rewards", (ROWS,), "f4", external=[(secret, 0, 4 * ROWS)])
        elif kind == 4:
            layout = h5py.VirtualLayout((ROWS,), "f4")
            layout[:] = h5py.VirtualSource(secret, "rewards", shape=(ROWS,))
            file.create_virtual_dataset("rewards", layout)
        elif kind == 5:
            file.create_dataset("rewards", (ROWS,), h5py.ref_dtype)
        elif kind == 6:
            made = file.create_dataset("rewards", (ROWS,), h5py.vlen_dtype(np.float32))
            made[0] = np.arange(5)
        elif kind == 7:
            group = file.create_group("rewards")
            group["self"] = group
            group["up"] = file["/"]
        elif kind == 8:
            group = file
            for _ in range(3_000):
                group = group.create_group("a")
        elif kind == 9:
            file["metadata/own"] = h5py.ExternalLink(secret, "/")
            file["x/../y" if draw.random() < 0.5 else "ключ"] = 1.0
        elif kind == 10:
            file.pop("rewards")
            file["rewards"] = h5py.Empty("f4")
            file.attrs["headwater_metadata"] = h5py.Empty("f4")
        else:
            file.attrs["headwater_metadata"] = np.frombuffer(canary_pickle(), np.uint8)
            file["metadata/pickle"] = np.void(canary_pickle())


def minari_planted(path: Path, draw: Draw) -> None:
    """Metadata that names code, huge spaces, or other places."""
    file = path / "data" / "metadata.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    kind = int(draw.integers(8))
    if kind == 0:
        specification = {
            "id": "Canary-v0",
            "entry_point": "canary_module:main",
            "additional_wrappers": [
                {"name": "W", "entry_point": "canary_module:main", "kwargs": {}}
            ],
        }
        document["env_spec"] = json.dumps(specification)
    elif kind == 1:
        document["observation_space"] = json.dumps(
            {"type": "Box", "dtype": "float32", "shape": [10**9, 10**3], "low": [0], "high": [1]}
        )
    elif kind == 2:
        document["total_episodes"] = _pick([10**12, -1, "x", 1.5, None], draw)
    elif kind == 3:
        document["data_format"] = _pick(["../x", "canary", "arrow", None, 3], draw)
    elif kind == 4:
        document["env_spec"] = json.dumps({"id": "canary_module:Task-v0"})
        document["headwater"] = json.dumps({"metadata": {"environment": "canary_module:Task-v0"}})
    elif kind == 5:
        space = json.loads(document["action_space"])
        document["action_space"] = json.dumps(spoiled(space, draw), default=str)
    elif kind == 6:
        document["observation_space"] = json.dumps({"type": "Discrete", "n": 10**12, "start": 0})
    else:
        space = document["observation_space"]
        for _ in range(400):
            space = json.dumps({"type": "Tuple", "subspaces": [space]})[:100_000]
        document["observation_space"] = space
    file.write_text(json.dumps(document), encoding="utf-8")


def table_bomb(path: Path, draw: Draw) -> None:
    """Few bytes for many rows."""
    import pyarrow
    import pyarrow.parquet

    rows = 8_000_000
    given = {name: np.zeros(rows, np.float32) for name in ("observations", "actions", "rewards")}
    table = pyarrow.table({**given, "terminals": np.zeros(rows, bool)})
    if path.suffix == ".arrow":
        _write_arrow(table, path, compression="zstd")
    else:
        pyarrow.parquet.write_table(table, path, compression="zstd")


def table_planted(path: Path, draw: Draw) -> None:
    """An extension type that older libraries unpickled, and metadata that is none."""
    import pyarrow
    import pyarrow.parquet

    given = {k: pyarrow.array(list(v)) for k, v in columns().items()}
    table = pyarrow.table(given)
    planted = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": canary_pickle(),
    }
    field = table.schema.field("rewards").with_metadata(planted)
    schema = table.schema.set(table.schema.get_field_index("rewards"), field)
    schema = schema.with_metadata({b"pandas": canary_pickle(), b"headwater": canary_pickle()})
    if draw.random() < 0.5:
        schema = schema.with_metadata({b"headwater": b'{"columns": {"rewards": ["rewards"]}}'})
    table = pyarrow.table(list(given.values()), schema=schema)
    if path.suffix == ".arrow":
        _write_arrow(table, path)
    else:
        pyarrow.parquet.write_table(table, path)


def csv_text(path: Path, draw: Draw) -> None:
    """Rows that are no rows."""
    lines = path.read_text().splitlines()
    kind = int(draw.integers(9))
    at = int(draw.integers(len(lines)))
    if kind == 0:
        lines[at] += ",1,2"
    elif kind == 1:
        lines[at] = '"' + lines[at]
    elif kind == 2:
        lines[at] = lines[at].replace("0", _pick(["nan", "", "inf", "x", "1e400", "\0"], draw), 1)
    elif kind == 3:
        lines[0] = ",".join(f"c{i}" for i in range(20_000))
    elif kind == 4:
        lines[0] = lines[0].replace("reward", "action_0")
    elif kind == 5:
        lines[at] = "9" * 300_000
    elif kind == 6:
        lines = lines[:1]
    elif kind == 7:
        lines[0] = "\ufeff" + lines[0]
    else:
        lines[0] = lines[0].replace("action_0", "[/b]\x1b[2J")
    path.write_text("\n".join(lines), encoding="utf-8")


def declaration(path: Path, draw: Draw) -> None:
    """The file that declares columns says something else."""
    value = _pick(HOSTILE, draw)
    key = _pick(["columns", "horizon", "dones", "action_low", "metadata", "discrete", "x"], draw)
    for old in path.parent.glob("*.columns.*"):
        old.unlink()
    if draw.random() < 0.6:
        document: Any = {key: value}
        if draw.random() < 0.5:
            role = _pick(["observations", "rewards", "terminals", "episodes", "x"], draw)
            document = {"columns": {role: value}}
        text = written(document)
        (path.parent / f"{path.stem}.columns.json").write_text(text, encoding="utf-8")
    else:
        texts = [
            "[columns]\nrewards = 3\n",
            "[columns]\nobservations = ['sensor*']\n",
            "[columns]\nobservations = '*'\n",
            "columns = 1\n",
            "a = " + "[" * 5_000,
            "[columns\n",
            "horizon = nan\n",
            "metadata = 1979-05-27T07:32:00Z\n",
            "action_low = inf\n",
            "[columns]\n!!python/object/apply:os.system ['touch canary']\n",
        ]
        text = _pick(texts, draw)
        (path.parent / f"{path.stem}.columns.toml").write_text(text, encoding="utf-8")


def directory_planted(path: Path, draw: Draw) -> None:
    """Headers that claim too much, objects, and links to other places."""
    file = _pick(sorted(path.glob("*.npy")), draw)
    kind = int(draw.integers(5))
    if kind == 0:
        file.write_bytes(npy_claiming(_pick([(10**12, 3), (38, 10**9), (2**62,), (-5,)], draw)))
    elif kind == 1:
        np.save(file, object_array(_Canary()), allow_pickle=True)
    elif kind == 2:
        file.write_bytes(canary_pickle())
    elif kind == 3:
        outside = path.parent / "outside" / file.name
        outside.write_bytes(file.read_bytes())
        file.unlink()
        file.symlink_to(outside)
    else:
        document = json.loads((path / "dataset.json").read_text())
        document["rows"] = _pick([10**12, -1, "38", 38.5, True, None], draw)
        document["metadata"] = {"environment": "canary_module:Task-v0"}
        (path / "dataset.json").write_text(json.dumps(document))


def run_planted(path: Path, draw: Draw) -> None:
    """A run that names code, or whose files lead elsewhere."""
    file = path / "run.json"
    document = json.loads(file.read_text())
    outside = path.parent / "outside"
    checkpoints = sorted((path / "checkpoints").iterdir())
    kind = int(draw.integers(9))
    if kind == 0:
        document["task"]["name"] = "canary_module:Task-v0"
    elif kind == 1:
        document["method"]["name"] = _pick(["os.system", "canary_module:main", "../x", ""], draw)
    elif kind == 2:
        for log in ("metrics", "evaluations"):
            (outside / f"{log}.jsonl").write_text("precious\n")
            (path / f"{log}.jsonl").unlink()
            (path / f"{log}.jsonl").symlink_to(outside / f"{log}.jsonl")
    elif kind == 3:
        (path / "lock").unlink(missing_ok=True)
        (path / "lock").symlink_to(outside / "made")
    elif kind == 4:
        name = _pick(
            ["00-../../x-000000000004", "٠٠-offline-٠٠٠٠٠٠٠٠٠٠٠٤", "99-x-999999999999"], draw
        )
        with _ignored(OSError):
            checkpoints[-1].rename(path / "checkpoints" / f"{name}.safetensors")
    elif kind == 5:
        checkpoints[-1].write_bytes(canary_pickle())
    elif kind == 6:
        document["seeds"] = _pick([[], list(range(10**5)), [0, 0], [2**70], [-1]], draw)
    elif kind == 7:
        document["method"]["settings"]["hidden_sizes"] = _pick(
            [[10**9], [10**6] * 3, [-1], [1] * 500], draw
        )
    else:
        document["task"]["options"] = _pick(
            [{"mass": "x"}, {"entry_point": "canary_module:main"}, [], {"mass": float("nan")}], draw
        )
    file.write_text(json.dumps(document))


def model_planted(path: Path, draw: Draw) -> None:
    """A model that brings code, claims to be huge, or has an endless chat template."""
    file = path / "config.json"
    document = json.loads(file.read_text())
    kind = int(draw.integers(6))
    if kind == 0:
        document["auto_map"] = {"AutoModelForCausalLM": "canary_module.Canary"}
        document["trust_remote_code"] = True
        (path / "canary_module.py").write_text("open('canary', 'w')")
        file.write_text(json.dumps(document))
    elif kind == 1:
        name = _pick([k for k, v in document.items() if isinstance(v, int)], draw)
        document[name] = _pick([10**9, 10**15, 2**70, 10**6], draw)
        file.write_text(json.dumps(document))
    elif kind == 2:
        (path / "model.safetensors").rename(path / "pytorch_model.bin")
        (path / "pytorch_model.bin").write_bytes(canary_pickle())
    elif kind == 3:
        weights = {"a": "../outside/secret.safetensors", "b": "/nonexistent/x.safetensors"}
        (path / "model.safetensors").unlink()
        index = {"weight_map": _pick([weights, {}, [], {"a": 3}, {"a": "a\0b"}], draw)}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
    elif kind == 4:
        templates = [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{% set n = namespace(x='a') %}{% for a in range(40) %}"
            "{% set n.x = n.x ~ n.x %}{% endfor %}",
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "{{ cycler.__init__.__globals__.os.system('touch canary') }}",
            "{% include '/nonexistent' %}",
            "{% import 'os' as os %}",
            "{{ 'a' * 10 ** 9 }}",
            "{{ messages[99].x.y }}",
            "{{ 1 / 0 }}",
            "{{ raise_exception(3) }}",
            "{{ 7 ** 7 ** 7 ** 7 }}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{{ strftime_now(3) }}",
            "{{ '%s%s' % 1 }}",
            "{{ messages | map(attribute='__class__') | list }}",
            "{" * 5000,
            "{{ " + "(" * 5000,
        ]
        (path / "chat_template.jinja").write_text(_pick(templates, draw))
    else:
        name = _pick(["tokenizer.json", "tokenizer_config.json"], draw)
        text = (path / name).read_text() if (path / name).exists() else "{}"
        (path / name).write_text(written(spoiled(json.loads(text), draw)), encoding="utf-8")


def text_rows(path: Path, draw: Draw) -> None:
    """Rows that are no such rows."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix != ".jsonl":
        return bytes_damaged(path, draw)
    row = json.loads(lines[int(draw.integers(len(lines)))])
    name = _pick(sorted(row), draw)
    row[name] = _pick(
        [
            *HOSTILE,
            [{"role": "user"}],
            [{"role": "wizard", "content": "x"}],
            [{"role": "user", "content": ["x"]}],
            [{"role": ["user"], "content": "x"}],
            [{"role": {"a": 1}, "content": "x"}],
            "x" * 100_000,
            "\u0000" * 10,
        ],
        draw,
    )
    lines[int(draw.integers(len(lines)))] = written(row)
    path.write_text("\n".join(lines), encoding="utf-8")


# All --------------------------------------------------------------------------------------------

_ANY: tuple[Callable[[Path, Draw], None], ...] = (
    bytes_damaged,
    bytes_damaged,
    bytes_damaged,
    bytes_damaged,
    replaced,
)
_OWN: dict[str, tuple[Callable[[Path, Draw], None], ...]] = {
    "npz": (npz_columns, npz_columns, npz_columns, npz_claims, npz_pickles, npz_names),
    "npz_compressed": (npz_columns, npz_claims),
    "hdf5": (hdf5_columns, hdf5_columns, hdf5_claims, hdf5_planted),
    "hdf5_compressed": (hdf5_columns, hdf5_planted),
    "minari": (json_damaged, minari_planted),
    "minari_arrow": (json_damaged, minari_planted),
    "minari_parquet": (json_damaged, minari_planted),
    "parquet": (table_columns, table_columns, table_planted),
    "arrow": (table_columns, table_columns, table_planted),
    "declared": (declaration, table_columns),
    "csv": (csv_text, declaration, json_damaged),
    "parquet_files": (),
    "npz_padded": (),
    "hdf5_numbered": (),
    "hdf5_groups": (),
    "text_dialect": (declaration, json_damaged),
    "column_directory": (json_damaged, directory_columns, directory_planted),
    "run": (json_damaged, json_damaged, tensors, run_planted),
    "model": (json_damaged, tensors, model_planted),
    "reward_run": (json_damaged, tensors),
    "completions": (text_rows, json_damaged),
    "conversations": (text_rows, json_damaged),
    "comparisons": (text_rows, json_damaged),
    "completions_parquet": (),
    "book": (),
    "process": (process_arrays, process_arrays),
    "finite_process": (process_arrays, process_arrays),
    "finite_episodes": (process_arrays, process_arrays),
    "finite_comparisons": (process_arrays, process_arrays),
    "finite_table": (),
    "claim_records": (json_damaged, json_damaged),
}
_BOMBS: dict[str, Callable[[Path, Draw], None]] = {
    "npz_compressed": npz_bomb,
    "hdf5_compressed": hdf5_bomb,
    "parquet": table_bomb,
    "arrow": table_bomb,
}
"""These take a second to make, and are drawn seldom."""


def make(kind: str, number: int, folder: Path, *, bombs: float = 0.02) -> tuple[str, Path]:
    """Case `number` of a kind, in the empty `folder`: what was done to it, and the path to read.

    **Arguments:** `bombs`: how often to draw what is large when unpacked.
    """
    draw = np.random.default_rng([sorted(SEEDS).index(kind), number])
    outside = folder / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret\n")
    path = SEEDS[kind](folder)
    if kind in _BOMBS and draw.random() < bombs:
        _BOMBS[kind](path, draw)
        return _BOMBS[kind].__name__, path
    own = _OWN[kind]
    chosen = _pick(own if own and draw.random() < 0.5 else _ANY, draw)
    chosen(path, draw)
    return chosen.__name__, path


def _pick(values: Any, draw: Draw) -> Any:
    return values[int(draw.integers(len(values)))]


class _ignored:
    """Lets the making of a case fail where a format cannot hold what was drawn."""

    def __init__(self, *kinds: type[BaseException]):
        self.kinds = kinds

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace) -> bool:
        return kind is not None and issubclass(kind, self.kinds)
