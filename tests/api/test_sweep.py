"""Sweeps: what becomes of a table, what goes on, what fails, and what must not change."""

import json
import os
import signal
import threading
import time

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import headwater as hw
from headwater.api.sweeps import member as sweep_run
from headwater.api.sweeps import sweep as verb
from headwater.api.sweeps.sweep import members_of
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.core.hypotheses import FiniteTask
from headwater.datasets.finite_files import write_process
from headwater.datasets.write import write
from headwater.environments.processes import make_process
from headwater.evaluation.statistics import interval, seed_means
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.hugging_face import write_decoder
from headwater.ops import products
from headwater.runs.directory import RunDirectory
from headwater.sweeps.directory import SweepDirectory
from headwater.sweeps.table import read_table
from headwater.sweeps.workers import AbstractWorkers, Ended
from headwater.texts.tokenizers import ByteTokenizer

from .problems import assert_same, cart_pole_log, pendulum_log

SMALL = {"updates": 6, "batch_size": 8, "evaluations": 1, "episodes": 2, "seeds": 3}
TABLE = {
    "methods": ["TD3BC"],
    "datasets": ["log.parquet"],
    "grid": {"hidden_sizes": [8], "alpha": [1.0, 2.0]},
    **SMALL,
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A folder with a log of `pendulum` and one of `cart-pole`."""
    folder = tmp_path_factory.mktemp("logs")
    write(pendulum_log(), folder / "log.parquet", "parquet")
    write(cart_pole_log(), folder / "poles.parquet", "parquet")
    return folder


@pytest.fixture
def folder(logs, monkeypatch):
    """The folder of the logs, which tables are relative to."""
    monkeypatch.chdir(logs)
    return logs


class InTurn(AbstractWorkers):
    """Carries out one run after the other in this process; counts, and fails when told to."""

    def __init__(self):
        self.kept: SweepDirectory | None = None
        self.started: list[str] = []
        self.failing: dict[str, list[Ended]] = {}
        self.stopped = 0
        self._over: dict[str, Ended] = {}

    @property
    def description(self):
        return "in turn"

    def free(self):
        return not self._over

    def start(self, name):
        self.started.append(name)
        if self.failing.get(name):
            self._over[name] = self.failing[name].pop(0)
            return
        assert self.kept is not None
        self._over[name] = sweep_run.carry_out(str(self.kept.path), self.kept.token, name)

    def ended(self):
        over, self._over = self._over, {}
        return over

    def stop(self):
        self.stopped += 1


@pytest.fixture
def workers(monkeypatch):
    """Stands in for the processes of a sweep."""
    made = InTurn()

    def begin(kept, *_):
        made.kept = kept
        return made

    monkeypatch.setattr(verb, "_workers", begin)
    return made


def names(table) -> list[str]:
    """The runs that a table makes."""
    return [member.name for member in verb.members_of(read_table(table))]


def final(path):
    """The arrays of the newest checkpoint."""
    return load_file(max((path / "checkpoints").iterdir()))


# What a table means -------------------------------------------------------------------------------


def test_names_tell_the_runs_apart(folder):
    assert names(TABLE) == [
        "TD3BC-log-alpha=1.0-hidden_sizes=8",
        "TD3BC-log-alpha=2.0-hidden_sizes=8",
    ]
    split = {**TABLE, "seeds": 3, "seeds_per_run": 2, "grid": {"hidden_sizes": [8]}}
    assert names(split) == [
        "TD3BC-log-hidden_sizes=8-seeds=0-1",
        "TD3BC-log-hidden_sizes=8-seeds=2",
    ]
    assert names({**split, "seeds": [7, 3]}) == ["TD3BC-log-hidden_sizes=8-seeds=7+3"]


def test_a_method_that_only_acts_is_beside_the_datasets(folder):
    table = {
        "methods": ["SAC", "RLPD", "BC"],
        "datasets": {"a": "log.parquet", "b": "log.parquet"},
        "environment": "pendulum",
        "updates": 5,
        "steps": 40,
        "block": 10,
        "grid": {"hidden_sizes": [8]},
    }
    assert names(table) == [
        "RLPD-a-hidden_sizes=8",
        "BC-a-hidden_sizes=8",
        "RLPD-b-hidden_sizes=8",
        "BC-b-hidden_sizes=8",
        "SAC-hidden_sizes=8",
    ]


def test_a_run_is_asked_for_what_training_alone_would_be(folder):
    member = verb.members_of(read_table(TABLE))[1]
    method = hw.build_method("TD3BC", {"hidden_sizes": [8], "alpha": 2.0})
    alone = hw.train(method, "log.parquet", **SMALL, out=folder / "alone", progress=False)
    stored = json.loads((folder / "alone" / "run.json").read_text())
    assert alone.specification.seeds == [0, 1, 2]
    del stored["made_with"]
    assert json.loads(json.dumps(member.specification)) == stored


def test_methods_that_act_and_others_share_a_table(folder):
    table = {**TABLE, "methods": ["TD3BC", "SAC"], "environment": "pendulum", "steps": 12}
    table |= {"grid": {"hidden_sizes": [[8, 8]]}}
    found = {m.name: m.specification["options"] for m in verb.members_of(read_table(table))}
    logged, acting = (found[name] for name in sorted(found, key=lambda name: "SAC" in name))
    assert logged["updates"] == SMALL["updates"] != acting["updates"]
    assert acting["steps"] == 12 != logged["steps"]


REFUSED = {
    "method that acts": (
        {"methods": ["SAC"], "datasets": [], "updates": None},
        "the table: SAC: SAC learns online, from what it does and not from a log: give it an "
        "environment",
    ),
    "no data": (
        {"datasets": []},
        "the table: TD3BC: TD3BC learns from logged experience: give it data",
    ),
    "other actions": (
        {"datasets": ["poles.parquet"], "environment": "cart-pole"},
        "the table: TD3BC on poles: TD3BC",
    ),
    "other spaces": (
        {"environment": "cart-pole"},
        "the table: TD3BC on log: the data does not fit the environment cart-pole: ",
    ),
    "unknown environment": ({"environment": "pendulm"}, "did you mean pendulum"),
    "an option called name": (
        {"environment": "pendulum", "environment_options": {"name": "x"}},
        "the table: pendulum: unknown option 'name': known options are gravity",
    ),
    "an option that no file can hold": (
        {"environment": "pendulum", "environment_options": {"mass": float("nan")}},
        "the table: pendulum: option mass = nan must be a number",
    ),
    "too many runs": (
        {"seeds": 10_000, "seeds_per_run": 1},
        "this makes 20,000 runs; at most 10,000 are swept",
    ),
    "unknown option": (
        {"environment": "pendulum", "environment_options": {"mas": 2.0}},
        "the table: pendulum: unknown option 'mas': did you mean mass",
    ),
    "no such precision": (
        {"precision": "float8"},
        "the table: TD3BC on log: unknown precision 'float8'",
    ),
    "no seeds": ({"seeds": 0}, "the table: seeds = 0: give how many"),
    "no updates": ({"updates": 0}, "the table: TD3BC on log: updates = 0: it must be at least 1"),
    "a bad rate": (
        {"grid": {"learning_rate": [-1.0]}},
        "TD3BC.learning_rate = -1.0: it must be at least 0",
    ),
    "seeds per run": ({"seeds_per_run": 0}, "seeds_per_run = 0: it must be at least 1"),
    "steps": ({"steps": 9}, "steps is for methods with acting options, and there is none"),
    "top": ({"datasets": [], "top": 0.5}, "top is for datasets, and there is none"),
    "too wide a top": ({"top": 1.5}, "the table: TD3BC on log: fraction = 1.5 is not in (0, 1]"),
    "weights": ({"weights": "returns"}, "unknown weights 'returns': did you mean return"),
    "no use of data": (
        {"methods": ["SAC"], "environment": "pendulum", "updates": None},
        "no method learns from datasets: leave them out, or add one that does",
    ),
    "updates": (
        {"methods": ["SAC"], "environment": "pendulum", "datasets": []},
        "updates is for methods that do not act: say steps instead",
    ),
    "rows of a process": (
        {
            "methods": ["UCBVI"],
            "process": "river-swim",
            "datasets": [],
            "updates": None,
            "grid": {},
        },
        "batch_size is for methods that draw rows: leave it out",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_not_run_is_refused_before_anything_does(case, folder, tmp_path):
    changed, sentence = REFUSED[case]
    table = {k: v for k, v in {**TABLE, **changed}.items() if v is not None}
    if "SAC" in table["methods"]:
        table["grid"] = {}
    with pytest.raises(SpecificationError) as refusal:
        hw.sweep(table, out=tmp_path / "sweep")
    assert sentence in str(refusal.value) and "\n" not in str(refusal.value)
    assert not (tmp_path / "sweep").exists()


def test_arguments_are_refused_in_words(folder, tmp_path):
    for how, sentence in (
        ({"on": "loca"}, "unknown place 'loca': did you mean local"),
        ({"jobs": 0}, "jobs = 0: it must be at least 1"),
        ({"retries": -1}, "retries = -1: it must be at least 0"),
        ({"address": "a:1"}, "an address is that of a Ray cluster: sweep on ray"),
        ({"out": None}, "a table that is no file needs a directory: give out"),
    ):
        with pytest.raises(SpecificationError) as refusal:
            hw.sweep(TABLE, **{"out": tmp_path / "sweep", **how})
        assert sentence in str(refusal.value)
    (tmp_path / "something").mkdir()
    (tmp_path / "something" / "else").write_text("")
    with pytest.raises(RunError, match="already exists and is not empty: choose another name"):
        hw.sweep(TABLE, out=tmp_path / "something")
    with pytest.raises(RunError, match="something is no sweep: it has no sweep"):
        hw.sweep(tmp_path / "something")
    with pytest.raises(DataError, match="the table: datasets: there is no file or directory"):
        hw.sweep({**TABLE, "datasets": ["none.parquet"]}, out=tmp_path / "sweep")


def test_ray_is_named_where_it_is_missing(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(SpecificationError) as refusal:
        hw.sweep(TABLE, out=tmp_path / "sweep", on="ray")
    assert str(refusal.value) == (
        "sweeping on ray needs Ray: pip install 'headwater[ray]' (here and on every machine)"
    )


# Carrying it out ----------------------------------------------------------------------------------


def test_a_precision_that_this_machine_has_not_is_refused_at_once(folder, tmp_path, monkeypatch):
    members = verb.members_of(read_table({**TABLE, "precision": "bfloat16"}))
    assert {member.specification["options"]["precision"] for member in members} == {"bfloat16"}
    monkeypatch.setattr(products, "_has_matrix_units", lambda: False)
    with pytest.raises(SpecificationError, match="no matrix units"):
        hw.sweep({**TABLE, "precision": "bfloat16"}, out=tmp_path / "sweep", progress=False)
    assert not list((tmp_path / "sweep" / "runs").glob("*"))


def test_a_failure_stops_no_other_and_the_rest_is_not_repeated(folder, tmp_path, workers):
    one, other = names(TABLE)
    killed = Ended("killed", "the process was ended by SIGKILL")
    workers.failing = {one: [killed, killed, Ended("refused", "its data are gone")]}
    found = hw.sweep(TABLE, out=tmp_path / "sweep", retries=5, progress=False)
    # Tried again where that may help, after the others.
    assert workers.started == [one, other, one, one] and workers.stopped == 1
    assert not found.complete and found.failures == {one: "its data are gone"}
    assert [(row.state, row.seeds, row.requested) for row in found.rows] == [
        ("failed", 0, 3),
        ("done", 3, 3),
    ]
    assert found.rows[0].message == "its data are gone" and found.rows[0].score is None
    rows = [json.loads(x) for x in (tmp_path / "sweep" / "failures.jsonl").read_text().splitlines()]
    assert [(r["run"], r["attempt"], r["kind"]) for r in rows] == [
        (one, 1, "killed"),
        (one, 2, "killed"),
        (one, 3, "refused"),
    ]

    before = (tmp_path / "sweep" / "runs" / other / "evaluations.jsonl").stat().st_mtime_ns
    workers.started.clear()
    found = hw.sweep(tmp_path / "sweep", progress=False)
    assert workers.started == [one] and found.complete and found.failures == {}
    assert (tmp_path / "sweep" / "runs" / other / "evaluations.jsonl").stat().st_mtime_ns == before
    workers.started.clear()
    assert hw.sweep(TABLE, out=tmp_path / "sweep", progress=False).complete
    assert workers.started == []


def test_a_run_whose_newest_checkpoint_is_damaged_is_not_done(folder, tmp_path, workers):
    table = {**TABLE, "grid": {"hidden_sizes": [8]}, "seeds": 1}
    hw.sweep(table, out=tmp_path / "sweep", progress=False)
    (name,) = workers.started
    (run,) = (tmp_path / "sweep" / "runs").iterdir()
    (newest,) = (run / "checkpoints").iterdir()
    newest.write_bytes(newest.read_bytes()[:-1])
    found = hw.sweep(table, out=tmp_path / "sweep", retries=0, progress=False)
    # Nothing that can be read is left of it, and nothing is thrown away unasked.
    assert not found.complete and "not a readable checkpoint" in found.failures[name]
    newest.unlink()
    assert hw.sweep(table, out=tmp_path / "sweep", progress=False).complete


def test_a_run_is_given_up_after_so_many_retries(folder, tmp_path, workers):
    one, other = names(TABLE)
    workers.failing = {one: [Ended("failed", f"for the {i}th time") for i in range(9)]}
    found = hw.sweep(TABLE, out=tmp_path / "sweep", retries=1, progress=False)
    assert workers.started == [one, other, one]
    assert found.failures == {one: "for the 1th time"}


def test_a_run_that_diverges_fails_alone_and_is_not_tried_again(folder, tmp_path, workers):
    grid = {"hidden_sizes": [8], "learning_rate": [3e-4, 1e30]}
    found = hw.sweep({**TABLE, "grid": grid}, out=tmp_path / "sweep", progress=False)
    assert [row.state for row in found.rows] == ["done", "failed"]
    assert len(workers.started) == 2
    assert "diverged by update" in found.rows[1].message
    assert "diverged by update" in (tmp_path / "sweep" / "failures.jsonl").read_text()


def test_whatever_goes_wrong_in_a_run_is_kept(folder, tmp_path, workers, monkeypatch):
    def wrong(*_, **__):
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(sweep_run, "_begin_or_resume", wrong)
    table = {**TABLE, "grid": {"hidden_sizes": [8]}}
    found = hw.sweep(table, out=tmp_path / "sweep", retries=0, progress=False)
    assert found.failures == {"TD3BC-log-hidden_sizes=8": "ZeroDivisionError: of all things"}
    log = (tmp_path / "sweep" / "logs" / "TD3BC-log-hidden_sizes=8.log").read_text()
    assert "Traceback" in log and "of all things" in log


def test_a_finite_process_is_swept_by_name(tmp_path, workers):
    table = {
        "methods": ["UCBVI"],
        "process_options": {"horizon": 3},
        "steps": 12,
        "evaluations": 1,
        "seeds": 2,
    }
    scores = []
    for name in ("river-swim", "combination-lock"):
        out = tmp_path / name
        (row,) = hw.sweep({**table, "process": name}, out=out, progress=False).rows
        assert (row.name, row.state, row.seeds, row.score.seeds) == ("UCBVI", "done", 2, 2)
        scores.append(row.score.point)
    assert workers.started == ["UCBVI", "UCBVI"] and scores[0] != scores[1]
    how = {name: table[name] for name in ("steps", "evaluations", "seeds")}
    lock = make_process("combination-lock", horizon=3)
    alone = hw.train("UCBVI", process=lock, **how, progress=False)
    assert_same(alone, hw.open_run(tmp_path / "combination-lock" / "runs" / "UCBVI"))
    # Another process is another meaning of the run that has the same name.
    for changed, said in (
        ({"process": "combination-lock"}, "process = river-swim, .* now says combination-lock"),
        (
            {"process_options": {"horizon": 3, "states": 4}},
            "process_options.states = nothing, .* says 4",
        ),
    ):
        with pytest.raises(RunError, match=f"was begun with {said}: put it back"):
            hw.sweep({**table, "process": "river-swim", **changed}, out=tmp_path / "river-swim")


def test_several_processes_are_swept(tmp_path, workers):
    write_process(tmp_path / "mine.npz", FiniteTask.of(make_process("river-swim", horizon=4), None))
    table = {
        "methods": ["UCBVI", "SAC"],
        "process": ["river-swim", "combination-lock", str(tmp_path / "mine.npz")],
        "process_options": {"horizon": 3},
        "environment": "pendulum",
        "steps": 12,
        "evaluations": 1,
        "seeds": 1,
    }
    found = members_of(read_table(table))
    # What does not look at processes is not repeated for each of them.
    assert [(m.name, m.process) for m in found] == [
        ("UCBVI-river-swim", "river-swim"),
        ("UCBVI-combination-lock", "combination-lock"),
        ("UCBVI-mine", "mine"),
        ("SAC", None),
    ]
    table |= {"methods": ["UCBVI"], "process": table["process"][:2]}
    del table["environment"]
    rows = hw.sweep(table, out=tmp_path / "sweep", progress=False).rows
    assert [(row.process, row.state) for row in rows] == [
        ("river-swim", "done"),
        ("combination-lock", "done"),
    ]
    how = {name: table[name] for name in ("steps", "evaluations", "seeds")}
    lock = make_process("combination-lock", horizon=3)
    alone = hw.train("UCBVI", process=lock, **how, progress=False)
    run = hw.open_run(tmp_path / "sweep" / "runs" / "UCBVI-combination-lock")
    assert_same(alone, run)


@pytest.mark.parametrize(
    "process, said",
    [
        ([], "process = .* must be a text, or a list of them"),
        (3, "process = 3 must be a text, or a list of them"),
        (["a/x.npz", "b/x.npz"], "process: 'b/x.npz' gives runs the name of 'a/x.npz': rename"),
        (["river-swim", "river-swam"], "UCBVI in river-swam: .* did you mean river-swim"),
    ],
)
def test_processes_that_cannot_be_swept(tmp_path, process, said):
    table = {"methods": ["UCBVI"], "process": process, "steps": 12, "seeds": 1}
    with pytest.raises(SpecificationError, match=said):
        hw.sweep(table, out=tmp_path / "sweep")


def test_a_language_model_is_swept(tmp_path, workers):
    architecture = Architecture(264, 32, width=8, layers=1, heads=1, hidden=16, tied=True)
    write_decoder(Decoder(architecture, key=jax.random.key(0)), tmp_path / "model", end=257)
    ByteTokenizer().write(tmp_path / "model")
    rows = [json.dumps({"prompt": f"{a}+", "completion": f"{a}"}) for a in range(8)]
    (tmp_path / "sums.jsonl").write_text("\n".join(rows))
    table = {
        "methods": ["SFT"],
        "datasets": [str(tmp_path / "sums.jsonl")],
        "model": str(tmp_path / "model"),
        "updates": 3,
        "batch_size": 4,
        "evaluations": 1,
        "held_out": "0.25",
        "grid": {"learning_rate": [0.01]},
    }
    found = hw.sweep(table, out=tmp_path / "sweep", progress=False)
    (row,) = found.rows
    assert (row.name, row.state, row.seeds) == ("SFT-sums-learning_rate=0.01", "done", 1)
    method = hw.build_method("SFT", {"learning_rate": 0.01})
    how = {key: table[key] for key in ("updates", "batch_size", "evaluations", "held_out")}
    alone = hw.train(
        method, tmp_path / "sums.jsonl", model=tmp_path / "model", **how, progress=False
    )
    assert_same(alone, hw.open_run(tmp_path / "sweep" / "runs" / row.name))
    assert (tmp_path / "sweep" / "runs" / row.name / "model").is_dir()
    both = {"reward": ["exact-match", "exact-match"], "reward_weights": [1.0]}
    judged = {**table, **both, "methods": ["GRPO"], "samples": 2, "new_tokens": 2}
    with pytest.raises(SpecificationError, match="of 2 rewards, give a finite number for each"):
        hw.sweep(judged, out=tmp_path / "judged", progress=False)


def test_rows_hold_the_returns_of_all_their_seeds(folder, tmp_path, workers):
    table = {**TABLE, "grid": {"hidden_sizes": [8]}, "seeds": 4, "seeds_per_run": 3}
    found = hw.sweep(table, out=tmp_path / "sweep", progress=False)
    (row,) = found.rows
    assert (row.name, row.seeds, row.requested) == ("TD3BC-log-hidden_sizes=8", 4, 4)
    returns = []
    for name in workers.started:
        text = (tmp_path / "sweep" / "runs" / name / "evaluations.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        returns += [r["returns"] for r in rows if r["update"] == 6]
    assert row.score == interval(seed_means(np.asarray(returns)))
    assert row.normalised is not None and row.normalised.point < 50
    assert json.loads(json.dumps(found.to_json()))["rows"][0]["score"]["seeds"] == 4


def test_more_rows_may_be_added_and_old_ones_left_out(folder, tmp_path, workers, capsys):
    out = tmp_path / "sweep"
    first = {**TABLE, "grid": {"hidden_sizes": [8], "alpha": [1.0]}}
    hw.sweep(first, out=out, progress=False)
    workers.started.clear()
    capsys.readouterr()
    found = hw.sweep(TABLE, out=out, progress=True)
    assert f"1 run added to the sweep in {out}\n" in capsys.readouterr().err
    assert workers.started == ["TD3BC-log-alpha=2.0-hidden_sizes=8"]
    assert len(found.rows) == 2
    found = hw.sweep(first, out=out, progress=True)
    assert "1 run no longer in the table: what there is of them stays" in capsys.readouterr().err
    assert len(found.rows) == 1 and len(list((out / "runs").iterdir())) == 2


def test_what_was_begun_keeps_its_meaning(folder, tmp_path, workers):
    out = tmp_path / "sweep"
    hw.sweep(TABLE, out=out, progress=False)
    kept = (out / "sweep.json").read_bytes()
    begun = out / "runs" / "TD3BC-log-alpha=1.0-hidden_sizes=8"
    for changed, sentence in (
        ({"updates": 7}, "updates = 6, and the table now says 7"),
        ({"seeds": 4}, "seeds = [0, 1, 2], and the table now says [0, 1, 2, 3]"),
        ({"top": 0.5}, "top = nothing, and the table now says 0.5"),
        (
            {"environment": "pendulum", "environment_options": {"mass": 2}},
            "environment_options.mass = 1.0, and the table now says 2.0",
        ),
        ({"environment": "none"}, "environment = pendulum, and the table now says nothing"),
    ):
        with pytest.raises(RunError) as refusal:
            hw.sweep({**TABLE, **changed}, out=out)
        assert str(refusal.value) == (
            f"{begun} was begun with {sentence}: put it back, or give another directory"
        )
    assert (out / "sweep.json").read_bytes() == kept


def test_options_that_are_left_out_are_others(folder, tmp_path, workers):
    out, name = tmp_path / "sweep", "TD3BC-log-hidden_sizes=8"
    plain = {**TABLE, "grid": {"hidden_sizes": [8]}, "environment": "Pendulum-v1", "episodes": 1}
    heavy = {**plain, "environment_options": {"g": 5}}
    hw.sweep(heavy, out=out, progress=False)
    with pytest.raises(RunError) as refusal:
        hw.sweep(plain, out=out)
    assert str(refusal.value) == (
        f"{out / 'runs' / name} was begun with environment_options.g = 5, and the table now says "
        "nothing: put it back, or give another directory"
    )


def test_data_that_changed_are_other_data(folder, tmp_path, workers):
    log, out = tmp_path / "log.parquet", tmp_path / "sweep"
    write(pendulum_log(), log, "parquet")
    table = {**TABLE, "grid": {"hidden_sizes": [8]}, "datasets": [str(log)]}
    hw.sweep(table, out=out, progress=False)
    log.unlink()
    write(pendulum_log(marked=True), log, "parquet")
    with pytest.raises(RunError) as refusal:
        hw.sweep(table, out=out, progress=False)
    assert str(refusal.value) == (
        f"{out / 'runs' / 'TD3BC-log-hidden_sizes=8'} was begun with other data than {log} "
        "holds now: restore it, or give another directory"
    )


def test_of_two_that_begin_a_sweep_at_once_one_does(folder, tmp_path, monkeypatch):
    members = verb.members_of(read_table(TABLE))
    first = SweepDirectory.create(tmp_path / "sweep", members)
    kept = (tmp_path / "sweep" / "sweep.json").read_bytes()
    # The second had looked before the first was there.
    monkeypatch.setattr(RunDirectory, "refuse", lambda path: None)
    with pytest.raises(RunError, match="another process is writing to this sweep"):
        SweepDirectory.create(tmp_path / "sweep", members)
    first.unlock()
    with pytest.raises(RunError, match="another process has just begun a sweep there"):
        SweepDirectory.create(tmp_path / "sweep", members)
    assert (tmp_path / "sweep" / "sweep.json").read_bytes() == kept
    SweepDirectory.open(tmp_path / "sweep").lock()


def test_a_sweep_killed_before_its_table_was_written_begins_again(folder, tmp_path):
    members = verb.members_of(read_table(TABLE))
    out = tmp_path / "sweep"
    out.mkdir()
    for name in ("lock", ".sweep.json.x7f3.part"):
        (out / name).write_text("")
    SweepDirectory.create(out, members).unlock()
    assert SweepDirectory.open(out).members == members
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.part").write_text("")
    with pytest.raises(RunError, match="already exists and is not empty"):
        SweepDirectory.create(tmp_path / "other", members)


def test_one_process_at_a_time_carries_out_a_sweep(folder, tmp_path, workers):
    hw.sweep(TABLE, out=tmp_path / "sweep", progress=False)
    held = SweepDirectory.open(tmp_path / "sweep")
    held.lock()
    with pytest.raises(RunError, match="another process is writing to this sweep"):
        hw.sweep(TABLE, out=tmp_path / "sweep")
    held.unlock()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"format": "headwater sweep 2"}',
        '{"format": "headwater sweep 1", "token": "\\ud800", "runs": []}',
        '{"format": "headwater sweep 1", "token": "x", "runs": [{"name": "x"}]}',
    ],
)
def test_a_damaged_table_is_refused(content, tmp_path):
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(RunError, match="this is not the table of a sweep"):
        hw.open_sweep(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/x", "..", "a/b", ""])
def test_names_of_runs_do_not_lead_elsewhere(name, folder, tmp_path, workers):
    hw.sweep({**TABLE, "grid": {"hidden_sizes": [8]}}, out=tmp_path / "sweep", progress=False)
    file = tmp_path / "sweep" / "sweep.json"
    stored = json.loads(file.read_text())
    stored["runs"][0]["name"] = name
    file.write_text(json.dumps(stored))
    with pytest.raises(RunError, match="is no name of a run"):
        hw.sweep(tmp_path / "sweep", progress=False)


# Processes ----------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_nothing_is_lost(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    table = {
        **TABLE,
        "grid": {"hidden_sizes": [8]},
        "updates": 2_000,
        "evaluations": 20,
        "seeds": 2,
    }
    (name,) = names(table)
    whole = hw.sweep(table, out=tmp_path / "whole", progress=False)
    cut = tmp_path / "cut"
    found: list = []
    sweeping = threading.Thread(
        target=lambda: found.append(hw.sweep(table, out=cut, progress=False))
    )
    sweeping.start()
    file, deadline = cut / "runs" / name / "evaluations.jsonl", time.monotonic() + 120
    while not file.is_file() or len(file.read_text().splitlines()) < 8:
        assert sweeping.is_alive() and time.monotonic() < deadline
        time.sleep(0.002)
    log = (cut / "logs" / f"{name}.log").read_text()
    os.kill(int(log.split("process ")[1].split()[0]), signal.SIGKILL)
    sweeping.join(timeout=120)
    (row,) = (cut / "failures.jsonl").read_text().splitlines()
    assert json.loads(row)["message"].startswith("the process was ended by SIGKILL")
    assert found[0].complete and found[0].rows == whole.rows
    one, other = (final(tmp_path / each / "runs" / name) for each in ("whole", "cut"))
    assert one.keys() == other.keys() and len(one) > 10
    for array in one:
        np.testing.assert_array_equal(one[array], other[array], strict=True, err_msg=array)
