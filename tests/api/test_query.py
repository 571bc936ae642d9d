"""Numbers of many runs, as tables and by SQL."""

import json
import shutil
import sys

import numpy as np
import pytest

import headwater as hw
from headwater.core.errors import RunError, SpecificationError
from headwater.evaluation.statistics import interval, seed_means

from .problems import pendulum_log

SMALL = {"updates": 4, "batch_size": 8, "evaluations": 2, "episodes": 2, "seeds": [0, 5]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs of two methods, one of which was not evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    log = pendulum_log(name="mine")
    hw.train(hw.TD3BC(hidden_sizes=(8,), alpha=1.0), log, out=folder / "a", progress=False, **SMALL)
    hw.train(hw.TD3BC(hidden_sizes=(8,)), log, out=folder / "below" / "b", progress=False, **SMALL)
    hw.train(hw.BC(hidden_sizes=(8,)), log, env="none", out=folder / "c", progress=False, **SMALL)
    return folder


def rows(folder, name: str) -> list[dict]:
    """What a run logged."""
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_runs_are_listed_with_their_scores(folder):
    found = hw.query(folder).to_pylist()
    assert [row["run"] for row in found] == ["a", "b", "c"]
    last = [row["returns"] for row in rows(folder, "a/evaluations.jsonl") if row["update"] == 4]
    score = interval(seed_means(np.asarray(last)))
    assert {k: found[0][k] for k in ("method", "task", "seeds", "updates", "finished")} == {
        "method": "TD3BC",
        "task": "pendulum",
        "seeds": 2,
        "updates": 4,
        "finished": True,
    }
    assert (found[0]["score"], found[0]["low"]) == (score.point, None)
    assert found[2]["score"] is None and found[2]["task"] is None
    assert found[0]["settings"]["alpha"] == 1.0 and found[0]["settings"]["hidden_sizes"] == [8]
    assert found[1]["settings"]["alpha"] == 2.5 and found[2]["settings"]["alpha"] is None


def test_questions_in_sql(folder):
    pytest.importorskip("duckdb")
    table = hw.query(
        folder, "SELECT run, settings.alpha a FROM runs WHERE a IS NOT NULL ORDER BY a"
    )
    assert table.to_pylist() == [{"run": "a", "a": 1.0}, {"run": "b", "a": 2.5}]
    text = (
        "SELECT seed, episode, value FROM evaluations WHERE run = 'b' AND update = 2 ORDER BY ALL"
    )
    by_hand = [
        {"seed": row["seed"], "episode": i, "value": value}
        for row in rows(folder, "below/b/evaluations.jsonl")
        if row["update"] == 2
        for i, value in enumerate(row["returns"])
    ]
    assert len(by_hand) == 4 and hw.query(folder, text).to_pylist() == by_hand
    text = "SELECT value FROM metrics WHERE run='c' AND update=3 AND seed=5 AND name='actor_loss'"
    (row,) = [row for row in rows(folder, "c/metrics.jsonl") if row["update"] == 3]
    assert hw.query([folder / "c"], text).to_pylist() == [
        {"value": row["metrics"]["actor_loss"][1]}
    ]


REFUSED = {
    "SELEC 1": "syntax error",
    "SELECT * FROM run": "Table with name run does not exist! Did you mean",
    "SELECT * FROM read_text('{folder}/a/run.json')": "file system operations are disabled",
    "COPY runs TO '{folder}/out.csv'": "file system operations are disabled",
    "SET enable_external_access = true": "locked",
    "SELECT * FROM names": "Table with name names does not exist",
    "": "this question asks for nothing: begin it with SELECT",
}


@pytest.mark.parametrize("text", REFUSED)
def test_questions_that_are_refused(text, folder):
    pytest.importorskip("duckdb")
    with pytest.raises(SpecificationError) as refusal:
        hw.query(folder, text.format(folder=folder) + (" -- runs" if text else ""))
    assert REFUSED[text] in str(refusal.value) and "\n" not in str(refusal.value)
    assert not (folder / "out.csv").exists()


def test_a_run_whose_returns_do_not_match_is_named(folder, tmp_path):
    shutil.copytree(folder / "a", tmp_path / "a")
    file = tmp_path / "a" / "evaluations.jsonl"
    *others, last = rows(tmp_path, "a/evaluations.jsonl")
    last["returns"] *= 2
    file.write_text("".join(json.dumps(row) + "\n" for row in (*others, last)))
    with pytest.raises(RunError, match=r"a: evaluations\.jsonl does not have as many"):
        hw.query(tmp_path)


def test_settings_may_be_anything_that_a_file_holds(folder, tmp_path):
    for name, settings in (("a", {}), ("b", {"discount": 2**80})):
        stored = json.loads((folder / "a" / "run.json").read_text())
        stored["method"]["settings"] = settings
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(stored))
    assert hw.query(tmp_path / "a").to_pylist()[0]["settings"] == {}
    found = hw.query(tmp_path).to_pylist()
    assert [row["settings"]["discount"] for row in found] == [None, str(2**80)]


def test_runs_of_the_same_name_are_told_apart(folder, tmp_path):
    shutil.copytree(folder / "below" / "b", tmp_path / "a")
    (tmp_path / "link").symlink_to(folder / "a", target_is_directory=True)
    # A link is the run that it leads to, and one that is given twice is one.
    given = [folder / "a", tmp_path / "a", folder / "a", tmp_path / "link"]
    found = hw.query(given).to_pylist()
    assert [row["run"] for row in found] == [str(folder / "a"), str(tmp_path / "a")]


def test_where_there_is_no_run(folder, tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        hw.query(tmp_path)
    with pytest.raises(RunError, match="there is no directory"):
        hw.query([folder, tmp_path / "none"])


def test_duckdb_is_named_where_it_is_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert hw.query(folder).num_rows == 3
    with pytest.raises(SpecificationError) as refusal:
        hw.query(folder, "SELECT 1")
    assert str(refusal.value) == "questions in SQL need DuckDB: pip install 'headwater[duckdb]'"
