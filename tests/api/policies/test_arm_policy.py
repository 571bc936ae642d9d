"""A policy over arms in a program of one's own: what it predicts, learns, keeps and refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.api.policies import arm_policy
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.core.method import AbstractArmPolicy

ROWS, ARMS, SIZE = 13, 4, 3
DRAW = np.random.default_rng(0)
CONTEXTS = DRAW.normal(size=(ROWS, SIZE)).astype(np.float32)
PULLED = DRAW.integers(ARMS, size=ROWS)
REWARDS = DRAW.uniform(size=ROWS)
PROBLEM = hw.Arms(ARMS, SIZE)


def test_lin_ucb_is_ridge_regression():
    policy = hw.ArmPolicy(hw.LinUCB(ridge=0.5), PROBLEM)
    # In two parts, of other sizes than powers of two.
    policy.partial_fit(CONTEXTS[:5], PULLED[:5], REWARDS[:5])
    assert policy.partial_fit(CONTEXTS[5:], PULLED[5:], REWARDS[5:]) is policy
    means = np.zeros((ROWS, ARMS))
    for arm in range(ARMS):
        x, y = CONTEXTS[arm == PULLED].astype(float), REWARDS[arm == PULLED]
        means[:, arm] = CONTEXTS @ np.linalg.solve(x.T @ x + 0.5 * np.eye(SIZE), x.T @ y)
    np.testing.assert_array_equal(policy.predict(CONTEXTS), means.argmax(axis=1))
    assert policy.predict(CONTEXTS[0]) == means[0].argmax()
    assert len(set(policy.predict(CONTEXTS).tolist())) > 1


def test_rounds_one_by_one_teach_what_a_log_in_order_does(tmp_path):
    data = hw.Pulls(
        CONTEXTS, np.zeros((1, ARMS, 0), np.float32), PULLED.astype(np.int32),
        REWARDS.astype(np.float32), np.full(ROWS, 0.25, np.float32),
    )  # fmt: skip
    options = {"seeds": 1, "batch_size": 1, "reward_range": (0.0, 1.0), "progress": False}
    hw.train("SquareCB", data, evaluations=1, **options, out=tmp_path / "run")
    policy = hw.ArmPolicy(hw.build_method("SquareCB"), PROBLEM)
    for context, arm, reward in zip(CONTEXTS, PULLED, REWARDS):
        policy.partial_fit(context[None], arm, reward)
    compare = lambda found, expected: np.testing.assert_allclose(found, expected, rtol=1e-5)
    compare(policy.predict_proba(CONTEXTS, explore=True),
            hw.open_run(tmp_path / "run").policy.predict_proba(CONTEXTS, explore=True))  # fmt: skip


def test_it_pulls_as_it_says():
    policy = hw.ArmPolicy(hw.EXP3(), hw.Arms(ARMS))
    policy.partial_fit(None, [1, 1, 2], [0.0, 0.1, 1.0], [0.25, 0.25, 0.25])
    chances = policy.predict_proba(explore=True)
    assert chances.shape == (ARMS,) and np.ptp(chances) > 1e-3
    arms, propensities = policy.pull(np.zeros((4_000, 0)))
    np.testing.assert_allclose(propensities, chances[arms], rtol=1e-6)
    found = np.bincount(arms, minlength=ARMS) / 4_000
    np.testing.assert_allclose(found, chances, atol=4.0 * np.sqrt(0.25 / 4_000))
    one, chance = policy.pull()
    assert np.shape(one) == np.shape(chance) == ()


def test_a_policy_of_the_same_settings_compiles_nothing_anew():
    """Programs are found by the method's settings, whoever holds it and whatever the contexts."""

    def play():
        policy = hw.ArmPolicy(hw.LinUCB(bonus_scale=0.7), PROBLEM)
        for context, reward in zip(CONTEXTS, REWARDS):
            arm, propensity = policy.pull(context)
            policy.partial_fit(context, arm, reward, propensity)

    play()
    programs = (arm_policy._pulled, arm_policy._learned)
    counted = [program._cache_size() for program in programs]
    play()
    assert [program._cache_size() for program in programs] == counted


def test_features_of_arms_may_change_with_the_round():
    policy = hw.ArmPolicy(hw.LinUCB(), hw.Arms(ARMS, 0, 2))
    features = DRAW.normal(size=(ROWS, ARMS, 2))
    weights = np.asarray([1.0, -2.0])
    rewards = np.clip(0.5 + 0.1 * (features @ weights), 0, 1)
    rows = np.arange(ROWS)
    for _ in range(20):
        policy.partial_fit(None, PULLED, rewards[rows, PULLED], features=features)
    best = policy.predict(np.zeros((ROWS, 0)), features)
    assert np.mean(best == (features @ weights).argmax(axis=1)) > 0.8


@pytest.mark.parametrize("name", ["LinUCB", "ThompsonSampling", "NeuSquareCB"])
def test_what_is_saved_goes_on_where_it_was(name, tmp_path):
    context = name != "ThompsonSampling"
    problem = hw.Arms(ARMS, SIZE if context else 0)
    policy = hw.ArmPolicy(hw.build_method(name), problem, seed=3)
    contexts = CONTEXTS if context else None
    policy.partial_fit(contexts, PULLED, np.round(REWARDS))
    path = policy.save(tmp_path / "policy.safetensors")
    again = hw.ArmPolicy.load(path)
    assert again.problem == problem
    jax.tree.map(np.testing.assert_array_equal, again.state, policy.state)
    for ours, theirs in zip(policy.pull(contexts), again.pull(contexts)):
        np.testing.assert_array_equal(ours, theirs)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RunError, match="not a readable policy over arms"):
        hw.ArmPolicy.load(path)
    again._key = again._key[:1]
    with pytest.raises(RunError, match="not a readable policy over arms"):
        hw.ArmPolicy.load(again.save(path))


def test_whether_a_method_needs_propensities_is_found_out():
    needing = []
    for name, cls in hw.all_methods().items():
        if issubclass(cls, AbstractArmPolicy) and name not in ("BatchedHedge", "CRM"):
            for problem in (PROBLEM, hw.Arms(ARMS), hw.Arms(ARMS, 0, 2, jnp.eye(ARMS, 2))):
                try:
                    policy = hw.ArmPolicy(hw.build_method(name), problem)
                    policy.partial_fit(CONTEXTS[:1] if problem is PROBLEM else None, [0], [0.0])
                except SpecificationError as error:
                    if "propensities" in str(error):
                        needing.append(name)
    assert set(needing) == {"EXP3", "EXP4"}


def test_what_cannot_be_is_refused_and_changes_nothing():
    policy = hw.ArmPolicy(hw.LinUCB(), PROBLEM)
    before = jax.tree.map(np.asarray, policy.state)

    def refused(match, *given, kind=DataError):
        with pytest.raises(kind, match=match):
            policy.partial_fit(*given)

    refused(r"row 2: arm 4 is not one of 0 … 3", CONTEXTS[:2], [0, 4], [0.0, 0.0])
    refused(r"row 1: reward 1\.5 lies outside", CONTEXTS[:1], [0], [1.5])
    refused("one arm and one reward", CONTEXTS[:2], [0, 1], [0.0])
    refused("each round has 3 numbers", CONTEXTS[:2, :2], [0, 1], [0.0, 1.0])
    refused("rounds have contexts of 3 numbers", None, [0], [0.0])
    refused("arms are numbers of arms", CONTEXTS[:1], [0.5], [0.0])
    refused("row 1: propensity 0", CONTEXTS[:1], [0], [0.0], [0.0])
    refused("row 2: contexts hold a number", CONTEXTS[:2] * [[1.0], [np.nan]], [0, 1], [0.0, 1.0])
    refused("contexts are arrays of numbers", [["a", "b", "c"]], [0], [0.0])
    jax.tree.map(np.testing.assert_array_equal, policy.state, before)
    with pytest.raises(SpecificationError, match="IQL is no policy over the arms"):
        hw.ArmPolicy(hw.IQL(), PROBLEM)
    with pytest.raises(SpecificationError, match="give the propensities"):
        hw.ArmPolicy(hw.EXP3(), hw.Arms(ARMS)).partial_fit(None, [0], [0.0])
    with pytest.raises(RunError, match="there is no such file"):
        hw.ArmPolicy.load("nowhere.safetensors")


@pytest.mark.parametrize("name", ["LinUCB", "NeuSquareCB"])
def test_an_exported_policy_says_what_it_said(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    run = hw.train(name, env="linear-bandit", steps=40, seeds=2, evaluations=1, progress=False)
    path = hw.export(run, tmp_path, seed=1)
    assert path == tmp_path / f"{name}-seed1.onnx"
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for rows in (1, 9):
        contexts = DRAW.normal(size=(rows, run.problem.context_size)).astype(np.float32)
        (found,) = session.run(["probability"], {"context": contexts})
        expected = run.policies[1].predict_proba(contexts)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(SpecificationError, match="is written as onnx, not as stablehlo"):
        hw.export(run, tmp_path, format="stablehlo")


def test_what_is_no_function_of_the_context_is_not_exported(tmp_path):
    run = hw.train("UCB1", env="bernoulli-bandit", steps=9, seeds=1, evaluations=1, progress=False)
    with pytest.raises(SpecificationError, match="rounds without contexts"):
        hw.export(run, tmp_path)
