"""Black boxes through the front door: training, files, resuming, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.cli import main
from headwater.core.errors import DataError, SpecificationError
from headwater.datasets.black_boxes.queries_files import read_queries, write_queries
from headwater.evaluation.black_boxes.recommended import ExactValue

QUICK = {"fit_steps": 4}
SPACE = hw.SearchSpace((0.0, 1.0), (1.0, 100.0), logarithmic=(False, True), capacity=8)


def earlier(rows=3):
    draw = np.random.default_rng(0)
    return hw.Queries(
        draw.uniform(size=(rows, 1)).astype(np.float32),
        draw.normal(size=rows).astype(np.float32),
        np.zeros(rows, np.int32),
        np.ones(rows, np.float32),
    )


def test_an_interrupted_run_goes_on_to_the_bit(tmp_path, monkeypatch):
    """With evaluations of before, which the run's directory keeps."""
    options = {"env": "smooth-function", "data": earlier(), "steps": 8, "batch_size": 2, "seeds": 2,
               "evaluations": 4}  # fmt: skip
    method = hw.GPUCB(**QUICK)
    whole = hw.train(method, **options, progress=False)
    assert whole.problem.capacity == 11 and np.all(np.asarray(whole.state.count) == 11)
    np.testing.assert_array_equal(whole.state.value[0][:3], earlier().value)
    calls, evaluate = [], ExactValue.__call__

    def interrupted(self, *given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(self, *given)

    monkeypatch.setattr(ExactValue, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hw.train(method, **options, out=tmp_path / "run", progress=False)
    again = hw.resume(tmp_path / "run", progress=False)
    jax.tree.map(np.testing.assert_array_equal, again.state, whole.state)
    opened = hw.open_run(tmp_path / "run")
    assert opened.finished and opened.problem.mismatch(whole.problem) is None
    evaluations, regret = opened.regret
    assert evaluations[-1] == 8 and np.all(np.diff(regret, axis=1) >= 0.0)
    assert hw.compare([opened]).task == "smooth-function"


def test_the_command_line_evaluates_a_black_box(tmp_path, capsys):
    main(["train", "RandomSearch", "--env", "branin", "--steps", "6", "--seeds", "2",
          "--evaluations", "1", "--set", "fit_steps=2", "-o", str(tmp_path / "run")])  # fmt: skip
    said = capsys.readouterr().out
    assert "value" in said and "over 6 evaluations" in said


def test_a_function_of_ones_own(tmp_path):
    box = hw.BlackBox(lambda x: -jnp.abs(x[0] - 0.3), hw.SearchSpace((0.0,), (1.0,)))
    run = hw.train(hw.GPUCB(**QUICK), env=box, steps=6, seeds=1, evaluations=1, progress=False)
    assert run.regret is None and run.score().point > -0.3
    bad = dataclasses.replace(box, function=lambda x: jnp.where(x[0] < 2.0, jnp.nan, x[0]))
    with pytest.raises(DataError, match="black-box returned a value that is not finite"):
        hw.train(hw.GPUCB(**QUICK), env=bad, steps=6, seeds=1, evaluations=1, progress=False)


def test_units_go_there_and_back():
    points = np.array([[0.0, 1.0], [0.25, 10.0], [1.0, 100.0]])
    unit = SPACE.to_unit(points)
    np.testing.assert_allclose(unit, [[0.0, 0.0], [0.25, 0.5], [1.0, 1.0]], atol=1e-12)
    np.testing.assert_allclose(SPACE.from_unit(unit), points)
    whole = hw.SearchSpace((1.0,), (5.0,), whole=(True,))
    np.testing.assert_allclose(whole.from_unit(jnp.asarray([[0.3], [0.95]])), [[2.0], [5.0]])
    np.testing.assert_allclose(whole.rounded(jnp.asarray([[0.3]])), [[0.25]])


def test_files_are_read_as_written(tmp_path):
    data = hw.Queries(np.array([[0.1, 0.5]]), np.array([2.0]), np.array([0]), np.array([1.0]))
    write_queries(tmp_path / "log.npz", data, SPACE)
    read = read_queries(tmp_path / "log.npz", SPACE)
    np.testing.assert_allclose(read.point, data.point, rtol=1e-6)
    (tmp_path / "log.csv").write_text("point_0,point_1,value\n0.1,10,2.0\n", encoding="utf-8")
    same = read_queries(tmp_path / "log.csv", SPACE)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), same, read)


@pytest.mark.parametrize(
    "line, sentence",
    [
        ("0.1,1000,1", "row 1: point lies outside of the space"),
        ("0.1,10,inf", "row 1: value inf is not finite: leave such rows out"),
        ("x,10,1", "point_0"),
    ],
)
def test_what_no_evaluation_can_be(line, sentence, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(f"point_0,point_1,value\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=sentence) as refused:
        read_queries(path, SPACE)
    assert str(refused.value).startswith(str(path))


@pytest.mark.parametrize(
    "method, given, sentence",
    [
        ("GPUCB", {"env": "pendulum"}, "pendulum is no black box: take one of branin"),
        ("GPUCB", {}, "GPUCB learns from evaluations of a black box that it chooses: give it an"),
        ("SAC", {"env": "branin"}, "branin is a black box, which is evaluated and not acted in"),
        ("GPUCB", {"env": "branin"}, "takes at most 2,000: 100,000 are too many"),
        ("GPUCB", {"env": "branin", "steps": 9, "random_steps": 2}, "leave out random_steps"),
        ("GPUCB", {"env": "branin", "steps": 9, "data": earlier()}, r"points have shape \(3, 1\)"),
        ("GPUCB", {"env": "branin", "steps": 9, "delay": 2}, "delay is one of the bandit options"),
    ],
)
def test_what_does_not_fit_is_said(method, given, sentence, tmp_path):
    with pytest.raises((SpecificationError, DataError), match=sentence):
        hw.train(method, **given, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "bounds, others, sentence",
    [
        (((0.0,), (0.0,)), {}, "component 0 lies between 0 and 0: two finite bounds"),
        (((), ()), {}, "at least one"),
        (((0.0,), (1.0,)), {"logarithmic": (True,)}, "component 0 is logarithmic, but begins at 0"),
        (((0.0,), (1.0,)), {"costs": (0.0,)}, "costs are"),
        (((0.0,), (1.0,)), {"whole": (True, True)}, "whole says 2 times what 1 components are"),
    ],
)
def test_what_is_no_space(bounds, others, sentence):
    with pytest.raises(SpecificationError, match=sentence):
        hw.SearchSpace(*bounds, **others)
