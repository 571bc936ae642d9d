"""What cannot be done is said in one sentence: what, where, and what to do. Nothing is changed."""

import json
import os
import shutil

import numpy as np
import pytest

from headwater.runs.directory import RunDirectory

from .asking import TINY, ask, done, write_log


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Logs that are wrong in one way each, and a run of two updates."""
    folder = tmp_path_factory.mktemp("refusals")
    write_log(folder / "good.npz")
    whole = (folder / "good.npz").read_bytes()
    (folder / "short.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.npz").write_bytes(b"")
    (folder / "noise.parquet").write_bytes(b"PAR1" + b"noise" * 99)
    (folder / "noise.hdf5").write_bytes(b"noise" * 99)
    (folder / "noise.arrow").write_bytes(b"ARROW1" + b"noise" * 99)
    (folder / "a.pkl").write_bytes(b"\x80\x04K\x01.")
    (folder / "ragged.csv").write_text("observations,actions,rewards,terminals\n1,2,3,0\n1,2\n")
    (folder / "empty").mkdir()
    observations = np.zeros((40, 3))
    observations[7, 1] = np.nan
    write_log(folder / "nan.npz", observations=observations)
    rewards = np.zeros(40)
    rewards[3] = np.inf
    write_log(folder / "inf.npz", rewards=rewards)
    write_log(folder / "unrewarded.npz", rewards=None)
    write_log(folder / "endless.npz", terminals=None, truncations=None)
    write_log(folder / "uneven.npz", rewards=np.zeros(30))
    write_log(folder / "objects.npz", rewards=np.array([None] * 40, object))
    names = ("observations", "actions", "next_observations")
    rowless = {name: np.zeros((0, 1)) for name in names}
    flags = {name: np.zeros(0, bool) for name in ("terminals", "truncations")}
    write_log(folder / "rowless.npz", **rowless, **flags, rewards=np.zeros(0))
    write_log(folder / "wild.npz", actions=np.full((40, 1), 7.0))
    train = ("train", "IQL", "-d", folder / "good.npz", "--env", "none", "--seeds", 1)
    done(*train, "--updates", 2, *TINY, "-o", folder / "run")
    return folder


def listing(folder):
    """Every file below `folder` and when it was written."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(folder, arguments: str, monkeypatch) -> str:
    """What is said of a command that cannot be done, with nothing changed by it."""
    monkeypatch.chdir(folder)
    before = listing(folder)
    answer = ask(*arguments.split())
    assert (answer.status, answer.out) == (1, ""), answer
    lines = answer.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and "Traceback" not in answer.err
    assert listing(folder) == before
    return lines[0]


FILES = {
    "short.npz": "short.npz: this .npz file is truncated or corrupt",
    "empty.npz": "empty.npz: the file is empty: copy or download it again",
    "noise.parquet": "noise.parquet: this parquet file is truncated or corrupt",
    "noise.hdf5": "noise.hdf5: the content is not that of a .hdf5 file",
    "noise.arrow": "noise.arrow: this arrow file is truncated or corrupt",
    "a.pkl": "pickles are never loaded",
    "ragged.csv": "ragged.csv: it is no table with columns separated by commas",
    "empty": "this directory is neither a column directory (dataset.json) nor",
    "nan.npz": "nan.npz: observations holds nan at row 7, component 1",
    "inf.npz": "inf.npz: rewards holds inf at row 3",
    "endless.npz": "no column says where the process ended (terminals)",
    "uneven.npz": "rewards has 30 rows but observations has 40",
    "objects.npz": "array 'rewards' holds Python objects (a pickle)",
    "rowless.npz": "the data has no rows",
    "wild.npz": "actions holds 7 at row 0, component 0, outside the bounds -2 to 2",
    "god.npz": "there is no file or directory 'god.npz'",
}


@pytest.mark.parametrize("name", FILES)
def test_data(folder, name, monkeypatch):
    assert FILES[name] in refused(folder, f"data describe {name}", monkeypatch)
    assert FILES[name] in refused(folder, f"data convert {name} new.npz", monkeypatch)
    assert FILES[name] in refused(folder, f"train BC -d {name} -o new", monkeypatch)


TRAIN = "train IQL -d good.npz --env none -o new "
ACT = "train SAC --env pendulum --steps 50 -o new "
ADAPT = "adapt run --env pendulum -o new "
COLLECT = "data collect pendulum -o new "


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train IQQL -d good.npz", "unknown method 'IQQL': did you mean IQL"),
        ("train IQL -o new", "IQL learns from logged experience: give it data"),
        (
            "train IQL -d unrewarded.npz --env none -o new",
            "unrewarded.npz: IQL needs rewards, and no column is recognised as them: say which one",
        ),
        ("train BC -d unrewarded.npz --env none --top 0.5 -o new", "the data has no rewards"),
        ("train SAC -o new", "and not from a log: give it an environment"),
        ("train SAC -d good.npz -o new", "and not from a log: leave out data"),
        ("train RLPD --env pendulum -o new", "RLPD learns online and from a log: give it data"),
        ("train DiscreteCQL -d good.npz -o new", "DiscreteCQL needs discrete actions"),
        (
            "train IQL -d good.npz --env pendulom",
            "unknown environment 'pendulom': did you mean pen",
        ),
        (
            "train IQL -d good.npz --env cart-pole",
            "the data does not fit the environment cart-pole",
        ),
        ("train IQL -d good.npz --env-option mass=2", "--env-option needs --env"),
        ("train IQL -d good.npz --env pendulum --env-option mss=2", "unknown option 'mss'"),
        ("train IQL -d good.npz --env pendulum --env-option mass=big", "'big' must be a number"),
        ("train IQL -d good.npz -o run", "run already exists and is not empty: continue it with"),
        ("train IQL -d good.npz -o good.npz", "good.npz already exists and is not empty"),
        ("train IQL -d good.npz -o good.npz/new", "a file where a directory is needed"),
        (
            TRAIN + "--set hidden_size=8",
            "unknown hyper-parameter 'hidden_size': did you mean hidden_sizes?",
        ),
        (TRAIN + "--set hidden_sizes", "'hidden_sizes' is not of the form NAME=VALUE"),
        (TRAIN + "--set hidden_sizes=wide", "IQL.hidden_sizes = 'wide' is not of type int"),
        (
            TRAIN + "--set hidden_sizes=0",
            "IQL.hidden_sizes = [0]: every layer needs at least one unit",
        ),
        (TRAIN + "--set discount=2", "IQL.discount = 2.0: it must lie between 0 and 1"),
        (TRAIN + "--set learning_rate=-1", "learning_rate = -1.0: it must be at least 0"),
        (TRAIN + "--set expectile=nan", "IQL.expectile = nan: it must be a number"),
        (TRAIN + "--seeds 0", "seeds = 0: give how many"),
        (TRAIN + "--seeds 99999999999", "at most 10,000 are trained at once"),
        (TRAIN + "--seed -1", "seed = -1: it must be at least 0"),
        (TRAIN + "--seed 99999999999", "seed = 99999999999: it must lie between 0 and"),
        (TRAIN + "--updates 0", "updates = 0: it must be at least 1"),
        (TRAIN + "--batch-size -3", "batch_size = -3: it must be at least 1"),
        (TRAIN + "--evaluations 0", "evaluations = 0: it must be at least 1"),
        (TRAIN + "--episodes -1", "episodes = -1: it must be at least 1"),
        (TRAIN + "--top 0", "fraction = 0.0 is not in (0, 1]"),
        (
            TRAIN + "--weights return --weight-temperature 0",
            "temperature = 0.0 must be positive",
        ),
        (TRAIN + "--from-disk", "only a column directory can stay on disk"),
        (ACT + "--steps 0", "steps = 0: it must be at least 1"),
        (ACT + "--random-steps 60", "50 environment steps leave none to learn from"),
        (ACT + "--random-steps -1", "random_steps = -1: it must be at least 0"),
        (ACT + "--block 0", "block = 0: it must be at least 1"),
        ("adapt run -o new", "give an environment: the offline run was not evaluated in any"),
        ("adapt empty --env pendulum", "empty is no run: it has no run.json"),
        ("adapt run --env cart-pole -o new", "the run does not fit the environment cart-pole"),
        (ADAPT + "--steps -5", "steps = -5: it must be at least 1"),
        (ADAPT + "--updates-per-step 0", "updates_per_step = 0: it must be at least 1"),
        (ADAPT + "-r scratch --data good.npz", "the recipe 'scratch' uses no log: leave out data"),
        (ADAPT + "--set foo=1", "unknown hyper-parameter 'foo'"),
        ("resume nowhere", "nowhere is no run: there is nothing of that name"),
        ("resume good.npz", "good.npz is no run: it has no run.json"),
        ("evaluate run", "run: give an environment to act in, or data to judge from"),
        ("evaluate run --env pendulum --episodes 0", "episodes = 0: at least one is needed"),
        ("evaluate run --env pendulum --seed -1", "seed = -1: it must be at least 0"),
        ("evaluate run --env cart-pole", "run does not fit cart-pole"),
        ("evaluate run --data good.npz --estimators guess", "unknown estimator 'guess'"),
        ("compare run", "run was never evaluated"),
        ("compare run --target nan", "target = nan: it must be a return, a finite number"),
        ("compare run --horizon 5", "horizon says how a file is read, and no data is given: leave"),
        ("compare", "0 runs are called nothing: give at least one run"),
        ("export nowhere", "nowhere is no run"),
        ("export run -f safetensors -o good.npz/new", "a file where a directory is needed"),
        ("data convert good.npz good.npz", "good.npz is both source and target"),
        ("data convert good.npz new.xyz", "'new.xyz' does not say in which format to write"),
        ("data convert good.npz nowhere/new.npz", "the directory nowhere does not exist"),
        ("data convert good.npz new.npz --column obs=x", "unknown role of a column 'obs'"),
        ("data convert good.npz new.npz --horizon 0", "horizon is 0: a time limit is at least one"),
        (COLLECT + "--steps 0", "steps = 0: it must be at least 1"),
        (COLLECT + "--transitions -4", "transitions = -4: it must be at least 1"),
        (COLLECT + "--snapshots 1", "snapshots = 1: it must be at least 2"),
        (COLLECT + "--medium 2", "medium = 2.0 must lie between 0 (random) and 1 (the best)"),
        (COLLECT + "--method DQN", "DQN needs discrete actions"),
        (COLLECT + "--set foo=1", "SAC: unknown hyper-parameter 'foo'"),
    ],
)
def test_request(folder, arguments, sentence, monkeypatch):
    assert sentence in refused(folder, arguments, monkeypatch)
    assert not (folder / "new").exists()


def test_another_process_is_writing(folder, tmp_path, monkeypatch):
    shutil.copytree(folder / "run", tmp_path / "run")
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        checkpoint.unlink()
    other = RunDirectory.open(tmp_path / "run")
    other.lock()
    try:
        answer = ask("resume", tmp_path / "run")
    finally:
        other.unlock()
    assert answer.status == 1
    assert answer.err.endswith("run: another process is writing to this run\n")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda text: text[:50], "run.json: not readable"),
        (lambda text: "", "run.json: not readable"),
        (lambda text: "[1, 2]", "run"),
        (lambda text: json.dumps({"verb": "train"}), "this is not the specification of a run"),
        (lambda text: text.replace('"IQL"', '"IQQL"'), "unknown method 'IQQL': did you mean IQL"),
        (lambda text: text.replace('"spaces"', '"space"'), "run"),
        (lambda text: text.replace('"seeds": [', '"seeds": ["x", '), "run"),
        (lambda text: text.replace('"batch_size": 16', '"batch_size": null'), "run"),
    ],
)
@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_damaged_specification(folder, tmp_path, damage, sentence, command):
    shutil.copytree(folder / "run", tmp_path / "run")
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        if command == "resume":
            checkpoint.unlink()
    file = tmp_path / "run" / "run.json"
    file.write_text(damage(file.read_text()))
    answer = ask(command, tmp_path / "run")
    assert answer.status == 1 and answer.err.startswith("error: "), answer
    assert sentence in answer.err and answer.err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_place_that_cannot_be_written(folder, tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    message = refused(folder, f"train BC -d good.npz --env none -o {closed}/new", monkeypatch)
    assert "this place cannot be written" in message
