"""The loop: numbers that depend on nothing but stages and seeds, and exact continuation."""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import Diverged, RunError, SpecificationError
from headwater.core.method import Agent
from headwater.runs import checkpoint, loop
from headwater.runs.directory import RunDirectory
from headwater.runs.layout import Place
from headwater.runs.loop import run
from headwater.runs.stage import Stage

from .tiny import (
    SPACES,
    Tiny,
    assert_same,
    evaluate,
    finish,
    source,
    stages,
    without_speed,
)

KINDS = ("replay", "collect", "host")
kinds = pytest.mark.parametrize("kind", KINDS)


def _states(result, name="only"):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(result.outcomes[name].state)]


def _bits(result, name="only"):
    return [leaf.tobytes() for leaf in _states(result, name)]


class _FixedPace:
    def __init__(self, updates):
        self.updates, self.rate = updates, 1.0

    def took(self, updates, seconds):
        pass


# Independence -----------------------------------------------------------------------------------


@kinds
def test_chunks_change_nothing(kind, monkeypatch):
    results = []
    for updates in (1, 7, 1000):
        monkeypatch.setattr(loop, "_Pace", lambda unit, n=updates: _FixedPace(n))
        results.append(finish(stages(kind)))
    for result in results[1:]:
        assert_same(results[0], result)


def test_how_often_is_logged_and_evaluated_changes_nothing():
    reference = finish(stages("collect"))
    for logs, evaluations in ((1, 1), (40, 3), (3, 40)):
        other = finish(stages("collect"), logs=logs, evaluations=evaluations)
        assert _bits(other) == _bits(reference)


def test_logged_means_weigh_every_update_once():
    fine = finish(stages("replay"), logs=40).metrics
    coarse = finish(stages("replay"), logs=4, evaluations=1).metrics
    assert [row["update"] for row in coarse] == [10, 20, 30, 40]
    for i, row in enumerate(coarse):
        each = [r["metrics"]["error"] for r in fine if 10 * i < r["update"] <= 10 * (i + 1)]
        np.testing.assert_allclose(row["metrics"]["error"], np.mean(each, axis=0), rtol=1e-5)


@kinds
def test_a_seed_does_not_depend_on_its_neighbours(kind):
    five = finish(stages(kind), seeds=5)
    alone = finish(stages(kind), seeds=[3])
    for many, one in zip(_states(five), _states(alone)):
        np.testing.assert_array_equal(many[3], one[0])
    assert len({leaf.tobytes() for leaf in np.asarray(five.outcomes["only"].state.weight)}) == 5


def test_another_root_seed_gives_other_numbers():
    assert _bits(finish(stages("replay"))) != _bits(finish(stages("replay"), seed=1))


@kinds
def test_layouts_agree(kind):
    one, other = (finish(stages(kind), layout=layout) for layout in ("map", "vmap"))
    for x, y in zip(_states(one), _states(other)):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@kinds
def test_one_draw_split_into_updates_is_what_it_says(kind):
    if kind == "host":
        pytest.skip("the pure sources are replayed by hand; HostCollect equals Collect")
    stage = stages(kind, updates=12, updates_per_draw=4)[0]
    result = finish([stage], seeds=1)
    place = Place(0, stage, SPACES, [0], 0, "map")
    method, origin = stage.method, stage.source
    state = method.init(SPACES, key=place.init_keys[0])
    source_state = origin.prepare(
        origin.init(key=place.source_keys[0]), Agent(method, state), key=place.prepare_keys[0]
    )
    for draw in range(3):
        draw_key, update_key = jax.random.split(jax.random.fold_in(place.keys[0], draw))
        source_state, data = origin.draw(source_state, Agent(method, state), key=draw_key)
        for piece, key in enumerate(jax.random.split(update_key, 4)):
            rows = jax.tree.map(lambda x, p=piece: x[2 * p : 2 * p + 2], data)
            state, _ = method.update(state, rows, key=key)
    for x, y in zip(_states(result), jax.tree.leaves(state)):
        np.testing.assert_allclose(x[0], y, rtol=1e-4, atol=1e-6)
    assert int(result.outcomes["only"].state.step[0]) == 12


def test_steps_and_evaluations_are_counted():
    result = finish(stages("collect"))
    assert [row["update"] for row in result.evaluations[::2]] == [0, 8, 16, 24, 32, 40]
    # 10 random and 6 warm-up steps, then 2 per update.
    assert [row["environment_steps"] for row in result.evaluations[::2]] == [
        16 + 2 * u for u in (0, 8, 16, 24, 32, 40)
    ]
    assert [row["seed"] for row in result.evaluations[:4]] == [0, 1, 0, 1]


# Continuation -----------------------------------------------------------------------------------


class _Interrupted:
    """Evaluates until it was asked `times`, then as if somebody pressed Ctrl-C."""

    def __init__(self, times):
        self.left = times

    def __call__(self, method, states, key):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return evaluate(method, states, key)


@kinds
@pytest.mark.parametrize("times", (1, 3))
def test_an_interrupted_run_continues_to_the_bit(kind, times, tmp_path):
    whole = finish(stages(kind), directory=RunDirectory.create(tmp_path / "whole", {}))
    directory = RunDirectory.create(tmp_path / "parts", {})
    with pytest.raises(KeyboardInterrupt):
        finish(stages(kind), directory=directory, evaluate=_Interrupted(times))
    continued = finish(stages(kind), directory=RunDirectory.open(directory.path))
    assert_same(whole, continued)
    assert without_speed(directory.rows("metrics")) == without_speed(whole.metrics)
    assert directory.rows("evaluations") == whole.evaluations


# The best evaluation ----------------------------------------------------------------------------


class _Prescribed:
    """Evaluations `[evaluation][seed]` that are said beforehand, at updates 0, 8, 16, …"""

    def __init__(self, means, stop_at: int | None = None):
        self.means, self.calls, self.stop_at = means, 0, stop_at

    def __call__(self, method, states, key):
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        return np.asarray(self.means[self.calls - 1])[:, None] + np.asarray([[-0.5, 0.5]])


RISING_AND_FALLING = [(0.0, 5.0), (1.0, 4.0), (3.0, 4.0), (3.0, 2.0), (2.0, 1.0), (2.5, 0.0)]
"""The best of the first seed is its third evaluation, which a later one equals; of the second, its
first, before anything was learned."""


@kinds
def test_each_seed_is_left_as_it_was_at_its_best_evaluation(kind):
    kept = finish(stages(kind), evaluate=_Prescribed(RISING_AND_FALLING), keep_best=True)
    # After 16 updates a run of any length is where one of 16 ends; after none, one of none.
    sixteen, none = (finish(stages(kind, updates=updates)) for updates in (16, 0))
    for found, at_sixteen, at_none in zip(*map(_states, (kept, sixteen, none))):
        np.testing.assert_array_equal(found[0], at_sixteen[0])
        np.testing.assert_array_equal(found[1], at_none[1])
    assert kept.metrics[-1]["update"] == 40


def test_a_stage_ends_when_no_seed_has_become_better_for_so_long(tmp_path):
    def run(patience: int, directory=None, stop_at=None):
        return finish(
            stages("replay"), evaluate=_Prescribed(RISING_AND_FALLING, stop_at),
            patience=patience, directory=directory,
        )  # fmt: skip

    for patience, last in ((1, 24), (2, 32), (3, 40), (4, 40)):
        result = run(patience)
        # The first seed is best at 16; one evaluation after it is not enough to give up with 2.
        assert result.metrics[-1]["update"] == last
        assert int(result.outcomes["only"].state.step[0]) == 16

    whole = run(2)
    directory = RunDirectory.create(tmp_path / "run", {})
    with pytest.raises(KeyboardInterrupt):
        run(2, directory, stop_at=3)
    # What was best so far is in the checkpoint.
    continued = finish(
        stages("replay"), evaluate=_Prescribed(RISING_AND_FALLING[3:]), patience=2,
        directory=RunDirectory.open(directory.path),
    )  # fmt: skip
    assert_same(whole, continued)
    # It is complete: nothing is evaluated any more.
    again = finish(stages("replay"), evaluate=_Interrupted(0), patience=2, directory=directory)
    assert_same(whole, again)


def test_the_best_needs_evaluations_and_a_run_that_kept_it(tmp_path):
    with pytest.raises(SpecificationError, match="nothing is evaluated while it learns"):
        finish(stages("replay"), evaluate=None, keep_best=True)
    with pytest.raises(SpecificationError, match="patience = 0: it must be at least 1"):
        finish(stages("replay"), patience=0)
    directory = RunDirectory.create(tmp_path / "run", {})
    with pytest.raises(KeyboardInterrupt):
        finish(stages("replay"), directory=directory, evaluate=_Interrupted(2))
    with pytest.raises(RunError, match="what was best so far is not in it"):
        finish(stages("replay"), directory=directory, keep_best=True)


def test_a_run_whose_draws_were_shared_in_another_way_is_not_continued(tmp_path):
    directory = RunDirectory.create(tmp_path / "run", {})
    with pytest.raises(KeyboardInterrupt):
        finish(stages("replay"), directory=directory, evaluate=_Interrupted(2))
    with pytest.raises(RunError, match="8 updates were made, but 5 share a draw"):
        finish(stages("replay", updates_per_draw=5), directory=directory)


def test_a_finished_run_is_only_read(tmp_path):
    directory = RunDirectory.create(tmp_path / "run", {})
    first = finish(stages("collect"), directory=directory)
    files = {p: p.stat().st_mtime_ns for p in directory.checkpoints.iterdir()}
    again = finish(stages("collect"), directory=directory, evaluate=_Interrupted(0))
    assert_same(first, again)
    assert files == {p: p.stat().st_mtime_ns for p in directory.checkpoints.iterdir()}


def test_only_the_newest_two_checkpoints_stay(tmp_path):
    directory = RunDirectory.create(tmp_path / "run", {})
    finish(stages("replay"), directory=directory)
    assert [p.update for p in checkpoint.find(directory.checkpoints)] == [32, 40]


@pytest.mark.parametrize("keep_bytes", (0, 100, -1))
def test_a_damaged_newest_checkpoint_falls_back(keep_bytes, tmp_path, capsys):
    whole = finish(stages("collect"), directory=RunDirectory.create(tmp_path / "whole", {}))
    directory = RunDirectory.create(tmp_path / "parts", {})
    with pytest.raises(KeyboardInterrupt):
        finish(stages("collect"), directory=directory, evaluate=_Interrupted(4))
    newest = checkpoint.path_of(directory.checkpoints, checkpoint.find(directory.checkpoints)[-1])
    newest.write_bytes(newest.read_bytes()[:keep_bytes])
    assert_same(whole, finish(stages("collect"), directory=directory))
    assert f"{newest}: not a readable checkpoint" in capsys.readouterr().err


def test_without_any_readable_checkpoint_it_starts_again(tmp_path):
    whole = finish(stages("replay"), directory=RunDirectory.create(tmp_path / "whole", {}))
    directory = RunDirectory.create(tmp_path / "parts", {})
    with pytest.raises(KeyboardInterrupt):
        finish(stages("replay"), directory=directory, evaluate=_Interrupted(3))
    for path in directory.checkpoints.iterdir():
        path.write_bytes(b"")
    assert_same(whole, finish(stages("replay"), directory=directory))
    assert directory.rows("evaluations") == whole.evaluations


def test_left_over_partial_files_do_no_harm(tmp_path):
    directory = RunDirectory.create(tmp_path / "run", {})
    directory.checkpoints.mkdir()
    (directory.checkpoints / ".00-only-000000000040.safetensors.x.part").write_bytes(b"half")
    with (directory.path / "metrics.jsonl").open("w") as file:
        file.write('{"stage_index": 0, "upd')
    reference = finish(stages("replay"))
    assert_same(finish(stages("replay"), directory=directory), reference)


@pytest.mark.parametrize(
    "kills", [1, pytest.param(3, marks=pytest.mark.evidence)], ids=["once", "in each stage"]
)
def test_killed_at_any_instant_it_continues_to_the_bit(tmp_path, kills):
    """A real SIGKILL, in one or in each of three stages: replay, compiled and host.

    Each costs a process, which is why there is one in the normal tests, in any of the stages.
    """
    victim = Path(__file__).parent / "victim.py"

    # Compiled once, by the run that nobody kills.
    warm = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def start(path):
        command = [sys.executable, str(victim), str(path)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, env=warm)

    def finished(process):
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors.decode()

    def progress(path):
        log = path / "metrics.jsonl"
        return len(log.read_bytes().splitlines()) if log.is_file() else 0

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finished(start(whole))
    random = np.random.default_rng(time.time_ns())
    waits = random.uniform(0.0, 0.08, kills)
    places = np.sort(random.choice((3, 40, 70), kills, replace=False))
    for rows, wait in zip(places, waits):
        process, until = start(parts), time.monotonic() + 200
        while progress(parts) < rows and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(wait)
        process.kill()
        process.communicate()
        assert not (parts / "final.npz").exists(), "it ended before it could be killed"
    finished(start(parts))
    with np.load(whole / "final.npz") as a, np.load(parts / "final.npz") as b:
        assert set(a.files) == set(b.files)
        for name in a.files:
            assert a[name].tobytes() == b[name].tobytes(), f"{name} (after {places}, waits {waits})"
    for name in ("metrics", "evaluations"):
        one, other = (without_speed(RunDirectory(p).rows(name)) for p in (whole, parts))
        assert one == other, f"{name} (after {places}, waits {waits})"


# Refusals ---------------------------------------------------------------------------------------


def test_divergence_names_what_where_and_the_last_good_checkpoint(tmp_path):
    directory = RunDirectory.create(tmp_path / "run", {})
    exploding = stages("replay", method=Tiny(explode_at=20))
    with pytest.raises(Diverged) as caught:
        finish(exploding, directory=directory)
    message = str(caught.value)
    good = directory.checkpoints / "00-only-000000000016.safetensors"
    assert "stage 'only' diverged by update 24: error = nan for seed 0, 1." in message
    assert f"The last good checkpoint is {good}." in message and good.is_file()
    assert all(np.isfinite(row["metrics"]["error"]).all() for row in directory.rows("metrics"))
    with pytest.raises(Diverged, match="Nothing was saved"):
        finish(exploding)


def test_a_second_process_is_refused(tmp_path):
    directory = RunDirectory.create(tmp_path / "run", {})
    other = RunDirectory.open(directory.path)
    other.lock()
    with pytest.raises(RunError, match="another process is writing to this run"):
        finish(stages("replay"), directory=directory)
    other.unlock()
    finish(stages("replay"), directory=directory)
    # Given back, also after a failure.
    other.lock()
    other.unlock()


def test_nonsense_is_refused():
    for given, options in (([], {}), (stages("replay") * 2, {}), (stages("replay"), {"seeds": 0})):
        with pytest.raises(SpecificationError, match="at least one seed"):
            run(given, SPACES, **options)
    with pytest.raises(SpecificationError, match="updates=7 must be a multiple"):
        stages("replay", updates=7, updates_per_draw=2)


# Stages -----------------------------------------------------------------------------------------


def _continue_from_first(outcomes, problem, key):
    state = outcomes["first"].state
    return jax.tree.map(lambda x: x + jnp.zeros_like(x), state)


def _two(updates):
    return [
        Stage("first", Tiny(), source("replay"), 8),
        Stage("second", Tiny(), source("collect"), updates, begin=_continue_from_first),
    ]


def test_a_stage_begins_where_the_first_ended():
    result = finish(_two(0))
    assert _bits(result, "first") == _bits(result, "second")
    result = finish(_two(8))
    assert result.outcomes["second"].state.step.tolist() == [16, 16]
    assert result.outcomes["first"].state.step.tolist() == [8, 8]


@pytest.mark.parametrize("times", (1, 8, 9))
def test_stages_continue_to_the_bit(times, tmp_path):
    whole = finish(_two(8))
    directory = RunDirectory.create(tmp_path / "run", {})
    with pytest.raises(KeyboardInterrupt):
        finish(_two(8), directory=directory, evaluate=_Interrupted(times))
    assert_same(whole, finish(_two(8), directory=directory))


def test_a_later_run_builds_on_an_earlier_one():
    first = finish(_two(8)[:1])
    alone = finish(_two(0)[1:], earlier=first.outcomes)
    assert _bits(alone, "second") == _bits(first, "first")
    assert list(alone.outcomes) == ["second"]


def test_pace_comes_to_about_the_wanted_seconds(monkeypatch):
    pace = loop._Pace(4)
    assert pace.updates == 16
    pace.took(16, 100.0)
    assert pace.updates == 16, "the first chunk compiled"
    for _ in itertools.repeat(None, 10):
        pace.took(pace.updates, pace.updates / 1000.0)
    assert pace.updates == 4 * (int(1000 * loop._CHUNK_SECONDS) // 4)
