"""Logs of several tasks, learned one after the other by one method."""

import dataclasses
import json

import jax
import numpy as np
import onnxruntime
import pytest

import headwater as hw
from headwater.cli import main
from headwater.core.errors import DataError, SpecificationError
from headwater.datasets.write import write

from .problems import assert_same, cart_pole_log, pendulum_log

SMALL = {"seeds": 2, "batch_size": 8, "updates": 4, "evaluations": 1, "env": "none"}
OER = {"hidden_sizes": "8,8", "num_tasks": 3, "buffer_size": 6, "rollout_steps": 3}


def small(**settings):
    return hw.build_method("OER", {**OER, **settings})


def logs():
    one = pendulum_log(environment=None)
    return [one, dataclasses.replace(one, rewards=-one.rewards), one]


def test_a_run_that_stops_between_tasks_goes_on_to_the_bit(tmp_path):
    given = logs()
    # The second is a file, and the others are copied into the run's directory.
    given[1] = write(given[1], tmp_path / "second.npz")
    whole = hw.train(small(), given, out=tmp_path / "run", **SMALL)
    assert np.asarray(whole.state.task).tolist() == [2, 2]
    assert [row["stage"] for row in whole.metrics if row["update"] == 4] == [
        "task 1",
        "task 2",
        "task 3",
    ]
    # Rows of the first two tasks were kept, each of its own seed.
    kept = np.asarray(whole.state.kept.observation)
    assert kept[:, :2].any((2, 3)).all() and not kept[:, 2].any()
    for file in (tmp_path / "run" / "checkpoints").glob("02-task 3-*"):
        file.unlink()
    opened = hw.open_run(tmp_path / "run")
    assert not opened.finished and np.asarray(opened.state.task).tolist() == [1, 1]
    again = hw.resume(tmp_path / "run", progress=False)
    assert again.finished
    for here, there in zip(jax.tree.leaves(again.state), jax.tree.leaves(whole.state), strict=True):
        np.testing.assert_array_equal(here, there)
    assert_same(hw.open_run(tmp_path / "run"), whole)
    (tmp_path / "second.npz").unlink()
    write(pendulum_log(marked=True), tmp_path / "second.npz")
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"second.npz has changed since this run began"):
        hw.resume(tmp_path / "run", progress=False)


def test_the_policy_acts_in_the_task_that_it_is_told(tmp_path):
    run = hw.train(small(), logs()[:2], **SMALL)
    observation = np.zeros((1, 3), np.float32)
    acts = [run.for_task(i).policy(observation) for i in range(2)]
    assert not np.array_equal(*acts)
    np.testing.assert_array_equal(run.policy(observation), acts[1])
    for task, acted in enumerate(acts):
        file = hw.export(run, tmp_path / f"{task}.onnx", task=task)
        (out,) = onnxruntime.InferenceSession(str(file)).run(None, {"observation": observation})
        np.testing.assert_allclose(out, acted, atol=1e-5)
    found = hw.evaluate(run.for_task(0), env="pendulum", episodes=2)
    assert found.returns is not None and found.returns.shape == (2, 2)
    with pytest.raises(SpecificationError, match="task = 2: OER learned 2 tasks, which are count"):
        run.for_task(2)
    plain = hw.train(hw.build_method("BC", {"hidden_sizes": "8,8"}), logs()[0], **SMALL)
    with pytest.raises(SpecificationError, match="BC, which learns one task: leave out the task"):
        plain.for_task(0)


def test_tasks_in_order_from_the_shell(tmp_path, capsys):
    first, second = (write(log, tmp_path / f"{i}.npz") for i, log in enumerate(logs()[:2]))
    words = ["train", "OER", "--data", first, "--then", second, "--out", tmp_path / "run"]
    words += ["--updates", 4, "--batch-size", 8, "--seeds", 2, "--env", "none", "--json"]
    words += [x for name, value in OER.items() for x in ("--set", f"{name}={value}")]
    assert main([str(word) for word in words]) == 0
    whole = hw.train(small(), [first, second], **SMALL)
    states = (jax.tree.leaves(run.state) for run in (hw.open_run(tmp_path / "run"), whole))
    for here, there in zip(*states, strict=True):
        np.testing.assert_array_equal(here, there)
    capsys.readouterr()
    judged = ["evaluate", str(tmp_path / "run"), "--env", "pendulum", "--episodes", "2"]
    assert main([*judged, "--task", "0", "--json"]) == 0
    found = np.asarray(json.loads(capsys.readouterr().out)["returns"])
    expected = hw.evaluate(whole.for_task(0), env="pendulum", episodes=2)
    np.testing.assert_array_equal(found, expected.returns)
    assert main(["train", "OER", "--then", str(second)]) == 1
    assert "--then names the logs that follow that of --data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        (
            small(),
            lambda: [*logs()[:2], cart_pole_log()],
            "task 3 does not fit task 1: observations"
            " have 3 components in task 1 and 4 in task 3; tasks that are learned",
        ),
        (
            small(num_tasks=2),
            logs,
            "3 logs were given, of a task each, but OER has room for 2: set",
        ),
        ("TD3BC", logs, "TD3BC learns one task, from one log, and 3 were given: give it one"),
        # Whatever else it is fed with.
        ("MOPO", logs, "MOPO learns one task, from one log, and 3 were given: give it one"),
        (small(), lambda: [], "the list of logs is empty: give one of each task"),
        (small(), lambda: [logs()[0], None], "a log in the list is None: give one of each task"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(method, given, message, tmp_path):
    with pytest.raises(SpecificationError, match=message):
        hw.train(method, given(), out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()
