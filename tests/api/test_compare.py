"""Runs side by side: differences and savings of known curves."""

import dataclasses
import json

import numpy as np
import pytest

from headwater.api.compare import compare, select
from headwater.api.run import Run
from headwater.api.specifications.choices import MethodChoice, TaskChoice
from headwater.api.specifications.specification import Specification
from headwater.api.train import train
from headwater.cli.compare import print_comparison
from headwater.core.errors import SpecificationError
from headwater.datasets.dataset import Dataset
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.online.sac import SAC
from headwater.runs.feeds.logged import DataChoice
from headwater.runs.options import Options
from headwater.runs.recipes.online import Budget

from .problems import pendulum_log

SEEDS = 4
LOG = DataChoice("/log.npz", {}, "hash")


def made(
    curves: dict[int, float], *, task: str | None = "pendulum", first: int = 50, **fields
) -> Run:
    """A run whose seed `i` returned `i` more than its curve says, by environment steps.

    The first evaluation is made after `first` steps of warm-up. Both episodes return the same.
    """
    online = "budget" in fields
    method = SAC(hidden_sizes=(8, 8)) if online else BC(hidden_sizes=(8, 8))
    choice = None if task is None else TaskChoice(task, {})
    chosen = {"updates": fields.pop("updates", 100), "recipe": fields.pop("recipe", None)}
    chosen["keep_best"] = fields.pop("keep_best", False)
    options = Options(seeds=SEEDS, evaluations=2, episodes=2, batch_size=16, **chosen)
    specification = Specification("train", MethodChoice.of(method), options, task=choice, **fields)
    rows = [
        {
            "stage": "online",
            "stage_index": 0,
            "update": 4 * steps,
            "environment_steps": max(first, steps) if online else 0,
            "seed": seed,
            "returns": [level + seed, level + seed],
        }
        for steps, level in curves.items()
        for seed in range(SEEDS)
    ]
    return Run(specification, method, {}, pendulum_log().spaces, [], rows)


BUDGET = Budget(400)


def scratch() -> Run:
    return made({0: 0.0, 100: 20.0, 200: 40.0, 300: 95.0, 400: 100.0}, budget=BUDGET)


def adapted() -> Run:
    return made(
        {0: 50.0, 100: 110.0, 200: 120.0, 300: 130.0, 400: 140.0}, budget=BUDGET, recipe="wsrl"
    )


def test_savings_and_advantage_of_known_curves():
    offline = made({0: 0.0, 100: 70.0}, updates=100)
    found = compare([scratch(), adapted(), offline], names=["scratch", "wsrl", "offline"])
    # The only run that acted without a log.
    assert found.baseline == "scratch" and found.task == "pendulum"
    # The level of seeds 0 to 3 is 1.5 above the curve: from 1.5 to 101.5.
    assert found.target == pytest.approx(1.5 + 0.9 * 100.0)
    base, wsrl, before = found.rows
    assert base.advantage is None and base.savings is None
    assert base.score.point == pytest.approx(101.5) and base.score.seeds == SEEDS
    assert (wsrl.method, wsrl.recipe, wsrl.steps, wsrl.updates) == ("SAC", "wsrl", 400, 1600)
    assert wsrl.advantage.interval.point == pytest.approx(40.0)
    # All reach 91.5 at 400 steps without the log, and at 100 with it.
    assert wsrl.savings.ratio == pytest.approx(3.0) and wsrl.savings.known == "exactly"
    np.testing.assert_array_equal(wsrl.savings.with_log.latest, [100.0] * SEEDS)
    np.testing.assert_array_equal(wsrl.savings.without_log.latest, [300.0] * SEEDS)
    # What did not act has no samples to save.
    assert before.savings is None and before.advantage.interval.point == pytest.approx(-30.0)
    assert before.recipe is None and before.steps == 0
    # New samples are counted from zero, whatever the warm-up.
    steps, returns = found.curves["wsrl"]
    np.testing.assert_array_equal(steps, [0, 100, 200, 300, 400])
    np.testing.assert_array_equal(returns[:, 0], 50.0 + np.arange(SEEDS))
    assert set(found.curves) == {"scratch", "wsrl"}
    stored = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [row["name"] for row in stored["runs"]] == ["scratch", "wsrl", "offline"]
    assert stored["runs"][1]["savings"]["ratio"] == pytest.approx(3.0)
    assert stored["runs"][0]["savings"] is None and stored["runs"][0]["normalised"] is None


def test_targets_that_are_met_at_once_or_never():
    found = compare([scratch(), adapted()], names=["a", "b"], target=40.0)
    savings = found.rows[1].savings
    # Met before the first update, which is told beside, and held from the first evaluation on.
    assert savings.known == "exactly" and savings.ratio == pytest.approx(200 / 100)
    assert savings.before.point == pytest.approx(51.5)
    found = compare([scratch(), adapted()], names=["a", "b"], target=120.0)
    savings = found.rows[1].savings
    # Seeds 0 to 3 reach 120 at 200 steps; without the log it takes more than 400.
    assert savings.known == "at least" and savings.ratio == pytest.approx(400 / 200)
    json.dumps(found.to_json(), allow_nan=False)


def test_the_baseline_is_chosen_only_where_there_is_one():
    rlpd = made({0: 0.0, 400: 90.0}, budget=BUDGET, data=LOG, recipe="rlpd")
    found = compare([rlpd, adapted()], names=["rlpd", "wsrl"])
    assert found.baseline is None and found.target is None
    assert all(row.advantage is None and row.savings is None for row in found.rows)
    two = compare([scratch(), scratch(), adapted()], names=["a", "b", "c"])
    assert two.baseline is None
    # A recipe of its own says the same.
    named = made({0: 0.0, 400: 90.0}, budget=BUDGET, recipe="scratch")
    assert compare([named, adapted()], names=["a", "b"]).baseline == "a"
    compared = compare([scratch(), scratch(), adapted()], names=["a", "b", "c"], baseline="b")
    assert compared.baseline == "b" and compared.rows[0].advantage.interval.point == 0.0
    assert compare([scratch()]).baseline is None
    unfinished = dataclasses.replace(scratch(), finished=False)
    assert compare([unfinished, adapted()], names=["a", "b"]).baseline is None


def test_scores_are_normalised_where_references_are_known():
    references = [0.0, 200.0, "known", False]
    found = compare([made({0: 0.0, 100: 98.5}, updates=100, references=references)], level=0.8)
    assert found.rows[0].normalised.point == pytest.approx(50.0)
    assert found.rows[0].score.level == 0.8


def test_returns_by_which_runs_were_chosen_are_told_apart(capsys):
    last, best = made({0: 0.0, 100: 5.0}), made({0: 9.0, 100: 5.0}, keep_best=True)
    result = compare([last, best], names=["last", "best"])
    assert [row.score.point for row in result.rows] == [6.5, 10.5]
    (remark,) = result.remarks
    assert remark.startswith("best: the best evaluation of each seed, by which it was chosen")
    assert [row["keeps_best"] for row in result.to_json()["runs"]] == [False, True]
    print_comparison(result)
    assert remark in capsys.readouterr().out.replace("\n", " ")
    assert not compare([last], names=["last"]).remarks


def test_figures_are_drawn(tmp_path):
    for runs, name in (
        ([scratch(), adapted()], "curves.png"),
        ([made({0: 1.0}, updates=1)], "bar.png"),
    ):
        names = [str(i) for i in range(len(runs))]
        path = compare(runs, names=names).draw(tmp_path / name)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_compared_is_said():
    with pytest.raises(SpecificationError, match="0 runs are called nothing: give at least one"):
        compare([])
    with pytest.raises(SpecificationError, match="2 runs are called SAC, SAC: give at least one"):
        compare([scratch(), adapted()])
    with pytest.raises(SpecificationError, match="2 runs are called a: give at least one run, and"):
        compare([scratch(), adapted()], names=["a"])
    other = made({0: 1.0}, task="cart-pole", updates=1)
    with pytest.raises(SpecificationError, match="different tasks: cart-pole, pendulum"):
        compare([scratch(), other], names=["a", "b"])
    with pytest.raises(SpecificationError, match="b was never evaluated: train it with"):
        compare([scratch(), made({}, updates=1)], names=["a", "b"])
    with pytest.raises(SpecificationError, match="unknown run 'scratsh': did you mean scratch"):
        compare([scratch(), adapted()], names=["scratch", "b"], baseline="scratsh")


def test_runs_are_chosen_between_from_a_log_alone(tmp_path):
    """A log of one decision with known rewards: the better of two cloned policies is deployed."""
    rng = np.random.default_rng(0)
    rows, better = 600, 1
    action = rng.integers(0, 2, rows)
    log = Dataset.from_arrays(
        rng.normal(size=(rows, 2)),
        action,
        np.where(action == better, 1.0, 0.0) + 0.1 * rng.normal(size=rows),
        np.ones(rows),
        action_count=2,
        propensities=np.full(rows, 0.5),
    )
    runs = []
    for wanted in (0, 1):
        shown = log.select_episodes(np.flatnonzero(log.actions == wanted))
        path = tmp_path / f"always-{wanted}"
        clone = BC(hidden_sizes=(8,))
        runs.append(train(clone, shown, updates=400, batch_size=32, out=path, progress=False))
    found = select(runs, log, estimator="wis", progress=False)
    worse, best, behaviour = found.candidates
    assert found.deploy == best.name == "always-1" and found.episodes == rows
    assert best.value == pytest.approx(1.0, abs=0.05) and worse.value == pytest.approx(0, abs=0.05)
    assert behaviour.value == pytest.approx(float(log.rewards.mean()))
    assert best.probability_best == 1.0 and best.confidence_better == 1.0
    # Cloned from half of the log, the policies do nothing that the rows of the other half show.
    alone = select(runs[:1], log, estimator="wis", progress=False)
    assert alone.deploy is None
    with pytest.raises(SpecificationError, match="unknown estimator 'wiss'"):
        select(runs, log, estimator="wiss")
    with pytest.raises(SpecificationError, match="always-0 does not fit the data"):
        select(runs, pendulum_log())
