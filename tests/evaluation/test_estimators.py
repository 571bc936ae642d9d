"""Estimators against exact values of small processes, and their intervals over 200 logs.

Criteria, set before they were measured: means within 3 standard errors; intervals of 95 % hold the
exact value in at least 88 % and at most 99.5 % of 200 logs (`is` and `pdis`, whose weights have
long tails, in at least 80 %); the variance of `dr` with the exact action values within 3 standard
errors of that of theory (Jiang and Li 2016, theorem 2).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.datasets.dataset import Dataset
from headwater.evaluation.estimators.bootstrap import episode_interval, probability_best
from headwater.evaluation.estimators.importance import WeightedEpisodes, weighted_estimate
from headwater.evaluation.estimators.marginal import (
    doubly_robust_marginal,
    logged_estimate,
    marginal_estimate,
    marginal_weights,
)
from headwater.evaluation.fitted_value import Choices

STATES, ACTIONS, DISCOUNT = 3, 2, 0.95
LOGS, EPISODES = 200, 150
_rng = np.random.default_rng(3)
MOVES = _rng.dirichlet(np.ones(STATES), (STATES, ACTIONS))
REWARDS = _rng.normal(0.5, 1.0, (STATES, ACTIONS))
BEHAVIOUR = np.asarray([[0.6, 0.4], [0.5, 0.5], [0.35, 0.65]])
EYE = np.eye(STATES, dtype=np.float32)


class Process(NamedTuple):
    """Episodes that end after each step with chance `1/horizon`, and the policy to judge."""

    horizon: int
    policy: np.ndarray

    @property
    def ends(self) -> float:
        return 1.0 / self.horizon

    def values(self, policy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        onward = DISCOUNT * (1 - self.ends) * np.einsum("sap,pb->sapb", MOVES, policy)
        size = STATES * ACTIONS
        q = np.linalg.solve(np.eye(size) - onward.reshape(size, size), REWARDS.reshape(-1))
        q = q.reshape(STATES, ACTIONS)
        return q, (policy * q).sum(1)

    def log(self, seed: int, limit: int = 10_000) -> Dataset:
        rng, rows = np.random.default_rng(seed), []
        state = rng.integers(STATES, size=EPISODES)
        alive = np.arange(EPISODES)
        for t in range(limit):
            action = (rng.random(alive.size) < BEHAVIOUR[state, 1]).astype(int)
            draw = rng.random((alive.size, 1))
            following = (draw > np.cumsum(MOVES[state, action], axis=1)).sum(1).clip(max=STATES - 1)
            over = rng.random(alive.size) < self.ends
            cut = ~over & (t == limit - 1)
            rows.append(
                np.stack([alive, np.full_like(alive, t), state, action, following, over, cut])
            )
            state, alive = following[~over], alive[~over]
            if not alive.size or cut.any():
                break
        table = np.concatenate(rows, axis=1)
        _, _, s, a, after, over, cut = table[:, np.lexsort((table[1], table[0]))]
        return Dataset.from_arrays(
            EYE[s], a, REWARDS[s, a], over, cut, EYE[after],
            action_count=ACTIONS, propensities=BEHAVIOUR[s, a],
        )  # fmt: skip


NEAR = 0.9 * BEHAVIOUR + 0.1 * np.eye(ACTIONS)[[0, 1, 1]]
FAR = 0.5 * BEHAVIOUR + 0.5 * np.eye(ACTIONS)[[0, 1, 1]]
# Beyond one step FAR has no finite fourth moment of its weights, which the variance of a variance
# needs; there, intervals of `wis` held the value in 86 % of logs, which docs/judge.md says.
BETWEEN = 0.85 * BEHAVIOUR + 0.15 * np.eye(ACTIONS)[[0, 1, 1]]
PROCESSES = {1: Process(1, FAR), 5: Process(5, BETWEEN), 50: Process(50, NEAR)}


def chosen(policy: np.ndarray, states: np.ndarray) -> Choices:
    return Choices(None, jnp.asarray(policy[states], jnp.float32))


def judged(process: Process, data: Dataset, *, rows: bool) -> dict:
    """What every estimator says, with the exact action values as the learned ones."""
    q, v = process.values(process.policy)
    s, after = data.observations.argmax(1), data.next_observations.argmax(1)
    first = s[data.episode_starts[:-1]]
    errors = data.rewards + DISCOUNT * np.where(data.terminals, 0, v[after]) - q[s, data.actions]
    assert data.log_propensities is not None
    ratio = np.log(process.policy[s, data.actions]) - data.log_propensities
    episodes = WeightedEpisodes(data, ratio, DISCOUNT)
    names = ("is", "wis", "pdis", "wpdis", "dr", "wdr")
    found = {name: weighted_estimate(name, episodes, v[first], errors) for name in names}
    if rows:
        here, following = (chosen(process.policy, states) for states in (first, after))
        marginal = marginal_weights(data, here, following, DISCOUNT)
        found["mis"] = marginal_estimate(data, marginal)
        found["drl"] = doubly_robust_marginal(data, marginal, v[first], errors)
    return found


@pytest.fixture(scope="module", params=sorted(PROCESSES))
def study(request):
    """Of each horizon: the process and what the estimators say of 200 logs."""
    process = PROCESSES[request.param]
    # Weights of rows cost half a second for a log of 7,500 rows, so that the long ones do without.
    rows = process.horizon < 50
    return process, [judged(process, process.log(seed), rows=rows) for seed in range(LOGS)]


def test_unbiased_estimators_are_unbiased(study):
    process, logs = study
    exact = float(process.values(process.policy)[1].mean())
    other = float(process.values(BEHAVIOUR)[1].mean())
    for name in ("is", "pdis", "dr"):
        values = np.asarray([found[name].value for found in logs])
        error = values.std(ddof=1) / np.sqrt(LOGS)
        assert abs(values.mean() - exact) < 3.0 * error, name
        if name == "dr":
            assert abs(other - exact) > 3.0 * error, "the behaviour's own value must not pass"


def test_intervals_hold_the_exact_value_as_often_as_they_say(study):
    process, logs = study
    exact = float(process.values(process.policy)[1].mean())
    shares = {}
    for name in logs[0]:
        held = 0
        for seed, found in enumerate(logs):
            between = episode_interval(found[name].influence, 0.95, 200, seed)
            assert between is not None
            held += between[0] <= exact <= between[1]
        shares[name] = held / LOGS
    for name, share in shares.items():
        least = 0.80 if name in ("is", "pdis") else 0.88
        assert least <= share <= 0.995, shares


def test_doubly_robust_with_exact_values_has_the_variance_of_theory(study):
    process, logs = study
    _, v = process.values(process.policy)
    stays = 1 - process.ends
    mean = stays * MOVES @ v
    spread = DISCOUNT**2 * (stays * MOVES @ v**2 - mean**2)
    ratio = process.policy / BEHAVIOUR
    squared = BEHAVIOUR * ratio**2
    reached, total = np.full(STATES, 1 / STATES), float(np.var(v))
    for t in range(2_000):
        total += DISCOUNT ** (2 * t) * float(reached @ (squared * spread).sum(1))
        reached = stays * np.einsum("s,sa,sap->p", reached, squared, MOVES)
    found = np.asarray([each["dr"].influence.var(ddof=1) for each in logs])
    error = found.std(ddof=1) / np.sqrt(LOGS)
    assert abs(found.mean() - total) < 3.0 * error
    # One decision whose outcome is certain: nothing but the first state is left to chance.
    if process.horizon == 1:
        assert total == pytest.approx(np.var(v)) and found.mean() < 0.5 * np.mean(
            [each["pdis"].influence.var() for each in logs]
        )


def test_weights_of_rows_are_expected_visits():
    """With one-hot states the weights are, up to noise, visits of the policy over visits logged."""
    process = Process(5, FAR)
    data = process.log(0)
    s, after = data.observations.argmax(1), data.next_observations.argmax(1)
    choices = [chosen(FAR, states) for states in (s[data.episode_starts[:-1]], after)]
    found = marginal_weights(data, *choices, DISCOUNT)
    counts = np.zeros((STATES, ACTIONS))
    np.add.at(counts, (s, data.actions), 1)
    moves = np.zeros((STATES, ACTIONS, STATES))
    np.add.at(moves, (s, data.actions, after), ~data.terminals)
    moves /= counts[:, :, None]
    start = np.bincount(s[data.episode_starts[:-1]], minlength=STATES) / data.episodes
    onward = DISCOUNT * np.einsum("sap,sa->sp", moves, FAR)
    visits = np.linalg.solve(np.eye(STATES) - onward.T, start)[:, None] * FAR
    expected = visits / (counts / data.episodes)
    np.testing.assert_allclose(found.weights, expected[s, data.actions], rtol=0.02)
    assert 0.3 * EPISODES < found.effective_episodes < EPISODES and found.negative == 0.0
    value = marginal_estimate(data, found).value
    assert value == pytest.approx(float((visits * REWARDS).sum()), rel=0.01)


def test_what_logged_itself_is_worth_although_its_episodes_are_cut():
    process = PROCESSES[50]
    exact = float(process.values(BEHAVIOUR)[1].mean())
    found = logged_estimate(process.log(1, limit=4), DISCOUNT)
    between = episode_interval(found.influence, 0.99, 500, 0)
    assert between is not None and between[0] < exact < between[1]
    assert abs(found.value - exact) < 0.15 * abs(exact)
    seen = process.log(1, limit=4).episode_returns(DISCOUNT).mean()
    assert abs(seen - exact) > 0.3 * abs(exact), "what was cut off must matter"


def test_interval_is_the_bootstrap_of_the_t_statistic():
    values = np.random.default_rng(0).exponential(size=40)
    found = episode_interval(values, 0.9, 4_000, 0)
    rng = np.random.default_rng(1)
    drawn = values[rng.integers(0, 40, (4_000, 40))]
    errors = drawn.std(1, ddof=1) / np.sqrt(40)
    low, high = np.quantile((drawn.mean(1) - values.mean()) / errors, [0.05, 0.95])
    error = values.std(ddof=1) / np.sqrt(40)
    expected = values.mean() - high * error, values.mean() - low * error
    assert found == pytest.approx(expected, abs=0.02)
    assert episode_interval(values[:2], 0.9, 100, 0) is None


def test_probability_best_is_paired():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=400)
    # Always a little better: certain in pairs, though both vary a hundred times as much.
    certain = probability_best(np.stack([shared, shared + 0.01]), 500, 0)
    np.testing.assert_array_equal(certain, [0.0, 1.0])
    np.testing.assert_allclose(probability_best(np.stack([shared, shared]), 500, 0), 0.5)
    apart = np.stack([shared, np.roll(shared, 1)])
    difference = (apart[1] - apart[0]).mean() / ((apart[1] - apart[0]).std() / 20)
    from scipy import stats

    found = probability_best(apart, 4_000, 0)[1]
    assert found == pytest.approx(stats.norm.cdf(difference), abs=0.05)
