"""`headwater query`, as a person gives it."""

import json

import pytest

from .asking import TINY, ask, done, write_log


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one run in it."""
    folder = tmp_path_factory.mktemp("query")
    write_log(folder / "log.npz")
    train = ("train", "BC", "-d", folder / "log.npz", "--env", "none", "--seeds", 1, *TINY)
    done(*train, "--updates", 2, "-o", folder / "runs" / "bc")
    return folder


def test_runs_are_listed(folder):
    lines = [line.split() for line in done("query", folder).splitlines() if line.strip()]
    assert lines[0] == ["run", "method", "dataset", "seeds", "updates", "finished"]
    assert lines[2:] == [["bc", "BC", "log", "1", "2", "True"]]
    (row,) = json.loads(done("query", folder / "runs" / "bc", "--json"))
    assert row["settings"]["hidden_sizes"] == [8] and row["score"] is None


def test_a_question(folder):
    pytest.importorskip("duckdb")
    text = (
        "SELECT sum(seeds) n, 'nan'::DOUBLE x, 1.5::DECIMAL(3,1) y, DATE '2020-01-01' z FROM runs"
    )
    assert json.loads(done("query", folder, "--sql", text, "--json")) == [
        {"n": 1, "x": None, "y": 1.5, "z": "2020-01-01"}
    ]
    assert "1 " in done("query", folder, "-q", "SELECT seeds a, seeds a FROM runs")
    answer = ask("query", folder, "-q", "SELECT seeds a, seeds a FROM runs", "--json")
    assert answer.err == "error: two columns are called 'a': tell them apart with AS\n"
    answer = ask("query", folder, "-q", "SELECT 'infinity'::DATE")
    assert answer.status == 1 and "a date that no calendar has" in answer.err
    # What a file holds is no command for the terminal.
    assert "\\x1b[2J" in done("query", folder, "-q", "SELECT 'a' || chr(27) || '[2J' FROM runs")
    answer = ask("query", folder, "--sql", "SELECT x FROM runs")
    assert answer.status == 1
    assert answer.err.startswith("error: DuckDB says of this question: Binder Error: ")


def test_a_folder_without_runs(tmp_path):
    assert ask("query", tmp_path).err == f"error: {tmp_path} holds no run\n"
