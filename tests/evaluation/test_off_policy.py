"""Off-policy evaluation against the exact values of a small finite process."""

import dataclasses
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from headwater.core.errors import DataError, SpecificationError
from headwater.core.method import AbstractLikelihood, AbstractPolicy
from headwater.datasets.dataset import Dataset
from headwater.evaluation.estimators.importance import WeightedEpisodes
from headwater.evaluation.fitted_value import fit_value, policy_choices
from headwater.evaluation.off_policy import (
    ESTIMATORS,
    behaviour_log_probabilities,
    evaluate_off_policy,
)

DISCOUNT, STATES, ACTIONS = 0.9, 4, 2
_rng = np.random.default_rng(7)
MOVES = _rng.dirichlet(np.ones(STATES), (STATES, ACTIONS))
ENDS = _rng.uniform(0.1, 0.4, (STATES, ACTIONS))
REWARDS = _rng.normal(1.0, 1.0, (STATES, ACTIONS))
BEHAVIOUR = _rng.dirichlet(4 * np.ones(ACTIONS), STATES)
TARGET = 0.5 * BEHAVIOUR + 0.5 * np.eye(ACTIONS)[[0, 1, 1, 0]]


class Table(eqx.Module):
    probabilities: Float[Array, "state action"]


class TablePolicy(AbstractPolicy[Table], AbstractLikelihood[Table]):
    """Action probabilities of one-hot observations."""

    def act(self, state, observation, *, key, explore):
        probabilities = observation @ state.probabilities
        if explore:
            return jax.random.categorical(key, jnp.log(probabilities)).astype(jnp.int32), ()
        return jnp.argmax(probabilities).astype(jnp.int32), ()

    def log_probability(self, state, observation, action):
        return jnp.log(observation @ state.probabilities)[action]


class Mute(AbstractPolicy[Table]):
    """Acts, but knows no probabilities."""

    def act(self, state, observation, *, key, explore):
        return TablePolicy().act(state, observation, key=key, explore=explore)


POLICY, STATE = TablePolicy(), Table(jnp.asarray(TARGET, jnp.float32))


def exact_value(policy):
    """Action values and the value of the uniform initial state, by linear solution."""
    moves = ((1.0 - ENDS)[:, :, None] * MOVES).reshape(STATES * ACTIONS, STATES)
    onward = moves[:, :, None] * policy[None]
    system = np.eye(STATES * ACTIONS) - DISCOUNT * onward.reshape(STATES * ACTIONS, -1)
    q = np.linalg.solve(system, REWARDS.reshape(-1)).reshape(STATES, ACTIONS)
    return q, float(np.mean(np.sum(policy * q, axis=1)))


def logged(episodes, *, seed=0, limit=10_000):
    """Episodes of the behaviour policy, and its log-probabilities."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(episodes):
        s = rng.integers(STATES)
        for t in range(limit):
            a = int(rng.random() < BEHAVIOUR[s, 1])
            end = rng.random() < ENDS[s, a]
            following = rng.choice(STATES, p=MOVES[s, a])
            rows.append((s, a, REWARDS[s, a], following, end, not end and t == limit - 1))
            s = following
            if end:
                break
    s, a, r, following, end, cut = (np.asarray(column) for column in zip(*rows))
    eye = np.eye(STATES, dtype=np.float32)
    data = Dataset.from_arrays(
        eye[s], a, r, end, cut, eye[following], discrete=True, action_count=ACTIONS
    )
    return data, np.log(BEHAVIOUR[s, a])


FIT = {"updates": 1500, "hidden_sizes": (16,), "batch": 128}
SAMPLED = ("is", "wis", "pdis", "wpdis", "dr", "wdr")


@pytest.fixture(scope="module")
def estimates():
    data, behaviour = logged(800)
    return evaluate_off_policy(data, POLICY, STATE, discount=DISCOUNT, behaviour=behaviour, **FIT)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_interval_holds_the_exact_value(estimates, estimator):
    _, value = exact_value(TARGET)
    _, logged_value = exact_value(BEHAVIOUR)
    found = estimates[estimator]
    assert found.low < value < found.high
    assert found.value == pytest.approx(value, abs=0.25)
    assert abs(value - logged_value) > 0.3, "the behaviour's own value must not pass"


def test_doubly_robust_intervals_are_narrower(estimates):
    width = {name: e.high - e.low for name, e in estimates.items()}
    assert width["dr"] < 0.7 * width["pdis"] and width["dr"] < 0.6 * width["is"]
    assert width["wdr"] < 0.7 * width["is"]


def test_fitted_values_are_the_exact_action_values_although_episodes_are_cut(key):
    data, _ = logged(1500, limit=3)
    assert data.truncations.mean() > 0.1
    [fit], counts = fit_value(data, POLICY, STATE, discount=DISCOUNT, explore=True, key=key, **FIT)
    q, _ = exact_value(TARGET)
    eye = jnp.eye(STATES)
    found = np.stack([fit(eye, jnp.full(STATES, a, jnp.int32)) for a in range(ACTIONS)], axis=1)
    np.testing.assert_allclose(found, q, atol=0.25)
    np.testing.assert_array_equal(counts, np.ones((1, 1500)))


def test_fitted_value_of_the_greedy_policy(key):
    data, _ = logged(1500)
    [fit], _ = fit_value(data, Mute(), STATE, discount=DISCOUNT, explore=False, key=key, **FIT)
    greedy = np.eye(ACTIONS)[np.argmax(TARGET, axis=1)]
    q, _ = exact_value(greedy)
    found = np.asarray(fit.critic.values(fit.normaliser(jnp.eye(STATES))))
    np.testing.assert_allclose(fit.offset + fit.scale * found, q, atol=0.25)


def test_estimators_agree_with_sums_by_hand():
    data, behaviour = logged(40, seed=3)
    found = evaluate_off_policy(
        data, POLICY, STATE, estimators=SAMPLED[:4], discount=DISCOUNT, behaviour=behaviour
    )
    ratio = TARGET[data.observations.argmax(1), data.actions] / np.exp(behaviour)
    whole, weights, decisions, steps = [], [], [], []
    for begin, end in zip(data.episode_starts[:-1], data.episode_starts[1:]):
        gammas = DISCOUNT ** np.arange(end - begin)
        rho = np.cumprod(ratio[begin:end])
        weights.append(rho[-1])
        whole.append(rho[-1] * np.sum(gammas * data.rewards[begin:end]))
        decisions.append(np.sum(gammas * rho * data.rewards[begin:end]))
        steps.append((rho, data.rewards[begin:end]))
    weighted = 0.0
    for t in range(int(data.episode_lengths().max())):
        rho = [r[min(t, len(r) - 1)] for r, _ in steps]
        gain = [r[t] * g[t] for r, g in steps if t < len(r)]
        weighted += DISCOUNT**t * np.sum(gain) / np.sum(rho)
    assert found["is"].value == pytest.approx(np.mean(whole), rel=1e-5)
    assert found["wis"].value == pytest.approx(np.sum(whole) / np.sum(weights), rel=1e-5)
    assert found["pdis"].value == pytest.approx(np.mean(decisions), rel=1e-5)
    assert found["wpdis"].value == pytest.approx(weighted, rel=1e-5)
    size = np.sum(weights) ** 2 / np.sum(np.square(weights))
    assert found["is"].effective_episodes == pytest.approx(size, rel=1e-5)


def test_weights_are_clipped_where_they_are_asked_to_be():
    data, behaviour = logged(40, seed=3)
    settings = {"estimators": SAMPLED[:4], "discount": DISCOUNT, "behaviour": behaviour}
    found = evaluate_off_policy(data, POLICY, STATE, max_weight=1.2, **settings)
    ratio = TARGET[data.observations.argmax(1), data.actions] / np.exp(behaviour)
    whole, weights, decisions, kept, total = [], [], [], 0.0, 0.0
    steps = int(data.episode_lengths().max())
    for begin, end in zip(data.episode_starts[:-1], data.episode_starts[1:]):
        gains = DISCOUNT ** np.arange(end - begin) * data.rewards[begin:end]
        rho = np.cumprod(ratio[begin:end])
        bounded = np.minimum(rho, 1.2)
        weights.append(bounded[-1])
        whole.append(bounded[-1] * gains.sum())
        decisions.append(bounded @ gains)
        # An episode that is over keeps the weight of its last step.
        kept += bounded.sum() + (steps - len(rho)) * bounded[-1]
        total += rho.sum() + (steps - len(rho)) * rho[-1]
    assert found["is"].value == pytest.approx(np.mean(whole), rel=1e-5)
    assert found["wis"].value == pytest.approx(np.sum(whole) / np.sum(weights), rel=1e-5)
    assert found["pdis"].value == pytest.approx(np.mean(decisions), rel=1e-5)
    lost = f"clipping took {100 * (1 - kept / total):.2g}% of the weight"
    assert lost in str(found["pdis"]) and found["pdis"].verdict == "doubtful"
    plain = evaluate_off_policy(data, POLICY, STATE, **settings)
    wide = evaluate_off_policy(data, POLICY, STATE, max_weight=1e9, **settings)
    assert {n: e.value for n, e in plain.items()} == {n: e.value for n, e in wide.items()}
    assert "clipping" not in str(wide["is"])
    # Where nothing has any weight nothing was taken.
    assert WeightedEpisodes(data, np.full(data.size, -np.inf), DISCOUNT, 1.2).clipped == 0.0


def test_doubly_robust_sees_beyond_truncation_and_sampling_says_that_it_does_not(key):
    data, behaviour = logged(1500, limit=2)
    [model], _ = fit_value(data, POLICY, STATE, discount=DISCOUNT, explore=True, key=key, **FIT)
    found = evaluate_off_policy(
        data,
        POLICY,
        STATE,
        estimators=("pdis", "dr", "wdr"),
        discount=DISCOUNT,
        behaviour=behaviour,
        model=model,
    )
    _, value = exact_value(TARGET)
    assert found["dr"].value == pytest.approx(value, abs=0.25)
    assert found["wdr"].value == pytest.approx(value, abs=0.25)
    assert found["pdis"].value < value - 0.5
    assert any("truncated" in warning for warning in found["pdis"].warnings)
    assert not found["dr"].warnings


def test_few_effective_episodes_are_refused():
    data, _ = logged(30)
    other = Table(jnp.asarray(np.full((STATES, ACTIONS), [0.999, 0.001]), jnp.float32))
    behaviour = np.log(np.where(data.actions == 0, 0.02, 0.98))
    found = evaluate_off_policy(
        data, POLICY, other, estimators=("wis",), discount=DISCOUNT, behaviour=behaviour
    )["wis"]
    assert found.effective_episodes < 10.0 and found.verdict == "refused"
    assert str(found).startswith("wis: refused, only ")
    assert "neither value nor interval can be trusted; use fqe, mis or drl" in str(found)
    assert found.to_json()["value"] is None


def test_a_refusal_names_no_estimator_that_is_refused_as_well():
    data, _ = logged(30)
    never = dataclasses.replace(data, actions=np.ones_like(data.actions))
    other = Table(jnp.asarray(np.full((STATES, ACTIONS), [0.999, 0.001]), jnp.float32))
    behaviour = np.full(data.size, np.log(0.98))
    found = evaluate_off_policy(
        never, POLICY, other, estimators=("wis", "mis"), discount=DISCOUNT, behaviour=behaviour
    )
    assert found["mis"].refused is not None
    assert "trusted; judge a policy nearer to the log" in str(found["wis"])


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_what_was_never_done_is_noticed(share):
    """Weights of rows can balance the flow of a policy all of whose actions are missing."""
    data, _ = logged(100)
    never = dataclasses.replace(data, actions=np.ones_like(data.actions))
    other = Table(jnp.asarray(np.full((STATES, ACTIONS), [share, 1 - share]), jnp.float32))
    found = evaluate_off_policy(never, POLICY, other, estimators=("mis",), discount=DISCOUNT)["mis"]
    if share:
        assert found.refused is not None
        told = re.match(r"about (\d+)% of what the policy does was never logged, so", found.refused)
        assert told is not None and 0.15 < float(told[1]) / 100 <= share
    else:
        assert found.refused is None


def test_wrong_behaviour_probabilities_are_warned_of(estimates):
    assert not any("where 1 is expected" in str(found) for found in estimates.values())
    data, behaviour = logged(100)
    found = evaluate_off_policy(
        data, POLICY, STATE, estimators=("pdis",), discount=DISCOUNT, behaviour=behaviour + 1.0
    )
    assert "where 1 is expected" in str(found["pdis"])


def test_a_constant_reward_is_valued_from_the_first_update(key):
    rows = 60
    data = Dataset.from_arrays(
        np.zeros((rows, STATES)),
        np.zeros(rows, int),
        np.ones(rows),
        np.zeros(rows),
        np.arange(1, rows + 1) % 3 == 0,
        np.zeros((rows, STATES)),
        action_count=ACTIONS,
    )
    [fit], _ = fit_value(data, POLICY, STATE, discount=0.95, updates=1, hidden_sizes=(8,), key=key)
    assert float(fit.offset) == pytest.approx(20.0)


def test_cloned_behaviour_is_the_behaviour(key):
    data, behaviour = logged(1500)
    found = behaviour_log_probabilities(data, hidden_sizes=(16,), updates=1500, key=key)
    np.testing.assert_allclose(np.exp(found), np.exp(behaviour), atol=0.06)


def test_cloned_behaviour_of_continuous_actions(key):
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(2000, 1))
    raw = 0.5 * observations + 0.3 * rng.normal(size=(2000, 1))
    data = Dataset.from_arrays(observations, np.tanh(raw), np.zeros(2000), np.ones(2000, bool))
    found = behaviour_log_probabilities(data, hidden_sizes=(32,), updates=1500, key=key)
    noise = (raw - 0.5 * observations)[:, 0] / 0.3
    density = (
        -0.5 * noise**2 - np.log(0.3 * np.sqrt(2 * np.pi)) - np.log1p(-(np.tanh(raw[:, 0]) ** 2))
    )
    assert np.mean(found - density) == pytest.approx(0.0, abs=0.05)
    assert np.corrcoef(found, density)[0, 1] > 0.95


class Gaussian(AbstractPolicy[Table], AbstractLikelihood[Table]):
    """Canonical actions around half the first component of the observation."""

    def act(self, state, observation, *, key, explore):
        return 0.5 * observation[:1] + 0.1 * explore * jax.random.normal(key, (1,)), ()

    def log_probability(self, state, observation, action):
        return jax.scipy.stats.norm.logpdf(action, 0.5 * observation[:1], 0.1).sum()


@pytest.mark.parametrize("explore", [False, True])
def test_next_actions_are_those_of_the_next_observation(explore, key):
    """Two steps, s and then -s, rewarded with the action: Q(s, a) = a + γ·π(-s) = a - γ·s/2."""
    rng = np.random.default_rng(0)
    s = rng.uniform(-1, 1, (1500, 1))
    nothing = np.zeros_like(s)
    here = np.stack([np.hstack([s, nothing]), np.hstack([-s, nothing + 1])], axis=1)
    following = np.stack([here[:, 1], 0 * here[:, 1]], axis=1)
    actions = rng.uniform(-1, 1, (3000, 1))
    ends = np.tile([False, True], 1500)
    data = Dataset.from_arrays(
        here.reshape(-1, 2),
        actions,
        actions[:, 0],
        ends,
        next_observations=following.reshape(-1, 2),
    )
    choices = policy_choices(
        Gaussian(), STATE, here[:, 1], data.spaces.action, explore=explore, samples=4, key=key
    )
    assert choices.actions.shape == (1500, 4 if explore else 1, 1)
    np.testing.assert_allclose(choices.actions.mean(1), -0.5 * s, atol=0.25 * explore + 1e-6)
    [fit], _ = fit_value(
        data,
        Gaussian(),
        STATE,
        discount=0.8,
        explore=explore,
        updates=1500,
        hidden_sizes=(32,),
        key=key,
    )
    inputs, doing = here[:200, 0].astype(np.float32), actions[:400:2].astype(np.float32)
    exact = doing[:, 0] - 0.4 * inputs[:, 0]
    np.testing.assert_allclose(fit(jnp.asarray(inputs), jnp.asarray(doing)), exact, atol=0.15)


def test_bad_questions_are_refused_in_words():
    data, behaviour = logged(20)
    with pytest.raises(SpecificationError, match="does not know the probabilities"):
        evaluate_off_policy(data, Mute(), STATE, estimators=("wis",))
    with pytest.raises(SpecificationError, match="unknown estimator 'pdiss': did you mean"):
        evaluate_off_policy(data, POLICY, STATE, estimators=("pdiss",))
    with pytest.raises(SpecificationError, match=r"max_weight = 0\.0: it must be above 0"):
        evaluate_off_policy(data, POLICY, STATE, estimators=("is",), max_weight=0.0)
    with pytest.raises(SpecificationError, match=r"max_weight = 2\.0: none of mis weighs by prob"):
        evaluate_off_policy(data, POLICY, STATE, estimators=("mis",), max_weight=2.0)
    with pytest.raises(DataError, match="one finite number for each"):
        evaluate_off_policy(data, POLICY, STATE, estimators=("is",), behaviour=behaviour[1:])
