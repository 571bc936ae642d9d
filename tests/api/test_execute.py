"""Interrupted runs go on as if nothing had happened, with the data that they began with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import jax
import numpy as np
import pytest

import headwater
from headwater.api import execute
from headwater.api.execute import resume
from headwater.api.run import open_run
from headwater.api.specifications.specification import Specification
from headwater.api.train import train
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.datasets.write import write
from headwater.environments.adapters.gymnasium_objects import from_gymnasium
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.processes import make_process
from headwater.environments.registry import make
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.online.sac import SAC
from headwater.ops import products
from headwater.runs import checkpoint

from .problems import assert_same, pendulum_log
from .victim import HOW

OFFLINE = {"seeds": 2, "batch_size": 16, "episodes": 2, "progress": False}
CLONE = BC(hidden_sizes=(8, 8), stochastic=True)


class Interrupted(Exception):
    """Stands for anything that ends a process."""


@pytest.fixture
def interrupt(monkeypatch):
    """Ends what is called inside at its `nth` evaluation, then lets evaluations be again."""

    def interrupt(nth: int, function):
        plain, seen = execute.evaluate_returns, []

        def evaluate(*arguments, **options):
            seen.append(None)
            if len(seen) == nth:
                raise Interrupted
            return plain(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(execute, "evaluate_returns", evaluate)
            with pytest.raises(Interrupted):
                function()

    return interrupt


def test_nothing_is_left_where_there_are_not_the_devices_that_are_asked_for(tmp_path, monkeypatch):
    log = pendulum_log()
    monkeypatch.setattr(jax, "devices", lambda: [None])
    with pytest.raises(SpecificationError, match="parallel = model spreads over several devices"):
        train(CLONE, log, **{**OFFLINE, "out": tmp_path / "run", "parallel": "model"})
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_its_precision_when_it_goes_on(tmp_path, interrupt, monkeypatch):
    multiplied = []
    monkeypatch.setattr(execute, "check_precision", lambda precision: None)
    monkeypatch.setattr(
        execute, "multiplying", lambda precision: multiplied.append(precision) or nullcontext()
    )
    how = {**OFFLINE, "updates": 4, "evaluations": 2, "precision": "bfloat16"}
    path = tmp_path / "run"
    interrupt(3, lambda: train(CLONE, pendulum_log(), out=path, **how))
    run = resume(path, progress=False)
    assert run.finished and run.specification.options.precision == "bfloat16"
    train(CLONE, pendulum_log(), **{**how, "precision": "default"})
    # What is evaluated is not rounded: once after two updates, and once at the end, of each run.
    learned = [precision for precision in multiplied if precision == "bfloat16"]
    assert len(learned) == 2 and multiplied[-1] == "default"
    recorded = json.loads((path / "run.json").read_text())
    assert recorded["options"]["precision"] == "bfloat16"
    wrong = {**recorded["options"], "precision": "float8"}
    with pytest.raises(RunError, match="unknown precision"):
        Specification.from_json({**recorded, "options": wrong}, "run")


def test_a_precision_that_the_machine_has_not_leaves_no_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(products, "_has_matrix_units", lambda: False)
    with pytest.raises(SpecificationError, match="no matrix units"):
        train(CLONE, pendulum_log(), out=tmp_path / "run", updates=1, precision="bfloat16")
    with pytest.raises(SpecificationError, match="unknown precision"):
        train(CLONE, pendulum_log(), out=tmp_path / "run", updates=1, precision="float8")
    assert not (tmp_path / "run").exists()


def test_offline_learning_goes_on_to_the_bit(tmp_path, interrupt):
    data, how = pendulum_log(), {**OFFLINE, "updates": 40, "evaluations": 4}
    whole = train(CLONE, data, **how)
    path = tmp_path / "run"
    # The third evaluation is of update 20, whose checkpoint is written after it.
    interrupt(3, lambda: train(CLONE, data, out=path, **how))
    assert [p.update for p in checkpoint.find(path / "checkpoints")] == [10]
    assert not open_run(path).finished
    shutil.move(path, tmp_path / "moved")
    again = resume(tmp_path / "moved", progress=False)
    assert again.finished
    assert_same(whole, again)
    # A finished run is returned as it is, without its data.
    shutil.rmtree(tmp_path / "moved" / "data")
    before = (tmp_path / "moved" / "metrics.jsonl").read_bytes()
    assert_same(whole, resume(tmp_path / "moved"))
    assert (tmp_path / "moved" / "metrics.jsonl").read_bytes() == before


def test_a_run_without_any_checkpoint_begins_anew(tmp_path, interrupt):
    data, how = pendulum_log(), {**OFFLINE, "updates": 40, "evaluations": 4}
    path = tmp_path / "run"
    interrupt(1, lambda: train(CLONE, data, out=path, **how))
    assert_same(train(CLONE, data, **how), resume(path, progress=False))


def test_online_learning_goes_on_to_the_bit(tmp_path, interrupt):
    how = {**OFFLINE, "steps": 48, "random_steps": 8, "block": 4, "evaluations": 4}
    method, env, path = SAC(hidden_sizes=(8, 8)), Pendulum(gravity=9.0), tmp_path / "run"
    whole = train(method, env=env, **how)
    interrupt(3, lambda: train(method, env=env, out=path, **how))
    again = resume(path, progress=False)
    assert_same(whole, again)
    # The option of the task came back with it: under another gravity the numbers are others.
    assert again.specification.task.options["gravity"] == 9.0


def test_learning_in_a_finite_process_goes_on_to_the_bit(tmp_path, monkeypatch):
    how = {"steps": 160, "evaluations": 4, "seeds": 2, "progress": False}
    how["process"] = make_process("river-swim", states=3, horizon=4)
    whole, path = train("UCBVI", **how), tmp_path / "run"
    looks, plain = [], execute.ExactReturn.__call__

    def look(self, *given):
        looks.append(None)
        if len(looks) == 3:
            raise Interrupted
        return plain(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(execute.ExactReturn, "__call__", look)
        with pytest.raises(Interrupted):
            train("UCBVI", **how, out=path)
    # The third evaluation is of update 20, whose checkpoint is written after it.
    assert [p.update for p in checkpoint.find(path / "checkpoints")] == [10]
    assert not open_run(path).finished
    again = resume(path, progress=False)
    assert again.finished and again.metrics[-1]["update"] == 40
    assert_same(whole, again)


def test_data_that_changed_or_is_gone_is_said(tmp_path, interrupt):
    data, file, path = pendulum_log(), tmp_path / "log.npz", tmp_path / "run"
    write(data, file)
    how = {**OFFLINE, "updates": 8, "evaluations": 2}
    whole = train(CLONE, data, **how)
    interrupt(2, lambda: train(CLONE, file, out=path, **how))
    changed = pendulum_log(marked=True)
    write(changed, file, overwrite=True)
    with pytest.raises(DataError, match=r"log\.npz has changed since this run began: restore it"):
        resume(path)
    with pytest.raises(DataError, match="has changed since this run began"):
        resume(path, data=changed)
    file.unlink()
    with pytest.raises(DataError, match="there is no file or directory"):
        resume(path)
    # The same content, from wherever it is now.
    assert_same(whole, resume(path, data=data, progress=False))


def test_a_task_that_was_passed_as_an_object_is_asked_for_again(tmp_path, interrupt):
    import gymnasium

    def pendulum():
        return gymnasium.make("Pendulum-v1", max_episode_steps=20)

    task = from_gymnasium(pendulum, "mine")
    how = {**OFFLINE, "env": task, "updates": 8, "evaluations": 2}
    path = tmp_path / "run"
    interrupt(2, lambda: train(CLONE, pendulum_log(), out=path, **how))
    sentence = "the environment 'mine' was passed as an object: pass it again"
    with pytest.raises(RunError, match=sentence):
        resume(path)
    assert_same(train(CLONE, pendulum_log(), **how), resume(path, env=task, progress=False))


def test_a_task_of_a_module_is_named_again_and_keeps_its_options(tmp_path, interrupt, monkeypatch):
    import gymnasium

    module, name = "tasks_of_somebody", "Somebodys-v0"
    for known, key in ((sys.modules, module), (gymnasium.registry, name)):
        # To be gone again after this test.
        monkeypatch.setitem(known, key, None)
        del known[key]
    (tmp_path / f"{module}.py").write_text(
        "import gymnasium\n"
        f"gymnasium.register('{name}', 'gymnasium.envs.classic_control:PendulumEnv',\n"
        "    max_episode_steps=20)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    task = make(f"{module}:{name}", g=5.0)
    how = {**OFFLINE, "env": task, "updates": 8, "evaluations": 2}
    path = tmp_path / "run"
    interrupt(2, lambda: train(CLONE, pendulum_log(), out=path, **how))
    del sys.modules[module], gymnasium.registry[name]
    with pytest.raises(SpecificationError, match="a file does not get to say which module"):
        resume(path)
    with pytest.raises(SpecificationError, match=f"in the environment {module}:.*, not in pendul"):
        resume(path, env="pendulum")
    resumed = resume(path, env=task.name, progress=False)
    assert_same(train(CLONE, pendulum_log(), **how), resumed)


def test_what_cannot_be_continued_is_said(tmp_path):
    with pytest.raises(RunError, match=r"nowhere is no run: there is nothing"):
        resume(tmp_path / "nowhere")
    run = train(CLONE, pendulum_log(), env="none", updates=2, out=tmp_path / "run", **OFFLINE)
    stored = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**stored, "spaces": None}))
    with pytest.raises(RunError, match="was not made by train or adapt: give its own command"):
        resume(run.path)


@pytest.mark.evidence
def test_a_killed_process_loses_nothing(tmp_path):
    """Killed with a signal at a random moment, on a task of Gymnasium, and continued by a copy."""
    victim = Path(__file__).parent / "victim.py"
    # Compiled here; what is killed reads that and writes nothing, which could stay half-written.
    warm = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9",
    }
    data = pendulum_log()
    upstream = train(
        BC(hidden_sizes=(8, 8), stochastic=True),
        data,
        env="Pendulum-v1",
        updates=20,
        evaluations=1,
        out=tmp_path / "offline",
        **OFFLINE,
    )
    shutil.copytree(upstream.path, tmp_path / "upstream")

    whole = headwater.adapt(upstream, **HOW)
    assert whole.specification.task.name == "Pendulum-v1"
    parts = tmp_path / "parts"
    command = [sys.executable, str(victim), str(tmp_path / "upstream"), str(parts)]
    process, until = subprocess.Popen(command, env=warm), time.monotonic() + 200
    while process.poll() is None and time.monotonic() < until:
        # Once there is something to go on from.
        if (parts / "checkpoints").is_dir() and checkpoint.find(parts / "checkpoints"):
            break
        time.sleep(0.002)
    time.sleep(np.random.default_rng(time.time_ns()).uniform(0.0, 0.2))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    assert not open_run(parts).finished
    # Nothing of the offline run is needed any more but what was copied.
    shutil.rmtree(tmp_path / "upstream")
    again = headwater.resume(parts, progress=False)
    assert again.specification == whole.specification
    assert_same(whole, again)
    assert again.metrics[-1]["environment_steps"] == 200
    assert_same(again.upstream, upstream)
