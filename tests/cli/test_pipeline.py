"""From nothing to a policy in a file, by commands alone."""

import itertools
import json
import math
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from headwater.datasets.read import load

from .asking import TINY, ask, done

SHORT = ("--evaluations", 2, "--episodes", 2)
RECIPES = ("wsrl", "keep-data", "proto", "rlpd", "continue", "scratch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data, an offline run in it, and one adapted by each recipe."""
    folder = tmp_path_factory.mktemp("pipeline")
    collect = ("data", "collect", "pendulum", "--steps", 250, "--snapshots", 2)
    sizes = ("--transitions", 400, "--kinds", "random", "medium-replay", "--json")
    answers = {"collect": done(*collect, *sizes, *TINY, "-o", folder / "data")}
    log = folder / "data" / "pendulum-medium-replay.parquet"
    train = ("train", "IQL", "-d", folder / "data" / "pendulum-random.parquet", "--seeds", 3)
    answers["train"] = done(*train, "--updates", 20, *TINY, *SHORT, "-o", folder / "iql", "--json")
    for recipe in RECIPES:
        adapt = ("adapt", folder / "iql", "--recipe", recipe, "--steps", 60, "--evaluations", 2)
        answers[recipe] = done(*adapt, "--critic-fit-updates", 4, "--json")
    return folder, log, answers


def numbers(value):
    """Every number in what JSON gave."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def read(text: str):
    """What a command printed with --json: finite numbers, and some."""
    value = json.loads(text)
    found = list(numbers(value))
    assert found and all(math.isfinite(number) for number in found)
    return value


def test_collect(folder):
    folder, _, answers = folder
    shown = read(answers["collect"])
    assert set(shown["paths"]) == {"random", "medium-replay"}
    random = load(folder / "data" / "pendulum-random.parquet")
    assert len(random) == 400 and random.metadata["environment"] == "pendulum"
    assert shown["scores"]["random"] == pytest.approx(float(np.mean(random.episode_returns())))
    # Given again, nothing is made anew.
    file = folder / "data" / "pendulum-random.parquet"
    before = file.stat().st_mtime_ns
    again = ("data", "collect", "pendulum", "--steps", 250, "--snapshots", 2, *TINY)
    kinds = ("--transitions", 400, "--kinds", "random", "medium-replay", "--json")
    assert read(done(*again, *kinds, "-o", folder / "data")) == shown
    assert file.stat().st_mtime_ns == before
    answer = ask(*again, "--transitions", 500, "-o", folder / "data")
    assert answer.status == 1
    assert "holds a collection with transitions = 400, not 500" in answer.err


def test_describe(folder, tmp_path):
    folder, _, _ = folder
    file, figure = folder / "data" / "pendulum-random.parquet", tmp_path / "figure.png"
    shown = read(done("data", "describe", file, "--json"))
    assert (shown["transitions"], shown["episodes"]) == (400, 2)
    table = done("data", "describe", file, "--figure", figure)
    assert "400" in table and table.rstrip().endswith(f"figure: {figure}")
    assert figure.read_bytes().startswith(b"\x89PNG")
    # Nothing is said twice.
    assert table.count("every episode ends by truncation") == 1


def test_convert_to_minari_by_a_relative_path(folder, tmp_path, monkeypatch):
    _, log, _ = folder
    monkeypatch.chdir(tmp_path)
    for format in ("minari", "minari-arrow", "minari-parquet"):
        done("data", "convert", log, format, "--format", format)
        assert load(tmp_path / format).fingerprint() == load(log).fingerprint()


def test_convert_there_and_back(folder, tmp_path):
    folder, log, _ = folder
    names = ("a.npz", "b.hdf5", "c.arrow", "d", "e.parquet")
    paths = [log, *(tmp_path / name for name in names)]
    for source, target in itertools.pairwise(paths):
        assert done("data", "convert", source, target).strip() == str(target)
    first, last = load(paths[0]), load(paths[-1])
    assert first.fingerprint() == last.fingerprint()
    answer = ask("data", "convert", log, tmp_path / "a.npz")
    assert answer.status == 1 and "exists already and is left as it is" in answer.err
    done("data", "convert", log, tmp_path / "a.npz", "--overwrite")


def test_convert_odd_columns(tmp_path):
    rows = ["step,angle,speed,torque,gain,fell,trip"]
    rows += [f"{i},{i / 9},{-i / 7},{i % 3 - 1},{i},false,{i // 5}" for i in range(20)]
    (tmp_path / "odd.csv").write_text("\n".join(rows) + "\n")
    roles = ("observations=angle,speed", "actions=torque", "rewards=gain", "terminals=fell")
    columns = [f"--column={role}" for role in (*roles, "episodes=trip")]
    bounds = ("--action-low", "-2", "--action-high", 2)
    answer = ask("data", "convert", tmp_path / "odd.csv", tmp_path / "x.npz")
    assert answer.status == 1 and "--column observations=NAME" in answer.err
    done("data", "convert", tmp_path / "odd.csv", tmp_path / "x.npz", *columns, *bounds)
    data = load(tmp_path / "x.npz")
    # The last row of each of the four episodes has no successor.
    assert (len(data), data.episodes) == (16, 4)
    np.testing.assert_allclose(data.observations[1], [1 / 9, -1 / 7], rtol=1e-6)
    assert data.spaces.action.low == (-2.0,)


def test_train(folder):
    folder, _, answers = folder
    shown = read(answers["train"])
    assert (shown["method"], shown["seeds"]) == ("IQL", [0, 1, 2])
    assert shown["curve"]["at"] == [0, 10, 20]
    assert np.shape(shown["curve"]["returns"]) == (3, 3)
    # A finished run is left as it is, and another one does not take its place.
    files = {path: path.read_bytes() for path in (folder / "iql").rglob("*") if path.is_file()}
    again = read(done("resume", folder / "iql", "--json"))
    # What stands beside the behaviour is said where the log is at hand: by `train`.
    assert again.pop("beside_behaviour") is None
    assert shown.pop("beside_behaviour")["verdict"] == "not judged"
    assert again == shown
    answer = ask("train", "IQL", "-d", folder / "data", "-o", folder / "iql")
    assert answer.status == 1
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize("recipe", RECIPES)
def test_adapt(folder, recipe):
    folder, _, answers = folder
    shown = read(answers[recipe])
    assert shown["method"] == {"proto": "PROTO", "rlpd": "RLPD", "continue": "IQL"}.get(
        recipe, "SAC"
    )
    assert shown["run"] == str(folder / f"iql-{recipe}")
    assert shown["curve"]["at"][-1] == 60


def test_evaluate(folder):
    folder, _, _ = folder
    ask_for = ("evaluate", folder / "iql", "--episodes", 2)
    shown = read(done(*ask_for, "--json"))
    assert np.shape(shown["returns"]) == (3, 2)
    assert shown == read(done(*ask_for, "--json"))
    other = read(done(*ask_for, "--json", "--env", "pendulum", "--env-option", "gravity=0.1"))
    assert other["returns"] != shown["returns"]
    table = done(*ask_for)
    assert "iql in pendulum, 2 episodes for each seed" in table
    assert f"{np.mean(shown['returns'][0]):,.4g}" in table


def test_compare(folder, tmp_path):
    folder, _, _ = folder
    runs = [folder / f"iql-{recipe}" for recipe in RECIPES]
    shown = read(done("compare", *runs, "--json"))
    assert shown["baseline"] == "iql-scratch"
    assert [row["steps"] for row in shown["runs"]] == [60] * len(RECIPES)
    figure = tmp_path / "curves.png"
    table = done("compare", *runs, "--figure", figure, "--names", "w", "k", "p", "r", "c", "s")
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "over s" in table and "new steps" in table and "(no interval" not in table


def test_export(folder, tmp_path):
    folder, _, _ = folder
    for format in ("onnx", "stablehlo", "safetensors"):
        pytest.importorskip({"onnx": "onnx", "stablehlo": "flatbuffers"}.get(format, "numpy"))
        path = tmp_path / f"policy.{format}"
        assert done("export", folder / "iql", "-f", format, "-o", path).strip() == str(path)
        assert path.stat().st_size > 500
    answer = ask("export", folder / "iql", "-o", tmp_path / "policy.onnx")
    assert answer.status == 1 and "policy.onnx already exists" in answer.err
    answer = ask("export", folder / "iql", "--seed", 7)
    assert answer.status == 1 and "iql has no seed 7: its seeds are 0, 1, 2" in answer.err


def test_convert_says_how_it_read_beside_its_output(tmp_path):
    path = tmp_path / "visits.npz"
    np.savez(
        path,
        observations=np.arange(12.0),
        actions=np.arange(12) % 2 + 1,
        rewards=np.ones(12),
        visit_no=np.repeat([5, 6, 7], 4),
        room=np.zeros(12),
    )
    answer = ask("data", "convert", path, tmp_path / "cut.npz", "--never-terminal")
    assert answer.status == 1 and "the column 'visit_no' looks like the number of" in answer.err
    options = ("--column", "episodes=visit_no", "--episodes-end", "terminal")
    answer = ask("data", "convert", path, tmp_path / "ended.npz", *options)
    assert answer.status == 0 and answer.out.strip() == str(tmp_path / "ended.npz")
    assert answer.err.splitlines() == [
        "data, columns used: observations: observations; actions: actions; rewards: rewards; "
        "episodes: visit_no",
        "data, not used: room",
        "data, read as: actions are numbered 1 to 2; say action_labels or action_count if there "
        "are others",
        "data, ends: 3 ends of episodes show in a number, a start or a counter alone, and are "
        "terminal, as you say",
    ]
    assert ask("data", "convert", path, tmp_path / "rows", "--episode-per-row").status == 0
    shown = ask("data", "describe", tmp_path / "rows", "--json")
    assert json.loads(shown.out)["terminal_episodes"] == 12


def test_methods():
    listed = json.loads(done("methods", "--json"))
    assert {"IQL", "BC", "SAC", "RLPD"} <= {method["name"] for method in listed}
    shown = json.loads(done("methods", "iql", "--json"))
    assert shown["kind"] == "control/offline" and shown["hyper_parameters"]["expectile"] == 0.7
    assert "expectile" in done("methods", "IQL") and "IQL" in done("methods")


def test_damaged_checkpoint(folder, tmp_path):
    folder, _, _ = folder
    shutil.copytree(folder / "iql", tmp_path / "run")
    older, newest = sorted((tmp_path / "run" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:500])
    # The one before is whole: what was lost is learned again, to the same numbers.
    before = read(done("resume", folder / "iql", "--json"))
    after = read(done("resume", tmp_path / "run", "--json"))
    assert {**after, "run": None} == {**before, "run": None}
    whole, again = load_file(folder / "iql" / "checkpoints" / newest.name), load_file(newest)
    assert whole.keys() == again.keys() and whole
    assert all(whole[name].tobytes() == again[name].tobytes() for name in whole)
    older.write_bytes(b"")
    newest.write_bytes(b"")
    answer = ask("evaluate", tmp_path / "run")
    assert answer.status == 1 and "not a readable checkpoint" in answer.err
