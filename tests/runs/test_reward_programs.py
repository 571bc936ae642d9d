"""ICPL's rounds, with proposers and judges whose answers are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.reward_programs.language import terms_in, translate
from headwater.environments.reward_programs.machine import reward_of
from headwater.environments.reward_programs.rewarded import StepFeatures
from headwater.runs.recipes.reward_programs.feedback import Attempt, Round
from headwater.runs.recipes.reward_programs.language_model import LanguageModelProposer
from headwater.runs.recipes.reward_programs.practice import MethodLearner, practise
from headwater.runs.recipes.reward_programs.rounds import (
    best_and_worst,
    reward_from_preferences,
    train_with,
)
from headwater.runs.recipes.reward_programs.scripted import ScriptedProposer
from headwater.sources.collect import Collect

from .tiny import Tiny

TASK = Pendulum()
FEATURES = StepFeatures(
    ("height", "speed", "effort"),
    lambda observation, action, after: jnp.stack([after[0], jnp.abs(after[2]), jnp.abs(action[0])]),
)


def pushing(program, key):
    """A learner: of eleven constant torques the one for which the program pays most."""
    pushes = jnp.linspace(-1.0, 1.0, 11)

    def paid(push):
        return reward_of(program, jnp.stack([0.0 * push, 0.0 * push, jnp.abs(push)]))

    push = pushes[jnp.argmax(jax.vmap(paid)(pushes))]
    act = lambda observation, key: push[None]
    return practise(push, TASK, FEATURES, act, episodes=2, key=key)


class Listed:
    """A proposer that has written everything beforehand, and keeps what it is told."""

    def __init__(self, *rounds):
        self.rounds, self.told = rounds, ()

    def propose(self, rounds, count):
        self.told = rounds
        return list(self.rounds[len(rounds)])


def near(push):
    """Pays most for a torque of this size."""
    return f"near: exp(-square(effort - {push}) / 0.01)\nidle: 0 * height"


def least(practice):
    """What the judge is shown: minus the size of the torque of the first policy."""
    return -abs(float(practice.policy[0]))


def strict(first, second):
    return 0.5 if first == second else float(first > second)


def test_the_best_of_all_rounds_is_returned_with_what_was_told():
    proposer = Listed(
        [near(0.8), near(0.4), near(1.0)],
        [near(0.2), near(0.6), near(0.8)],
        [near(0.4), near(0.6), near(1.0)],
    )
    found = reward_from_preferences(
        proposer, FEATURES, pushing, strict, least, rounds=3, programs=3, key=jax.random.key(0)
    )
    assert found.text == near(0.2)
    assert [r.best.text for r in found.rounds] == [near(0.4), near(0.2), near(0.4)]
    assert [r.worst.text for r in found.rounds] == [near(1.0), near(0.8), near(1.0)]
    assert [r.champion.text for r in found.rounds] == [near(0.4), near(0.2), near(0.2)]
    assert proposer.told == found.rounds[:2]
    # Three of each three, and three with the champion from the second round on.
    assert found.comparisons == 3 * 3 + 2 * 3
    np.testing.assert_allclose(np.abs(found.practice.policy), 0.2, atol=1e-6)
    assert found.practice.inside.shape == (2, 200, 2) and found.practice.inside.all()
    tried = found.rounds[1].best
    assert tried.features["effort"] == pytest.approx(0.2, abs=1e-6)
    assert tried.terms == pytest.approx({"near": 1.0, "idle": 0.0})
    speed = np.mean(np.abs(found.practice.steps.next_observation[..., 2]))
    assert tried.features["speed"] == pytest.approx(speed, rel=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5, 6, 9])
def test_the_best_and_the_worst_are_found(count):
    random, asked = np.random.default_rng(count), []

    def judge(first, second):
        asked.append((first, second))
        return strict(first, second)

    for _ in range(20):
        seen = random.permutation(count).tolist()
        asked.clear()
        best, worst = best_and_worst(seen, judge)
        assert (seen[best], seen[worst]) == (count - 1, 0)
        assert len(asked) <= 2 * count - 3


def test_bad_input():
    run = functools.partial(
        reward_from_preferences,
        Listed([near(0.2), near(0.4)]),
        FEATURES,
        pushing,
        shown=least,
        rounds=1,
        key=jax.random.key(0),
    )
    with pytest.raises(SpecificationError, match="programs = 1 and policies = 2: take at least"):
        run(judge=strict, programs=1)
    with pytest.raises(DataError, match=r"the judge answered 2: 1, 0 or 0\.5 is"):
        run(judge=lambda first, second: 2, programs=2)
    with pytest.raises(SpecificationError, match="unknown feature or function 'hight'"):
        train_with(pushing, ["x: hight"], FEATURES, policies=1, key=jax.random.key(0))


def test_a_method_is_trained_with_a_reward():
    """As the method would learn in a task of this reward; the reward of the log is the task's."""

    def acting(task):
        return Collect(task, capacity=8, batch_size=4, steps_per_draw=2, random_steps=0)

    learner = MethodLearner(Tiny(), TASK, FEATURES, acting, updates=5, episodes=1)
    found = train_with(
        learner, ["x: height", "x: -effort"], FEATURES, policies=2, key=jax.random.key(0)
    )
    assert len(found) == 2 and found[0].features.shape == (2, 200, 1, 3)
    seen = found[0].steps
    np.testing.assert_allclose(found[0].features[..., 0], seen.next_observation[..., 0])
    assert (np.asarray(seen.reward) < 0).all()
    states = [jax.tree.leaves(practice.policy) for practice in found]
    assert any(not np.array_equal(a, b) for a, b in zip(*states))


# Proposers ---------------------------------------------------------------------------------------


def attempt(text, **features):
    return Attempt(text, {term.name: 1.0 for term in terms_in(text)}, features)


GOOD = attempt("a: 1.00 * height", height=1.0, speed=1.0, effort=0.5)
POOR = attempt("a: 1.00 * effort\nb: 1.00 * height", height=0.0, speed=1.0, effort=0.5)
TOLD = Round((GOOD, POOR), GOOD, POOR, GOOD)


def test_a_scripted_proposer_writes_programs_of_the_language():
    proposer = ScriptedProposer(FEATURES, np.random.default_rng(0))
    texts = [*proposer.propose((), 20), *proposer.propose((TOLD,), 20)]
    assert len(texts) == 40 and len(set(texts)) > 30
    for text in texts:
        translate(text, FEATURES.names)
    again = ScriptedProposer(FEATURES, np.random.default_rng(0))
    assert texts[:20] == again.propose((), 20)


def test_it_pays_for_what_the_judge_seems_to_want():
    """Height alone differs between the best and the worst: new terms are about it, and mostly up.

    Seen in the programs written from nothing but the feedback, whose terms all push.
    """
    proposer = ScriptedProposer(FEATURES, np.random.default_rng(1))
    wanted = proposer._wanted((TOLD,))
    assert wanted[0] > 0 and not wanted[1:].any()
    terms = [proposer._guided(wanted) for _ in range(200)]
    assert all("height" in term for term in terms)
    # A bump is highest at zero, so that it pays for less.
    upward = [term.startswith("-") == ("exp(" in term) for term in terms]
    assert 0.8 < np.mean(upward) < 1.0


def test_what_only_the_worst_has_is_left_out():
    """The champion's term that the worst shares and the best has not never stays."""
    champion = attempt("a: 1.00 * effort\nb: 0.50 * speed", height=0.5, speed=1.0, effort=0.5)
    last = Round((GOOD, POOR), GOOD, POOR, champion)
    proposer = ScriptedProposer(FEATURES, np.random.default_rng(2))
    wanted = np.asarray([1.0, 0.0, 0.0])
    children = [proposer._child(last, wanted) for _ in range(50)]
    assert not any("effort" in child for child in children)
    assert 0.7 < np.mean(["speed" in child for child in children]) < 0.97


def test_any_language_model_can_propose():
    """It is told the task, the features and what came of rewards, and asked again if need be."""
    asked = []

    def answer(question):
        asked.append(question)
        if len(asked) == 1:
            return "Here:\n```\nup: height\n```\nand\n```python\nimport os\n```"
        return "```\nslow: -0.1 * speed\n```\n```\nmore: height\n```"

    proposer = LanguageModelProposer(answer, "stand up", FEATURES, {"height": "of the tip"})
    found = proposer.propose((TOLD,), 2)
    assert found == ["up: height", "slow: -0.1 * speed"]
    first, second = asked
    assert "The task: stand up" in first and "- height: of the tip\n- speed" in first
    assert "preferred the policies of this reward:\n```\na: 1.00 * height\n```" in first
    assert "found those of this one the worst:\n```\na: 1.00 * effort" in first
    assert "height 1, speed 1, effort 0.5" in first and "Answer with 2 programs" in first
    assert "line 1 of the reward is no term" in second and "Answer with 1 programs" in second
    with pytest.raises(RunError, match="wrote 0 of 1 rewards in 2 answers: no program stood"):
        LanguageModelProposer(lambda _: "no", "x", FEATURES, attempts=2).propose((), 1)
