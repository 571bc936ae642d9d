"""Advice on logs: what is measured, and how often the rules are right where the best is known."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from headwater.analysis.advice import (
    HIDDEN,
    MOST,
    RULES,
    WORTHLESS,
    advise_by,
    advise_on,
    advise_on_tasks,
)
from headwater.analysis.measures import Measures, measure
from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.datasets.dataset import Dataset
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.interaction import begin, interact, random_action
from headwater.environments.registry import make
from headwater.evidence.registry import all_claims

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "advise.md").read_text(encoding="utf-8")


def spaces(discrete):
    """Of the logs of the benchmark."""
    if discrete:
        return Spaces(Box((-np.inf,) * 6, (np.inf,) * 6), Discrete(4))
    return Spaces(Box((-np.inf,) * 4, (np.inf,) * 4), Box((-1.0,) * 2, (1.0,) * 2))


def recorded(seed):
    """What the benchmark found of each log."""
    return json.loads((ROOT / "results" / "benchmarks" / f"advise_{seed}.json").read_text())["logs"]


def verdicts(seed):
    """Which first recommendations are right, which logs have a right one, and what is worthless."""
    first, any_of, worth = [], [], []
    for row in recorded(seed):
        advice = advise_by(Measures(**row["measures"]), spaces(row["discrete"]))
        worth.append(bool(advice.worthless) == row["worthless"])
        if row["worthless"]:
            continue
        scores = {name: np.mean(values) for name, values in row["scores"].items()}
        needed = max(scores.values()) - 0.1
        got = [scores[each.name] for each in advice.recommendations]
        first.append(bool(got) and got[0] >= needed)
        any_of.append(bool(got) and max(got) >= needed)
    return np.mean(first), np.mean(any_of), np.mean(worth), len(worth)


def test_advice_is_as_good_as_was_hoped_on_tasks_on_which_its_rules_were_not_made():
    # The criterion of benchmarks/advise/truth.py, written before anything was trained.
    first, any_of, worth, count = verdicts(1)
    assert count >= 30
    assert first >= 0.8 and any_of >= 0.9 and worth >= 0.9, (first, any_of, worth)


def test_advice_is_no_worse_on_the_tasks_on_which_its_rules_were_made():
    first, any_of, worth, count = verdicts(0)
    assert count >= 30
    assert first >= 0.8 and any_of >= 0.9 and worth >= 0.9, (first, any_of, worth)


def test_what_is_recorded_is_what_is_measured():
    place = ROOT / "benchmarks" / "advise" / "logs.py"
    found = importlib.util.spec_from_file_location("advise_logs", place)
    assert found is not None and found.loader is not None
    logs = importlib.util.module_from_spec(found)
    sys.modules["advise_logs"] = logs
    found.loader.exec_module(logs)
    row = recorded(0)[0]
    log = next(logs.all_logs(0))
    assert log.name == row["log"]
    assert measure(log.data).to_json() == pytest.approx(row["measures"], abs=1e-3)


def log(policy, *, rows=600, length=20, discrete=True, reward=None, **more):
    """A log in which two numbers are observed, and `policy` acts on them."""
    draw = np.random.default_rng(0)
    seen = draw.uniform(-1, 1, (rows, 2))
    actions = policy(draw, seen)
    rewards = draw.normal(size=rows) if reward is None else reward(seen, actions)
    last = np.arange(rows) % length == length - 1
    return Dataset.from_arrays(
        seen,
        actions,
        rewards,
        last & more.pop("ends", False),
        last,
        draw.uniform(-1, 1, (rows, 2)),
        discrete=discrete,
        action_count=3 if discrete else None,
        **more,
    )


def test_agreement_and_support():
    random = measure(log(lambda d, o: d.integers(0, 3, len(o))))
    assert random.agreement < 0.05 and random.support > 0.95
    sure = measure(log(lambda d, o: (o[:, 0] > 0).astype(int)))
    # Neighbours across the boundary act otherwise, which happens near it alone.
    assert sure.agreement > 0.9 and sure.support < 0.45
    uniform = measure(log(lambda d, o: d.uniform(-1, 1, (len(o), 2)), discrete=False))
    assert uniform.agreement < 0.1 and uniform.support > 0.85
    smooth = measure(log(lambda d, o: 0.5 * o, discrete=False))
    assert smooth.agreement > 0.95 and smooth.support < 0.2


def spring(*, hidden=False, continuous=True, episodes=20, length=60):
    """Logs of a mass on a spring that is pushed at random; `hidden` leaves its velocity out."""
    draw = np.random.default_rng(1)
    place, speed = draw.normal(size=(2, episodes))
    columns = []
    for _ in range(length):
        push = draw.uniform(-1, 1, episodes)
        push = push if continuous else np.round(push + 1)
        before = np.stack([place, speed], 1)
        speed = speed - 0.2 * place + 0.3 * push
        place = place + 0.2 * speed
        columns.append((before, push, -(place**2), np.stack([place, speed], 1)))
    seen, acted, earned, after = (
        np.stack(x, 1).reshape(-1, *x[0].shape[1:]) for x in zip(*columns)
    )
    if hidden:
        seen, after = seen[:, :1], after[:, :1]
    last = np.tile(np.arange(length) == length - 1, episodes)
    acted = acted[:, None] if continuous else acted.astype(int)
    nothing = np.zeros(len(last), bool)
    return Dataset.from_arrays(seen, acted, earned, nothing, last, after, discrete=not continuous)


def test_what_observations_hide_is_told():
    for continuous in (True, False):
        assert measure(spring(continuous=continuous)).hidden < 0.1
        hiding = advise_on(spring(hidden=True, continuous=continuous))
        assert hiding.measures.hidden > 0.8
        assert any("observations hide a part of the state" in note for note in hiding.notes)
    assert measure(spring(hidden=True, episodes=1)).hidden == 0.0, "too few rows to say"


@pytest.mark.parametrize(
    ("name", "kept"), [("pendulum", [0, 1]), ("cart-pole", [0, 2]), ("mountain-car", [0])]
)
def test_velocities_that_are_hidden_are_missed(name, kept):
    task, key = make(name), jax.random.key(0)
    assert isinstance(task, AbstractEnvironment)
    act = lambda observation, key: random_action(task.spaces, key=key)
    walk = jax.jit(lambda at: interact(task, at, act, steps=200, key=key)[1])
    rows = walk(begin(task, 8, key=key))
    seen, acted, earned, after, terminal, truncated = (
        np.swapaxes(np.asarray(x), 0, 1).reshape(-1, *x.shape[2:])
        for x in (
            rows.observation, rows.action, rows.reward, rows.next_observation, rows.terminal,
            rows.truncated.at[-1].set(~rows.terminal[-1]),
        )
    )  # fmt: skip

    def hidden(parts):
        log = Dataset.from_arrays(
            seen[:, parts], acted, earned, terminal, truncated, after[:, parts],
            discrete=task.spaces.discrete,
        )  # fmt: skip
        return measure(log).hidden

    assert hidden(list(range(seen.shape[1]))) < HIDDEN and hidden(kept) > 0.9


def test_what_recorded_logs_hide_is_little():
    most = max(row["measures"]["hidden"] for i in (0, 1) for row in recorded(i))
    assert most < HIDDEN
    (told,) = re.findall(r"at most\s+(\d+) %\s+on the logs below", PAGE)
    assert int(told) == round(100 * most)


def test_tasks_one_after_the_other_are_learned_by_what_does_not_forget():
    logs = [spring(), spring(), spring()]
    advice = advise_on_tasks(logs)
    (found,) = advice.recommendations
    assert found.name == "OER (num_tasks=3)"
    assert found.command("a", then=["b c", "d"]) == (
        "headwater train OER --data a --then 'b c' d --set num_tasks=3"
    )
    assert sum("by itself" in note for note in advice.notes) == 3
    with pytest.raises(SpecificationError, match="task 3 does not fit task 1: observations have 2"):
        advise_on_tasks([*logs[:2], spring(hidden=True)])
    discrete = advise_on_tasks([spring(continuous=False)] * 2)
    assert not discrete.recommendations and "OER needs rewards and continuous" in discrete.finding
    few = advise_on_tasks([spring(), spring(episodes=1, length=20)])
    assert few.worthless == ("the log of task 2 is not worth learning from",)


def test_the_best_tenth_may_be_of_another_kind():
    def policy(draw, seen):
        able = np.arange(len(seen)) // 20 % 10 == 0
        return np.where(able, (seen[:, 0] > 0).astype(int), draw.integers(0, 3, len(seen)))

    found = measure(log(policy, rows=3000, reward=lambda o, a: 1.0 * (a == (o[:, 0] > 0))))
    assert found.agreement < 0.2 and found.best_agreement > 0.8
    assert found.best_gain > 1


def test_the_effect_of_an_action_is_the_share_of_variance_that_it_explains():
    draw = np.random.default_rng(1)

    def reward(scale):
        return lambda o, a: a * scale + draw.normal(size=len(a))

    def random(d, o):
        return d.integers(0, 3, len(o))

    # The variance of 0, 1 or 2, each as likely, is 2/3: 6 and 1 are a share of 6/7.
    strong = measure(log(random, rows=3000, length=1, reward=reward(3), ends=True))
    assert strong.effect == pytest.approx(6 / 7, abs=0.05) and strong.single_steps == 1
    none = measure(log(random, rows=3000, length=1, reward=reward(0), ends=True))
    assert none.effect < 0.05


def test_rewards_that_tell_nothing_apart():
    def random(d, o):
        return d.integers(0, 3, len(o))

    assert measure(log(random, reward=lambda o, a: np.zeros(len(a)))).rewarded == 0
    assert measure(log(random, reward=lambda o, a: np.ones(len(a)))).rewarded == 0
    # A cost of each step tells a short way from a long one.
    assert measure(log(random, reward=lambda o, a: -np.ones(len(a)), ends=True)).rewarded == 1


def test_a_log_may_not_be_worth_learning_from():
    random = log(lambda d, o: d.integers(0, 3, len(o)), metadata={"missing": ["rewards"]})
    advice = advise_on(random)
    assert advice.recommendations == ()
    assert advice.finding.startswith("there are no rewards, and the actions are as if drawn at")
    few = advise_on(log(lambda d, o: d.integers(0, 3, len(o)), rows=40))
    assert few.finding.startswith("40 rows are too few for networks: there are 8.0 for each")
    sure = log(lambda d, o: (o[:, 0] > 0).astype(int), metadata={"missing": ["rewards"]})
    assert [each.name for each in advise_on(sure).recommendations] == ["BC"]


def test_rewards_that_reading_lost_are_asked_for():
    draw = np.random.default_rng(0)
    last = np.arange(200) % 5 == 4
    columns = (draw.normal(size=(200, 2)), draw.integers(0, 3, 200), 1.0 * last)
    lost = advise_on(Dataset.from_arrays(*columns, np.zeros(200, bool), last))
    assert lost.recommendations == ()
    assert lost.finding.startswith(
        "all rewards that tell anything were lost in reading: 40 last rows of truncated episodes"
    )
    assert "--episodes-end terminal" in lost.finding
    kept = advise_on(Dataset.from_arrays(*columns, last))
    assert "lost in reading" not in kept.finding


def test_only_what_can_be_trained_on_the_log_is_recommended():
    for row in recorded(0):
        advice = advise_by(Measures(**row["measures"]), spaces(row["discrete"]))
        assert len(advice.recommendations) <= MOST
        names = {each.method for each in advice.recommendations}
        assert not names & ({"TD3BC"} if row["discrete"] else {"DiscreteCQL"})
        if not row["measures"]["rewarded"]:
            assert names <= {"BC"}


def test_reasons_cite_claims_that_there_are():
    known = all_claims()
    cited = {name for rule in RULES for each in rule.learners for name in each.claims}
    assert cited and cited <= set(known)
    conditions = [c for rule in RULES for c in rule.when] + [c for _, w in WORTHLESS for c in w]
    fields = set(Measures.__dataclass_fields__)
    assert {condition.name for condition in conditions} <= fields
    assert not RULES[-1].when, "the last rule holds for whatever is left"


def test_propensities_are_told_whether_they_were_read_or_only_look_like_them():
    draw = np.random.default_rng(0)
    seen, acted, earned = draw.normal(size=(60, 2)), draw.integers(0, 2, 60), draw.normal(size=60)

    def of(**more):
        data = Dataset.from_arrays(seen, acted, earned, np.ones(60), **more)
        return measure(data).propensities

    assert of() == 0.0
    assert of(propensities=np.full(60, 0.5)) == 1.0
    looks = {"chance": "the probability of the logged action"}
    assert of(metadata={"reading": {"looks": looks}}) == 1.0
    assert of(metadata={"reading": {"looks": {"over": "the end of an episode"}}}) == 0.0
