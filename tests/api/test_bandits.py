"""Bandits through the front door: training, files, resuming, comparing, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.cli import main
from headwater.core.errors import DataError, SpecificationError
from headwater.datasets.bandits.pulls_files import read_arms, read_pulls, write_arms, write_pulls
from headwater.evaluation.bandits import ExactReward

from .problems import cart_pole_log


def log(rows=60, arms=3, seed=0):
    draw = np.random.default_rng(seed)
    return {
        "context": draw.normal(size=(rows, 2)),
        "arm": draw.integers(arms, size=rows),
        "reward": draw.integers(2, size=rows).astype(float),
        "propensity": np.full(rows, 1.0 / arms),
    }


def archive(path, **changes):
    np.savez(path, **{**log(), **changes})
    return path


def pulls() -> hw.Pulls:
    """The same log without its contexts, as an object."""
    rows = log()
    return hw.Pulls(
        np.zeros((60, 0)), np.zeros((1, 3, 0)), rows["arm"], rows["reward"], rows["propensity"]
    )


def test_a_run_is_written_opened_and_compared(tmp_path):
    runs = [
        hw.train(
            name, env="linear-bandit", steps=60, batch_size=2, delay=3, seeds=2, evaluations=2,
            out=tmp_path / name, progress=False,
        )
        for name in ("LinUCB", "SquareCB")
    ]  # fmt: skip
    rounds, regret = runs[0].regret
    assert rounds[-1] == 54 and regret.shape[0] == 2
    assert np.all(np.diff(regret, axis=1) >= 0.0)
    opened = hw.open_run(tmp_path / "LinUCB")
    assert opened.finished and opened.problem.context_size == 10
    jax.tree.map(np.testing.assert_array_equal, opened.state, runs[0].state)
    table = hw.compare(runs)
    assert table.task == "linear-bandit" and [row.steps for row in table.rows] == [60, 60]
    assert 0.0 < table.rows[0].score.point < 1.0


def test_an_interrupted_run_goes_on_to_the_bit(tmp_path, monkeypatch):
    options = {"env": "bernoulli-bandit", "steps": 40, "delay": 2, "seeds": 2, "evaluations": 4}
    whole = hw.train("ThompsonSampling", **options, progress=False)
    calls, evaluate = [], ExactReward.__call__

    def interrupted(self, *given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(self, *given)

    monkeypatch.setattr(ExactReward, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hw.train("ThompsonSampling", **options, out=tmp_path / "run", progress=False)
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stored["options"]["updates"] == 38
    assert not hw.open_run(tmp_path / "run").finished
    again = hw.resume(tmp_path / "run", progress=False)
    assert again.finished
    jax.tree.map(np.testing.assert_array_equal, again.state, whole.state)


def test_the_command_line_trains_a_bandit(tmp_path, capsys):
    main(["train", "LinUCB", "--env", "feature-bandit", "--env-option", "arms=6", "--steps", "30",
          "--seeds", "2", "--set", "bonus_scale=0.3", "-o", str(tmp_path / "run")])  # fmt: skip
    said = capsys.readouterr().out
    assert "reward" in said and "over 30 rounds" in said


def test_a_log_is_learned_from_in_order(tmp_path):
    path = archive(tmp_path / "log.npz")
    run = hw.train("EpsilonGreedy", str(path), seeds=1, batch_size=4, progress=False)
    assert run.metrics[-1]["update"] == 15
    data, problem = read_pulls(path)
    assert problem.arms == 3 and data.context.shape == (60, 2)
    same = hw.train("EpsilonGreedy", data, seeds=1, batch_size=4, progress=False)
    jax.tree.map(np.testing.assert_array_equal, run.state, same.state)


def test_files_are_read_as_written(tmp_path):
    data, _ = read_pulls(archive(tmp_path / "log.npz", arms=5))
    problem = hw.Arms(5, 2)
    write_pulls(tmp_path / "again.npz", data, problem)
    read, arms = read_pulls(tmp_path / "again.npz")
    assert arms == problem
    jax.tree.map(np.testing.assert_array_equal, read, data)
    known = hw.Arms(2, 1, 3, jnp.arange(6.0).reshape(2, 3), -1.0, 2.0)
    write_arms(tmp_path / "arms.npz", known)
    found = read_arms(tmp_path / "arms.npz")
    np.testing.assert_array_equal(found.features, known.features)
    assert (found.arms, found.context_size, found.low, found.high) == (2, 1, -1.0, 2.0)


def test_a_range_of_rewards_that_is_given_goes_before_that_of_the_log(tmp_path):
    path = archive(
        tmp_path / "log.npz", context=np.zeros((60, 0)), reward=np.full(60, 5.0), low=0.0, high=10.0
    )
    wide = hw.train("EXP3", str(path), seeds=1, progress=False)
    narrow = hw.train("EXP3", str(path), seeds=1, reward_range=(0.0, 5.0), progress=False)
    assert (wide.problem.high, narrow.problem.high) == (10.0, 5.0)
    # Half of the range is lost with each pull, or nothing at all.
    assert wide.state.losses.max() > 0.0 and narrow.state.losses.max() == 0.0
    for given in (str(path), pulls()):
        with pytest.raises(SpecificationError, match="must be two finite numbers"):
            hw.train("EXP3", given, reward_range=(1.0, 0.0), progress=False)


def test_names_as_obp_has_them(tmp_path):
    lines = ["item_id,click,propensity_score,user_feature_0,user_feature_1"]
    lines += [f"{i % 3},{i % 2},0.25,{i / 10},{-i / 10}" for i in range(9)]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data, problem = read_pulls(tmp_path / "log.csv")
    assert problem.arms == 3 and data.context.shape == (9, 2)
    np.testing.assert_allclose(data.propensity, 0.25)


def test_columns_of_other_names_are_read_again_when_a_run_goes_on_or_is_judged(tmp_path, capsys):
    rows = log(rows=40)
    named = {"shown": rows["arm"], "bought": rows["reward"], "p": rows["propensity"]}
    lines = [",".join([*named, "x_0", "x_1"])]
    lines += [",".join(map(str, [*row, *x])) for *row, x in zip(*named.values(), rows["context"])]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = {"arm": "shown", "reward": "bought", "propensity": "p", "context": "x_*"}
    given = {"seeds": 1, "progress": False, "data_options": {"columns": columns}}
    run = hw.train("CRM", str(path), updates=2, out=tmp_path / "run", **given)
    plain = hw.train("CRM", str(archive(tmp_path / "log.npz", **rows)), updates=2, seeds=1,
                     progress=False)  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, run.state, plain.state)
    opened = hw.open_run(tmp_path / "run")
    assert opened.specification.data.options == {"columns": columns}
    judged = hw.evaluate(opened, data=str(path), estimators=["wis"], progress=False)
    assert judged.estimates
    described = ("data", "describe", str(path), *(f"--column={k}={v}" for k, v in columns.items()))
    assert main([*described, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reading"][-1] == ["read as context", "x_0, x_1"]
    with pytest.raises(SpecificationError, match="horizon says how a file is read, and logged"):
        hw.train("CRM", str(path), updates=2, seeds=1, data_options={"horizon": 3})
    with pytest.raises(SpecificationError, match="the data is read already"):
        hw.train("CRM", pulls(), updates=2, **given)


PROPENSITY = np.full(60, 1 / 3)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"propensity": np.where(np.arange(60) == 7, 0.0, 1 / 3)}, "row 8: propensity 0 is no"),
        ({"propensity": np.where(np.arange(60) > 57, 1.5, 1 / 3)}, r"row 59: propensity 1.5 is "
         r"more than 1, which no probability is \(and 1 more rows\)"),
        ({"propensity": np.where(np.arange(60) == 0, np.nan, 1 / 3)}, "row 1: propensity nan"),
        ({"arms": 2}, "arm 2 is not one of 0 … 1"),
        ({"reward": np.where(np.arange(60) == 3, 7.0, 0.0)}, "row 4: reward 7 lies outside of the "
         "range that is declared, 0 … 1"),
        ({"reward": np.full(60, np.inf)}, "row 1: reward inf is not finite"),
        ({"arm": np.full(60, 0.5)}, "row 1: arm 0.5 is not a whole number"),
        ({"arm": np.where(np.arange(60) == 4, np.inf, 0.0)}, "row 5: arm inf is not a whole"),
        ({"arms": [2, 3]}, r"'arms' has shape \(2,\): it must be one finite number"),
        ({"low": np.nan}, r"'low' has shape \(\): it must be one finite number"),
        ({"high": "much"}, "'high' has type <U4, but numbers are needed"),
        ({"context": np.zeros((59, 2))}, r"contexts have shape \(59, 2\), but arms \(60,\)"),
        ({"reward": np.zeros(3)}, r"rewards have shape \(3,\), but arms"),
    ],
)  # fmt: skip
def test_what_no_log_of_a_bandit_can_hold(changes, sentence, tmp_path):
    path = archive(tmp_path / "log.npz", **changes)
    with pytest.raises(DataError, match=sentence) as refused:
        hw.train("LinUCB", str(path), progress=False)
    assert str(refused.value).startswith(str(path))


def test_a_log_without_propensities_is_told_what_to_do(tmp_path):
    np.savez(tmp_path / "log.npz", arm=[0, 1], reward=[0.0, 1.0])
    with pytest.raises(DataError, match=r"there is no 'propensity'.*add a column"):
        hw.train("EXP3", str(tmp_path / "log.npz"), progress=False)


@pytest.mark.parametrize(
    "method, given, sentence",
    [
        ("LinUCB", {"env": "pendulum"}, "pendulum is no bandit: take one of bernoulli-bandit"),
        ("IQL", {"env": "linear-bandit"}, "IQL learns from logged experience: give it data"),
        ("SAC", {"env": "linear-bandit"}, "linear-bandit is a bandit, whose arms are pulled"),
        ("UCB1", {"env": "linear-bandit"}, "UCB1 takes all rounds for alike"),
        ("EXP4", {"env": "linear-bandit"}, "EXP4 chooses by features of the arms"),
        ("LinUCB", {}, "LinUCB learns from rounds of a bandit: give it an environment, or data"),
        ("LinUCB", {"env": "linear-bandit", "random_steps": 4}, "leave out random_steps"),
        ("IQL", {"delay": 2, "data": "x"}, "delay is one of the bandit options"),
        ("IQL", {"reward_range": (0.0, 2.0), "data": "x"},
         "reward_range is one of the reward options"),
        ("EXP3", {"env": "bernoulli-bandit", "reward_range": (-1.0, 1.0)},
         "reward_range is of a log without an environment, and bernoulli-bandit says itself which"),
        ("EXP3", {"env": "bernoulli-bandit", "data": pulls(), "reward_range": (0.0, 2.0)},
         "reward_range is of a log without an environment"),
        ("BatchedHedge", {"env": "bernoulli-bandit"},
         "BatchedHedge with full feedback learns from what every arm would have earned"),
        ("BatchedHedge", {"data": pulls()},
         "BatchedHedge with full feedback learns from what every arm would have earned"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(method, given, sentence, tmp_path):
    with pytest.raises(SpecificationError, match=sentence):
        hw.train(method, **given, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_options_of_bandits_are_checked():
    with pytest.raises(SpecificationError, match=r"option arms = 2\.5 must be a whole number"):
        hw.make("linear-bandit", arms=2.5)
    with pytest.raises(SpecificationError, match="arms = 1: there is nothing to choose from"):
        hw.make("bernoulli-bandit", arms=1).problem  # noqa: B018
    with pytest.raises(SpecificationError, match="gap = 2: it must lie between 0 and 1"):
        hw.make("bernoulli-bandit", gap=2)
    with pytest.raises(SpecificationError, match="did you mean linear-bandit"):
        hw.make("linear-bandits")


def test_a_run_is_judged_on_rounds_that_it_did_not_learn_from(tmp_path):
    path, other = (
        archive(tmp_path / "log.npz"),
        archive(tmp_path / "other.npz", **log(rows=400, seed=1)),
    )
    run = hw.train("CRM", str(path), seeds=2, updates=20, batch_size=16, progress=False)
    found = hw.evaluate(run, data=other, estimators=["is", "wis"], explore=True, progress=False)
    rows = log(rows=400, seed=1)
    context = jnp.asarray(rows["context"], jnp.float32)
    assert found.estimates is not None and found.policy_judged == "exploring"
    for i, estimates in enumerate(found.estimates):
        state = jax.tree.map(lambda x, i=i: x[i], run.state)
        chances = jax.vmap(
            lambda row, state=state: run.method.probabilities(
                state, row, jnp.zeros((3, 0)), key=jax.random.key(0), explore=True
            )
        )(context)
        weight = 3.0 * np.asarray(chances, float)[np.arange(400), rows["arm"]]
        earned = weight @ rows["reward"]
        assert estimates["is"].value == pytest.approx(earned / 400, rel=1e-4)
        assert estimates["wis"].value == pytest.approx(earned / weight.sum(), rel=1e-4)
        low, high = estimates["wis"].low, estimates["wis"].high
        assert low is not None and high is not None and low < estimates["wis"].value < high
    # Arms with features that every round has anew, and a policy that was never meant for logs.
    fresh = hw.train("LinUCB", env=hw.make("feature-bandit", arms=3, feature_size=2, fresh=True),
                     steps=30, seeds=1, progress=False)  # fmt: skip
    draw = np.random.default_rng(0)
    data = hw.Pulls(
        np.zeros((200, 0), np.float32), draw.normal(size=(200, 3, 2)).astype(np.float32),
        draw.integers(3, size=200), np.ones(200, np.float32), np.full(200, 1 / 3, np.float32),
    )  # fmt: skip
    estimates = hw.evaluate(fresh, data=data, estimators=["wis"], progress=False).estimates
    assert estimates is not None and estimates[0]["wis"].value == pytest.approx(1.0)


def test_what_a_run_of_a_bandit_is_not_judged_by(tmp_path):
    run = hw.train("CRM", str(archive(tmp_path / "log.npz")), seeds=1, updates=1, progress=False)
    narrow = archive(tmp_path / "narrow.npz", context=np.zeros((60, 1)))
    for given, sentence in (
        ({}, "pulls arms: give logged rounds as data to judge it from, and leave out env"),
        ({"data": narrow}, r"contexts have shape \(60, 1\): 60 rows of 2 numbers are needed"),
        ({"data": cart_pole_log()}, "from logged rounds of a bandit .*, not from a Dataset"),
    ):
        with pytest.raises((DataError, SpecificationError), match=sentence):
            hw.evaluate(run, **given, progress=False)
