"""Runs and their policies: what they say of themselves, and what they do outside."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.api.run import Policy, Run, open_run
from headwater.api.specifications.choices import MethodChoice
from headwater.api.specifications.specification import Specification
from headwater.api.train import train
from headwater.core.errors import RunError, SpecificationError
from headwater.core.spaces import Box, Discrete, Part
from headwater.datasets.references import References
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.iql import IQL
from headwater.runs.options import Options

from .problems import assert_same, cart_pole_log, pendulum_log

OBSERVATIONS = np.random.default_rng(1).normal(size=(6, 3))
HOW = {"env": "none", "updates": 4, "seeds": 2, "batch_size": 16, "progress": False}


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "kept"
    return train(BC(hidden_sizes=(8, 8), stochastic=True), pendulum_log(), out=out, **HOW)


def test_an_opened_run_is_the_run_that_was_made(kept):
    opened = open_run(kept.path)
    assert_same(kept, opened)
    assert opened.finished and opened.name == "kept" and opened.seeds == 2
    assert opened.specification == kept.specification
    assert repr(opened) == f"Run(kept, 2 seeds, {kept.path})"
    key = jax.random.key(5)
    for ours, theirs in zip(kept.policies, opened.policies):
        np.testing.assert_array_equal(ours(OBSERVATIONS), theirs(OBSERVATIONS))
        sampled = ours(OBSERVATIONS, explore=True, key=key)
        np.testing.assert_array_equal(sampled, theirs(OBSERVATIONS, explore=True, key=key))


def test_a_policy_takes_the_dictionary_of_its_environment(kept):
    parts = (Part(("goal", "place"), (2,)), Part(("speed",), ()))
    box = kept.spaces.observation
    spaces = eqx.tree_at(
        lambda s: s.observation, kept.spaces, Box(box.low, box.high, parts), is_leaf=_is_box
    )
    policy = Policy(kept.method, kept.policy.state, spaces)
    shown = {"goal": {"place": OBSERVATIONS[:, :2]}, "speed": OBSERVATIONS[:, 2]}
    np.testing.assert_array_equal(policy(shown), kept.policy(OBSERVATIONS))
    one = {"speed": OBSERVATIONS[0, 2], "goal": {"place": OBSERVATIONS[0, :2]}}
    np.testing.assert_array_equal(policy(one), kept.policy(OBSERVATIONS[0]))
    for wrong, sentence in (
        ({"goal": shown["goal"]}, "the observation lacks the entry 'speed'"),
        ({**one, "mass": 1.0}, "the entry 'mass', which is not among goal.place, speed"),
        ({**one, "goal": {"place": [1.0]}}, r"'goal.place' has the shape \(1,\) instead of \(2,\)"),
        ({**one, "speed": "fast"}, "the entry 'speed' is no number"),
    ):
        with pytest.raises(SpecificationError, match=sentence):
            policy(wrong)
    with pytest.raises(SpecificationError, match="not known how a dictionary is laid out here"):
        kept.policy(one)


def _is_box(node) -> bool:
    return isinstance(node, Box)


def test_policies_act_in_the_units_of_the_user(kept):
    for i, policy in enumerate(kept.policies):
        state = jax.tree.map(lambda leaf, i=i: leaf[i], kept.state)
        canonical, _ = kept.method.act(
            state, jnp.asarray(OBSERVATIONS[0], jnp.float32), key=jax.random.key(0), explore=False
        )
        # The bounds are -2 and 2.
        np.testing.assert_allclose(policy(OBSERVATIONS[0]), 2.0 * np.asarray(canonical), rtol=1e-5)
    policy = kept.policy
    assert policy(OBSERVATIONS).shape == (6, 1)
    assert policy(OBSERVATIONS.reshape(2, 3, 3)).shape == (2, 3, 1)
    np.testing.assert_array_equal(
        policy(OBSERVATIONS.reshape(2, 3, 3)).reshape(6, 1), policy(OBSERVATIONS)
    )
    assert (policy([0.0, 1.0, 2.0]) == policy(np.asarray([0, 1, 2]))).all()
    # Greedy is repeatable; exploring is new with every call, and bounded.
    np.testing.assert_array_equal(policy(OBSERVATIONS), policy(OBSERVATIONS))
    first, second = (policy(np.zeros((500, 3)), explore=True) for _ in range(2))
    assert (first != second).mean() > 0.9
    assert np.abs(first).max() <= 2.0 and first.std() > 0.5


def test_policies_value_actions_in_the_units_of_the_user():
    run = train(IQL(hidden_sizes=(8, 8)), pendulum_log(), **{**HOW, "seeds": 1})
    state = jax.tree.map(lambda leaf: leaf[0], run.state)
    # The bounds are -2 and 2.
    actions = np.linspace(-2.0, 2.0, 6)[:, None]
    for i in range(6):
        rows = jnp.asarray(OBSERVATIONS[i], jnp.float32), jnp.asarray(actions[i] / 2, jnp.float32)
        expected = run.method.value(state, *rows)
        found = run.policy.value(OBSERVATIONS[i], actions[i])
        assert found.shape == ()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    together = run.policy.value(OBSERVATIONS.reshape(2, 3, 3), actions.reshape(2, 3, 1))
    np.testing.assert_allclose(
        together.reshape(6), run.policy.value(OBSERVATIONS, actions), rtol=1e-6
    )
    with pytest.raises(
        SpecificationError, match=r"shape \(6, 3\) go with actions of .*\(6, 1\), not"
    ):
        run.policy.value(OBSERVATIONS, actions[:, 0])


def test_policies_without_values_say_so(kept):
    with pytest.raises(SpecificationError, match="BC predicts no values of actions"):
        kept.policy.value(OBSERVATIONS, np.zeros((6, 1)))


def test_policies_of_finite_actions_give_integers():
    run = train(BC(hidden_sizes=(8, 8)), cart_pole_log(), **HOW)
    assert isinstance(run.spaces.action, Discrete)
    chosen = run.policy(np.zeros((5, 4)))
    assert chosen.shape == (5,) and np.issubdtype(chosen.dtype, np.integer)
    assert run.policy(np.zeros(4)).shape == () and set(chosen.tolist()) <= {0, 1}
    assert repr(run) == "Run(BC, 2 seeds, in memory)"


@pytest.mark.parametrize(
    "observation, sentence",
    [
        (np.zeros(4), r"this policy observes vectors of 3 components, not of shape \(4,\)"),
        (np.zeros((3, 2)), r"vectors of 3 components, not of shape \(3, 2\)"),
        (1.0, r"vectors of 3 components, not of shape \(\)"),
        ([0.0, np.nan, 0.0], "the observation holds a number that is not finite"),
        ([0.0, np.inf, 0.0], "the observation holds a number that is not finite"),
        ([[0.0], [1.0, 2.0]], "this policy observes vectors of 3 numbers, not"),
        ("up", "this policy observes vectors of 3 numbers, not 'up'"),
    ],
)
def test_policies_say_what_is_wrong_with_an_observation(kept, observation, sentence):
    with pytest.raises(SpecificationError, match=sentence):
        kept.policy(observation)


def evaluated(seeds: list[int], rows: list[tuple[int, int, int, list[float]]], **fields) -> Run:
    """A run of which only the evaluations are known: `(update, steps, seed, returns)`."""
    method = BC(hidden_sizes=(8, 8))
    options = Options(seeds=tuple(seeds), evaluations=2, episodes=2, batch_size=16, updates=10)
    specification = Specification("train", MethodChoice.of(method), options, **fields)
    names = ("update", "environment_steps", "seed", "returns")
    state = {"leaf": np.zeros((len(seeds), 1))}
    evaluations = [dict(zip(names, row)) for row in rows]
    return Run(specification, method, state, pendulum_log().spaces, [], evaluations)


def test_curve_and_returns_follow_the_order_of_the_seeds():
    rows = [
        (0, 0, 3, [1.0, 3.0]),
        (0, 0, 7, [0.0, 0.0]),
        (10, 0, 7, [10.0, 20.0]),
        (10, 0, 3, [4.0, 8.0]),
        # Interrupted before seed 7 was written.
        (20, 0, 3, [99.0, 99.0]),
    ]
    run = evaluated([7, 3], rows)
    np.testing.assert_array_equal(run.final_returns, [[10.0, 20.0], [4.0, 8.0]])
    across, means = run.curve
    np.testing.assert_array_equal(across, [0, 10])
    np.testing.assert_array_equal(means, [[0.0, 15.0], [2.0, 6.0]])
    # Two seeds: the middle half of both is both.
    assert run.score().point == 10.5 and run.score().low is None
    with pytest.raises(SpecificationError, match="BC: no reference returns are known"):
        run.normalised(3.0)


def test_scores_are_normalised_by_the_references_that_the_run_keeps():
    run = evaluated([0], [(0, 0, 0, [5.0])], references=[-10.0, 40.0, "a source", True])
    assert run.references == References(-10.0, 40.0, "a source", True)
    np.testing.assert_allclose(run.normalised([[-10.0, 15.0, 40.0]]), [[0.0, 50.0, 100.0]])


def test_what_is_no_run_is_said(tmp_path, kept):
    with pytest.raises(RunError, match=r"nowhere is no run: there is nothing"):
        open_run(tmp_path / "nowhere")
    other = tmp_path / "other"
    other.mkdir()
    stored = json.loads((kept.path / "run.json").read_text())
    (other / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json: not readable"):
        open_run(other)
    (other / "run.json").write_text(json.dumps({"verb": "train"}))
    with pytest.raises(RunError, match="other: this is not the specification of a run"):
        open_run(other)
    (other / "run.json").write_text(json.dumps({**stored, "spaces": None}))
    with pytest.raises(RunError, match="that can be opened: it was made by another command"):
        open_run(other)
    (other / "run.json").write_text(json.dumps({**stored, "spaces": {}}))
    with pytest.raises(RunError, match="the spaces are incomplete"):
        open_run(other)
    (other / "run.json").write_text(json.dumps(stored))
    with pytest.raises(RunError, match=r"nothing was saved yet; start it with `headwater resume"):
        open_run(other)
