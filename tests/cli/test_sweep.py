"""`headwater sweep`, as a person gives it."""

import json
import os
import re
import signal
import time

import pytest

from headwater.api.sweeps import member as sweep_run
from headwater.api.sweeps import sweep as verb
from headwater.sweeps.workers import AbstractWorkers, Ended

from .asking import ask, begin, done, write_log

TABLE = """
methods = ["IQL", "TD3BC"]
datasets = ["log.npz"]
environment = "pendulum"
updates = 4
batch_size = 8
evaluations = 1
episodes = 2
seeds = 3

[grid]
hidden_sizes = [8, 8]

[grid.IQL]
expectile = [0.7, 0.9]
"""
RUNS = ["IQL-log-expectile=0.7-hidden_sizes=8x8", "IQL-log-expectile=0.9-hidden_sizes=8x8"]
RUNS += ["TD3BC-log-hidden_sizes=8x8"]


class Faked(AbstractWorkers):
    """Carries runs out in this process, but for one, which is lost."""

    def __init__(self, kept, lost: str):
        self._kept, self._lost, self._over = kept, lost, {}

    @property
    def description(self):
        return "in this process"

    def free(self):
        return not self._over

    def start(self, name):
        ended = Ended("killed", "memory may have run out")
        if name != self._lost:
            ended = sweep_run.carry_out(str(self._kept.path), self._kept.token, name)
        self._over[name] = ended

    def ended(self):
        over, self._over = self._over, {}
        return over

    def stop(self):
        pass


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a log and a table in it."""
    write_log(tmp_path / "log.npz")
    (tmp_path / "table.toml").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sweep_says_what_came_out_and_what_failed(folder, monkeypatch):
    lost = [RUNS[1]]
    monkeypatch.setattr(verb, "_workers", lambda kept, *_: Faked(kept, lost[0]))
    answer = ask("sweep", "table.toml", "--retries", 1)
    assert answer.status == 1
    shown = [re.split(r" {2,}", line.strip()) for line in answer.out.splitlines()]
    assert shown[2] == ["method", "dataset", "expectile", "seeds", "return", "normalised"]
    rows = shown[4:7]
    assert [row[:4] for row in rows] == [
        ["IQL", "log", "0.7", "3"],
        ["IQL", "log", "0.9", "0 of 3"],
        ["TD3BC", "log", "3", rows[2][3]],
    ]
    assert rows[1][4:] == ["failed"] and re.fullmatch(r"-[\d,]+ \[-[\d,]+, -[\d,]+\]", rows[0][4])
    assert answer.out.splitlines()[-1] == f"{RUNS[1]} failed: memory may have run out"
    # On a slow machine, it says in between how far it is.
    lines = answer.err.splitlines()
    assert [line for line in lines if not re.match(r"sweep: \d+ of 12 updates", line)] == [
        "3 runs; in this process",
        "sweep: 12 updates",
        f"  {RUNS[0]}: done (1 of 3)",
        f"  {RUNS[1]}: killed: memory may have run out; again (1 of 3)",
        f"  {RUNS[2]}: done (2 of 3)",
        f"  {RUNS[1]}: killed: memory may have run out (3 of 3)",
    ]
    lost[0] = ""
    answer = ask("resume", "sweeps/table", "--env", "pendulum")
    expected = "what a sweep learns from is in its table: leave out --env, --reward and --judge"
    assert answer.err == f"error: {expected}\n"
    answer = ask("resume", "sweeps/table", "--json")
    assert answer.status == 0 and answer.err == ""
    found = json.loads(answer.out)
    assert found["sweep"] == "sweeps/table" and found["failures"] == {}
    assert [row["name"] for row in found["rows"]] == RUNS
    assert [row["state"] for row in found["rows"]] == ["done"] * 3
    again = ask("sweep", "table.toml")
    assert again.status == 0 and again.err == "" and "failed" not in again.out


def test_a_table_that_is_wrong_is_refused_in_one_sentence(folder):
    (folder / "table.toml").write_text(TABLE.replace("expectile", "expectil"))
    answer = ask("sweep", "table.toml")
    assert (answer.status, answer.out) == (1, "")
    assert answer.err.startswith(
        "error: table.toml: [grid.IQL] IQL: unknown hyper-parameter 'expectil': did you mean "
        "expectile"
    )
    assert len(answer.err.splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["log.npz", "table.toml"]
    answer = ask("sweep", "table.toml", "--on", "cloud")
    assert answer.status == 2 and "--on: unknown value 'cloud'" in answer.err


def test_an_interrupted_sweep_ends_at_once_and_goes_on(folder, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    text = TABLE.replace("updates = 4", "updates = 600").replace('"IQL", ', "")
    text = text.replace("evaluations = 1", "evaluations = 30").partition("[grid.IQL]")[0]
    (folder / "table.toml").write_text(text)
    process = begin("sweep", "table.toml", "--jobs", 1, folder=folder)
    run = folder / "sweeps" / "table" / "runs" / RUNS[2]
    file, deadline = run / "evaluations.jsonl", time.monotonic() + 120
    while not file.is_file() or len(file.read_text().splitlines()) < 6:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    log = (folder / "sweeps" / "table" / "logs" / f"{RUNS[2]}.log").read_text()
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 2.0
    assert process.returncode == 130 and out == "" and "Traceback" not in err
    assert err.endswith(
        "\ninterrupted; continue with the same command, or with `headwater resume sweeps/table`\n"
    )
    worker = int(log.split("process ")[1].split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    made = len(file.read_text().splitlines())
    assert "TD3BC" in done("resume", "sweeps/table")
    lines = file.read_text().splitlines()
    assert len(lines) == 31 * 3 and made < len(lines)
