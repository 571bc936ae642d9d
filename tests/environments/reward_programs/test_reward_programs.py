"""The language of rewards against Python's own arithmetic, and what it refuses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.interaction import begin, interact, random_action
from headwater.environments.reward_programs.language import (
    MOST_TERMS,
    features_in,
    terms_in,
    translate,
)
from headwater.environments.reward_programs.machine import (
    DEPTH,
    LARGEST,
    LENGTH,
    Operation,
    RewardProgram,
    reward_of,
    terms_of,
)
from headwater.environments.reward_programs.rewarded import RewardedByProgram, StepFeatures

NAMES = ("speed", "far")
EVALUATE = jax.jit(terms_of)


def value(expression, speed=0.5, far=-2.0):
    program = translate(f"x: {expression}", NAMES)
    return float(EVALUATE(program, jnp.asarray([speed, far]))[0])


# Each beside what it means, written in Python.
MEANINGS = {
    "1 - 2 - 3": 1 - 2 - 3,
    "8 / 2 / 2": 8 / 2 / 2,
    "1 + 2 * 3": 7,
    "(1 + 2) * 3": 9,
    "-speed * far": 1.0,
    "--speed": 0.5,
    "2 - -far": 2 - 2,
    "1.5e-1 + .25": 0.4,
    "exp(-square(far) / 0.5)": math.exp(-4 / 0.5),
    "sqrt(abs(far))": math.sqrt(2),
    "tanh(speed) - min(speed, far) + max(speed, far)": math.tanh(0.5) + 2 + 0.5,
    "clip(far, -1, speed)": -1,
    "clip(3, -1, speed)": 0.5,
    "clip(0.2, -1, speed)": 0.2,
    "max(min(1, 2), clip(3, 0, min(4, 5)) - 1)": 2,
}


@pytest.mark.parametrize("expression", MEANINGS)
def test_expressions_mean_what_they_do_elsewhere(expression):
    assert value(expression) == pytest.approx(MEANINGS[expression], rel=1e-5)


def test_random_expressions_agree_with_their_trees():
    """Written, read and evaluated, against the tree that was written from, in NumPy."""
    random = np.random.default_rng(0)
    features = random.normal(size=(5, 2))
    pairs = {"+": np.add, "-": np.subtract, "*": np.multiply}
    named = {"abs": np.abs, "square": np.square, "tanh": np.tanh}

    def draw(depth):
        kind = random.integers(4) if depth else random.integers(2)
        if kind == 0:
            number = round(float(random.uniform(0, 3)), 3)
            return str(number), np.full(5, number)
        if kind == 1:
            place = int(random.integers(2))
            return NAMES[place], features[:, place]
        left, known = draw(depth - 1)
        if kind == 2:
            function = str(random.choice(list(named)))
            return f"{function}({left})", named[function](known)
        right, other = draw(depth - 1)
        sign = str(random.choice(list(pairs)))
        return f"({left} {sign} {right})", pairs[sign](known, other)

    for _ in range(40):
        text, expected = draw(3)
        found = EVALUATE(translate(f"x: {text}", NAMES), jnp.asarray(features, jnp.float32))[0]
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-4, err_msg=text)


def test_terms_stay_apart_and_add_up():
    text = "a: speed\n\n# a remark\nb: far * far  # another\nc: -20"
    program = translate(text, NAMES)
    features = jnp.asarray([[0.5, -2.0], [1.0, 3.0]])
    terms = np.asarray(EVALUATE(program, features))
    np.testing.assert_allclose(terms[:3], [[0.5, 1.0], [4.0, 9.0], [-20.0, -20.0]])
    assert terms.shape == (DEPTH, 2) and not terms[3:].any()
    np.testing.assert_allclose(reward_of(program, features), [-10.0, -10.0])
    np.testing.assert_allclose(reward_of(program, features, 100.0), [-15.5, -10.0])
    assert features_in(terms_in(text)[1], NAMES) == {"far"}


def test_programs_are_mapped_over():
    """One compiled function serves programs of any length, side by side as one by one."""
    texts = ["a: speed", "a: exp(far)\nb: clip(speed, -1, 1) / 0", "a: min(speed, far) * 2"]
    each = [translate(text, NAMES) for text in texts]
    together = jax.tree.map(lambda *x: jnp.stack(x), *each)
    features = jnp.asarray([[0.5, -2.0], [1.0, 3.0]])
    mapped = jax.vmap(lambda program: terms_of(program, features))(together)
    np.testing.assert_array_equal(mapped, np.stack([EVALUATE(one, features) for one in each]))


def test_whatever_is_written_stays_finite():
    random = np.random.default_rng(1)
    features = jnp.asarray([1e6, 0.0])
    for expression in ("exp(exp(speed))", "speed / far", "-1 / (far - 0)", "sqrt(-speed)"):
        assert abs(value(expression, 1e6, 0.0)) <= LARGEST
    assert value("-1 / (0 - 0.0000001)", 1e6, 0.0) == LARGEST
    # Also instructions that no text is translated to.
    run = jax.jit(jax.vmap(terms_of, in_axes=(0, None)))
    programs = RewardProgram(
        jnp.asarray(random.integers(0, len(Operation), (200, LENGTH)), jnp.int32),
        jnp.asarray(random.normal(size=(200, LENGTH)) * 1e6, jnp.float32),
        jnp.asarray(random.integers(0, 2, (200, LENGTH)), jnp.int32),
    )
    assert np.isfinite(run(programs, features)).all()


REFUSED = {
    "x: sped": "term 'x' of the reward: unknown feature or function 'sped': did you mean speed?",
    "x: __import__(far)": "unknown feature or function '__import__'",
    "x: far.real": "term 'x' of the reward: '.' is not in the language",
    "x: far ** 2": "a value is expected instead of '\\*'",
    "x: exp(far": "'\\)' is expected instead of the end of the line",
    "x: clip(far, 1)": "',' is expected instead of '\\)'",
    "x: far far": "'far' is not expected where it stands",
    "x: exp": "term 'x' of the reward: '\\(' is expected instead of the end of the line",
    "x:": "line 1 of the reward is no term",
    "x = far": "line 1 of the reward is no term",
    "x: far\nx: speed": "line 2 of the reward: there is a term 'x' already",
    "": "the reward has 0 terms: write 1 to 8",
    "x: 1e7": "1e7 is larger than 1e\\+06",
    "x: " + "(" * 30 + "far" + ")" * 30: "nested more than 20 deep",
    "x: " + " + ".join(["far"] * 60): "takes 119 instructions and 96 is the most",
    "x: " + "far - (" * 17 + "far" + ")" * 17: "keeps too many values at once",
}


@pytest.mark.parametrize("text", REFUSED, ids=[text[:20] for text in REFUSED])
def test_what_is_not_in_the_language_is_refused(text):
    with pytest.raises(SpecificationError, match=REFUSED[text]):
        translate(text, NAMES)


def test_too_many_terms_and_names_that_cannot_be_told_apart():
    with pytest.raises(SpecificationError, match="has 9 terms: write 1 to 8"):
        terms_in("\n".join(f"x{i}: 1" for i in range(MOST_TERMS + 1)))
    for names in (("Speed",), ("exp",), ("a b",), ("far", "far")):
        with pytest.raises(SpecificationError, match="cannot be the name of a feature"):
            StepFeatures(names, lambda observation, action, after: after)


def test_a_task_with_another_reward():
    """The pendulum's own reward as a program, along the same random steps as the task itself."""
    task = Pendulum()
    features = StepFeatures(
        ("cosine", "sine", "velocity", "torque"),
        lambda observation, action, after: jnp.append(observation, 2.0 * action[0]),
    )
    # Half the squared angle is nearly what the cosine falls short of one by, near the top.
    text = "up: 2 * (cosine - 1)\ncosts: -0.1 * square(velocity) - 0.001 * square(torque)"
    rewarded = RewardedByProgram(task, translate(text, features.names), features)
    act = lambda observation, key: random_action(task.spaces, key=key)

    @jax.jit
    def walked(environment):
        at = begin(environment, 3, key=jax.random.key(0))
        return interact(environment, at, act, steps=60, key=jax.random.key(1))[1]

    ours, theirs = walked(rewarded), walked(task)
    np.testing.assert_allclose(ours.observation, theirs.observation, atol=1e-4)
    cosine, _, velocity = np.moveaxis(np.asarray(ours.observation, np.float64), -1, 0)
    expected = 2 * (cosine - 1) - 0.1 * velocity**2 - 0.004 * np.asarray(ours.action)[..., 0] ** 2
    np.testing.assert_allclose(ours.reward, np.clip(expected, -10, 10), atol=1e-4)
    assert rewarded.spaces == task.spaces and rewarded.name == "pendulum (another reward)"
