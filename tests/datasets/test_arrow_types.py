"""Tables keep the same values in many types of Arrow: all are read alike."""

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from headwater.core.errors import DataError
from headwater.datasets.read import load, load_blocks

ROWS = 6
REWARDS = [1.25, -2.5, 0.0, 3.75, 4.0, -1.5]
OBSERVATIONS = np.arange(2.0 * ROWS).reshape(ROWS, 2)


def columns():
    return {
        "observations": pa.array(OBSERVATIONS.tolist()),
        "actions": pa.array([0, 1, 0, 1, 1, 0]),
        "rewards": pa.array(REWARDS),
        "terminated": pa.array([False, False, True, False, False, True]),
        "episode": pa.array(["a", "a", "a", "b", "b", "b"]),
    }


def check(data):
    np.testing.assert_array_equal(data.observations, OBSERVATIONS)
    assert data.rewards.tolist() == REWARDS and data.actions.tolist() == [0, 1, 0, 1, 1, 0]
    assert np.flatnonzero(data.terminals).tolist() == [2, 5] and not data.truncations.any()


FLAGS = ["no", "no", "yes", "no", "no", "yes"]
EXACT = [decimal.Decimal(str(reward)) for reward in REWARDS]
TENSORS = pa.FixedShapeTensorArray.from_numpy_ndarray(OBSERVATIONS)


@pytest.mark.parametrize(
    "name, values",
    [
        ("rewards", pa.array(EXACT, pa.decimal128(6, 2))),
        ("rewards", pa.array(REWARDS).dictionary_encode()),
        ("terminated", pa.array(FLAGS, pa.large_string())),
        ("terminated", pa.array(FLAGS).dictionary_encode()),
        ("terminated", pa.array(FLAGS, pa.string_view())),
        ("episode", pa.array(list("aaabbb"), pa.large_string()).dictionary_encode()),
        ("episode", pa.array(list("aaabbb"), pa.string_view())),
        ("observations", pa.array(OBSERVATIONS.tolist(), pa.large_list(pa.float32()))),
        ("observations", pa.array(OBSERVATIONS.tolist(), pa.list_view(pa.float64()))),
        ("observations", pa.array(OBSERVATIONS.tolist(), pa.large_list_view(pa.float64()))),
        (
            "observations",
            pa.array(OBSERVATIONS.astype(int).tolist(), pa.list_(pa.decimal128(6, 2))),
        ),
        (
            "observations",
            pa.array(OBSERVATIONS.astype(int).tolist(), pa.list_(pa.decimal128(6, 2), 2)),
        ),
        ("observations", TENSORS),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.type)[:30],
)
def test_types_of_columns(tmp_path, name, values):
    table = pa.table(columns() | {name: values})
    with pa.ipc.new_file(tmp_path / "log.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    check(load(tmp_path / "log.arrow"))
    blocks = list(load_blocks(tmp_path / "log.arrow", 1))
    assert [block.size for block in blocks] == [3, 3]


def test_what_is_no_number_keeps_its_name(tmp_path):
    for values, said in (
        (pa.array([b"ab"] * ROWS), "column 'observations' has type binary"),
        (pa.array([[("a", 1.0)]] * ROWS, pa.map_(pa.string(), pa.float64())), "'observations' has"),
    ):
        path = tmp_path / "log.parquet"
        pyarrow.parquet.write_table(pa.table(columns() | {"observations": values}), path)
        with pytest.raises(DataError, match=said):
            load(path)


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_streams_as_hugging_face_writes_them(tmp_path, compression):
    folder = tmp_path / "log"
    folder.mkdir()
    table = pa.table(columns())
    options = pa.ipc.IpcWriteOptions(compression=compression)
    path = folder / "data-00000-of-00001.arrow"
    with pa.ipc.new_stream(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=4)
    (folder / "dataset_info.json").write_text('{"features": {}}')
    (folder / "state.json").write_text('{"_data_files": []}')
    for place in (path, folder):
        check(load(place))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="stream file is truncated or corrupt"):
        load(path)
