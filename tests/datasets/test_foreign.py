"""What is not read is told what it is, and how it becomes something that is."""

import pickle
import struct
import zipfile

import numpy as np
import pytest

from headwater.core.errors import DataError
from headwater.datasets.read import load


def refusal(path):
    with pytest.raises(DataError) as error:
        load(path)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text
    # Only what is broken is called so.
    assert "corrupt" not in text and "download it again" not in text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("log.db", b"SQLite format 3\0" + bytes(99), "this is an SQLite database: read the table"),
        (
            "log.parquet",
            b"Obj\x01\x04\x14avro.codec",
            "this is an Avro file: pandas.DataFrame(fast",
        ),
        ("log.parquet", b"ORC\x0a\x03", "this is an ORC file: pyarrow.orc.read_table reads it"),
        ("log.feather", b"FEA1" + bytes(20), "this is a Feather file of version 1"),
        ("log.parquet", b"PARE" + bytes(20), "this is an encrypted Parquet file"),
        ("log.xls", bytes.fromhex("d0cf11e0a1b11ae1"), "this is an Excel workbook: save the sheet"),
        ("a.bag", b"#ROSBAG V2.0\n", "this is a bag of ROS 1: its messages have times and no"),
        ("a.mcap", b"\x89MCAP0\r\n", "this is an MCAP recording: its messages have times and no"),
        ("a.mat", b"MATLAB 5.0 MAT-file, Platform", "this is a MATLAB file: scipy.io.loadmat"),
        (
            "log.npz",
            b"version https://git-lfs.github.com/spec/v1\n",
            "this is a pointer of Git LFS",
        ),
        ("log.hdf5", b"<!DOCTYPE html><html></html>", "this is a web page: if you meant a file"),
        ("log.html", b"<table><tr><td>1</td></tr></table>", "this is a table in HTML: pandas.read"),
        ("log.dta", b"<stata_dta><header>", "this is a file of Stata: pandas.read_stata reads it"),
        ("log.RDS", b"\x1f\x8b\x08" + bytes(9), "this is a file of R: there, arrow::write_parquet"),
        ("log.yaml", b"- action: 1\n", "this is a YAML file: pandas.DataFrame(yaml.safe_load"),
        ("log.csv.zst", b"\x28\xb5\x2f\xfd" + bytes(9), "this is a zstd archive: unpack it first"),
        ("log.npz.gz", b"\x1f\x8b\x08" + bytes(9), "this is a gzip archive, of which only text"),
        (
            "a.tfrecord-00000-of-00001",
            struct.pack("<Q", 4) + bytes(4 + 4 + 4),
            "this is one of the TFRecord files, as RLDS and TensorFlow Datasets write them",
        ),
        (
            "events.out.tfevents.1",
            struct.pack("<Q", 4) + bytes(12),
            "this is a log of TensorBoard: it has curves of a training and no transitions",
        ),
        (
            "buffer.pt",
            pickle.dumps({"a": 1}),
            "this is a file of PyTorch: pickles are never loaded",
        ),
        ("buffer.pkl", b"(dp0\n.", "this is a pickle: pickles are never loaded because they can"),
    ],
)
def test_files(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith(sentence)


@pytest.mark.parametrize("name", ["log.xlsx", "buffer.pt"])
def test_a_broken_archive_is_not_called_another(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(99))
    with pytest.raises(DataError, match=r"this \.(xlsx|pt) file, .* is truncated or corrupt"):
        load(tmp_path / name)


@pytest.mark.parametrize(
    "member, sentence",
    [
        ("[Content_Types].xml", "this is an Excel workbook"),
        ("archive/data.pkl", "this is a file of PyTorch, which is a pickle: pickles are never"),
        ("policy.pth", "this is a policy of Stable-Baselines3 and no log"),
        (".zgroup", "this is a Zarr store: zarr.open(PATH, mode='r') reads its arrays"),
        ("episode.csv", "this is a ZIP archive without arrays: unpack it first"),
    ],
)
def test_archives(tmp_path, member, sentence):
    path = tmp_path / "log.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "x")
    assert refusal(path).startswith(sentence)


@pytest.mark.parametrize(
    "files, sentence",
    [
        ((".zgroup", "data/.zarray"), "this is a Zarr store"),
        (("zarr.json",), "this is a Zarr store"),
        (("data.mdb", "lock.mdb"), "this is an LMDB database"),
        (("metadata.yaml", "a_0.mcap"), "this is a bag of ROS 2"),
        (("dataset_info.json", "a-train.tfrecord-00000-of-00001"), "this directory holds TFRecord"),
        (("1.0.0/a-train.tfrecord-00000-of-00001",), "this directory holds TFRecord"),
        (
            ("episode-2/monitor/observations.csv", "episode-2/monitor/agent_actions.csv"),
            "this is a log of sinergym, with a file for each of observations (one row more than "
            "steps), actions and rewards, as in episode-2/monitor: for each episode, join",
        ),
        (
            ("observations.csv", "agent_actions.csv", "rewards.csv"),
            "this is a log of sinergym, with a file for each of observations (one row more than "
            "steps), actions and rewards, as in this directory: for each episode, join",
        ),
    ],
)
def test_directories(tmp_path, files, sentence):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"a,b\n1,2\n")
    assert refusal(tmp_path).startswith(sentence)


def test_a_single_array(tmp_path):
    np.save(tmp_path / "rewards.npy", np.zeros(5))
    assert refusal(tmp_path / "rewards.npy").startswith(
        "this is a single array of shape [5], and a log needs several: save them together"
    )
