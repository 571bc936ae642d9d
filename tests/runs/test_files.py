"""Files that survive crashes, full disks and forbidden places."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from headwater.core.errors import RunError
from headwater.runs import checkpoint, files
from headwater.runs import directory as directory_module
from headwater.runs.directory import RunDirectory

from .tiny import assert_same, finish, stages

PLACE = {"stage": "a", "stage_index": 0, "update": 1, "environment_steps": 0}


def _full(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full_in_rust(*arguments, **options):
    raise SafetensorError("Error while serializing: I/O error: No space left (os error 28)")


@pytest.mark.parametrize(
    "module, name, failure",
    [(files.os, "fsync", _full), (checkpoint, "save_file", _full_in_rust)],
    ids=("fsync", "safetensors"),
)
def test_a_full_disk_is_explained_and_the_run_can_go_on(
    module, name, failure, tmp_path, monkeypatch
):
    whole = finish(stages("replay"))
    directory = RunDirectory.create(tmp_path / "run", {})
    with monkeypatch.context() as patch:
        patch.setattr(module, name, failure)
        with pytest.raises(RunError, match="the disk is full; free some room and resume"):
            finish(stages("replay"), directory=directory)
    left = directory.checkpoints.iterdir() if directory.checkpoints.exists() else ()
    assert list(left) == [], "no half-written file is left"
    assert_same(whole, finish(stages("replay"), directory=directory))


def test_a_log_that_cannot_grow_is_explained(tmp_path, monkeypatch):
    directory = RunDirectory.create(tmp_path / "run", {})
    monkeypatch.setattr(directory_module, "no_link", _full)
    with pytest.raises(RunError, match=r"evaluations\.jsonl: the disk is full"):
        finish(stages("replay"), directory=directory)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    files.write_json(path, {"a": 1})

    def fails_half_way(temporary):
        temporary.write_text("{")
        raise OSError(errno.EIO, "broken")

    with pytest.raises(RunError, match="broken"):
        files.write_atomically(path, fails_half_way)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_a_place_that_cannot_be_written_is_explained(tmp_path, monkeypatch):
    def forbidden(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", forbidden)
        with pytest.raises(RunError, match="cannot be written; choose another or change its perm"):
            RunDirectory.create(tmp_path / "run", {})
    with monkeypatch.context() as patch:
        patch.setattr(files.tempfile, "mkstemp", forbidden)
        with pytest.raises(RunError, match="cannot be written"):
            RunDirectory.create(tmp_path / "run", {})


def test_a_file_in_the_way_is_explained(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="file/run: there is a file where a directory"):
        RunDirectory.create(tmp_path / "file" / "run", {})


def test_nothing_is_overwritten(tmp_path):
    RunDirectory.create(tmp_path / "run", {"name": "first"})
    with pytest.raises(RunError, match=r"headwater resume .*run` or choose another name"):
        RunDirectory.create(tmp_path / "run", {"name": "second"})
    assert RunDirectory.open(tmp_path / "run").specification["name"] == "first"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="is not empty: choose another name"):
        RunDirectory.create(tmp_path / "other", {})
    with pytest.raises(RunError, match=r"is no run: it has no run\.json"):
        RunDirectory.open(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    RunDirectory.create(tmp_path / "empty", {})


def test_a_damaged_specification_is_explained(tmp_path):
    directory = RunDirectory.create(tmp_path / "run", {})
    (directory.path / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json: not readable"):
        _ = directory.specification


def test_a_run_says_what_it_ran_on(tmp_path):
    environment = RunDirectory.create(tmp_path / "run", {}).specification["made_with"]
    assert environment["versions"]["jax"] and environment["device"].startswith("cpu")


# Checkpoints ------------------------------------------------------------------------------------


def test_arrays_come_back_with_their_shapes_and_types(tmp_path):
    arrays = {
        "scalar": np.asarray(3),
        "flag": np.asarray([True, False]),
        "empty": np.zeros((0, 3), np.float32),
        "bits": np.asarray([1, 2**32 - 1], np.uint32),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "nan": np.asarray([np.nan, -0.0, np.inf], np.float32),
    }
    position = checkpoint.Position(2, "a-b", 17)
    path = checkpoint.save(tmp_path, position, {"method": arrays, "source": {}})
    assert checkpoint.find(tmp_path) == [position]
    read = checkpoint.read(path)
    assert read["source"] == {}
    for name, array in arrays.items():
        assert read["method"][name].shape == array.shape
        assert read["method"][name].dtype == array.dtype
        assert read["method"][name].tobytes() == array.tobytes()


def test_what_does_not_fit_is_named():
    template = {"a": np.zeros(3, np.float32), "b": np.zeros((), np.int32)}
    good = checkpoint.flatten(template)
    restored = checkpoint.restore(template, good, "file")
    assert restored["b"].shape == ()
    a, b = good
    for arrays, message in (
        ({a: good[a]}, r"file: array '\['b'\]' is missing"),
        ({**good, "c": good[a]}, "file: unexpected array 'c'"),
        ({**good, a: np.zeros(4, np.float32)}, r"is float32\[4\] where float32\[3\] is needed"),
        ({**good, b: np.zeros((), np.int64)}, r"is int64\[\] where int32\[\] is needed"),
    ):
        with pytest.raises(RunError, match=message):
            checkpoint.restore(template, arrays, "file")


def test_a_written_file_may_be_read_as_any_other(tmp_path):
    files.write_json(tmp_path / "a.json", {})
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ("metrics.jsonl", "evaluations.jsonl", "lock"))
def test_nothing_is_written_through_a_link(name, tmp_path):
    directory = RunDirectory.create(tmp_path / "run", {})
    (tmp_path / "precious").write_text("years of work")
    (directory.path / name).symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match=f"{name}: there is a link to another place|run: there is"):
        directory.lock()
        directory.append(name.removesuffix(".jsonl"), [{}])
    assert (tmp_path / "precious").read_text() == "years of work"
    assert len(list(tmp_path.iterdir())) == 2
    directory.unlock()


@pytest.mark.parametrize(
    "line",
    (
        "{",
        "[]",
        "3",
        '{"stage": "a"}',
        '{"stage_index": "0", "update": 1, "environment_steps": 0}',
        json.dumps({**PLACE, "updates_per_second": 1.0, "metrics": {"loss": [1.0]}}),
        json.dumps({**PLACE, "seed": 0.5, "returns": [1.0]}),
        json.dumps({**PLACE, "seed": 0, "returns": [[1.0]]}),
        json.dumps({**PLACE, "seed": 0, "returns": [1.0], "update": 2**70}),
    ),
)
def test_a_damaged_row_is_left_out_at_the_end_and_named_elsewhere(line, tmp_path):
    directory = RunDirectory.create(tmp_path / "run", {})
    finish(stages("replay"), directory=directory)
    file = directory.path / "evaluations.jsonl"
    whole = file.read_text()
    rows = directory.rows("evaluations")
    file.write_text(whole + line)
    assert directory.rows("evaluations") == rows
    file.write_text(line + "\n" + whole)
    with pytest.raises(RunError, match=r"evaluations.jsonl, line 1: this is no row of a run"):
        directory.rows("evaluations")
