"""Preference methods against their equations in NumPy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.core.hypotheses import FiniteHypotheses
from headwater.environments.linear.linear_reward import random_linear_rewards
from headwater.methods.preference.enumerated_freehand import EnumeratedFREEHAND
from headwater.methods.preference.freehand import FREEHAND
from headwater.methods.preference.pr_lsvi import PRLSVI
from headwater.methods.preference.preference_thompson import PbTS
from headwater.methods.preference.regime import REGIME
from headwater.ops.linear.pessimistic_planning import plan_against_ellipsoid, plan_against_rewards
from headwater.ops.linear.preference import trajectory_features
from headwater.ops.tabular.counts import count, no_counts
from headwater.ops.tabular.planning import occupancy, optimal_values
from headwater.sources.comparisons import BradleyTerryJudge, log_comparisons

_TASK = random_linear_rewards(states=3, actions=2, horizon=3, features=2, key=jax.random.key(0))
_PROCESS, _KEY = _TASK.process, jax.random.key(1)
_FEATURES = np.asarray(_TASK.features, np.float64)


def _log(comparisons: int, key=_KEY):
    uniform = jnp.full(_PROCESS.reward.shape, 0.5)
    judge = BradleyTerryJudge(_PROCESS.reward)
    return log_comparisons(_PROCESS, judge, uniform, uniform, comparisons=comparisons, key=key)


_LOG = _log(12)


def _differences(data) -> np.ndarray:
    first, second = (
        np.asarray(trajectory_features(e, _TASK.features)) for e in (data.first, data.second)
    )
    return (first - second).astype(np.float64)


def _worst_case(policy, weights, precision, width, reference) -> float:
    occupied = np.asarray(occupancy(_PROCESS, jnp.asarray(policy)), np.float64)
    away = np.einsum("hsa,hsaf->f", occupied, _FEATURES) - reference
    return away @ weights - width * np.sqrt(away @ np.linalg.inv(precision) @ away)


def test_ellipsoid_plan_is_the_best_of_all_policies():
    random = np.random.default_rng(0)
    weights, reference = np.asarray([1.0, -0.5]), np.asarray([0.2, 0.1])
    precision = np.asarray([[3.0, 0.5], [0.5, 1.0]])
    nothing = replace(_PROCESS, reward=jnp.zeros_like(_PROCESS.reward))

    @jax.jit
    def plan(width):
        return plan_against_ellipsoid(
            nothing,
            _TASK.features,
            weights=jnp.asarray(weights, jnp.float32),
            precision=jnp.asarray(precision, jnp.float32),
            width=width,
            reference=jnp.asarray(reference, jnp.float32),
            iterations=40,
        )

    others = random.dirichlet(np.full(2, 0.2), (300, 3, 3)).astype(np.float32)
    for width in (0.0, 0.3, 1.0, 3.0):
        found = plan(width)
        by_hand = _worst_case(found.policy, weights, precision, width, reference)
        np.testing.assert_allclose(found.value, by_hand, atol=1e-4)
        assert float(found.gap) < 0.01
        best = max(_worst_case(p, weights, precision, width, reference) for p in others)
        assert best <= by_hand + float(found.gap) + 1e-4
    known = replace(_PROCESS, reward=jnp.asarray(_FEATURES @ weights, jnp.float32))
    best = float(known.initial @ optimal_values(known).value[0]) - reference @ weights
    np.testing.assert_allclose(plan(0.0).value, best, rtol=1e-4)


def test_plan_against_rewards_is_the_linear_programme():
    random = np.random.default_rng(1)
    rewards, offset = random.normal(size=(4, 3, 3, 2)), random.normal(size=4)
    possible = np.asarray([True, True, False, True])
    found = plan_against_rewards(
        _PROCESS,
        jnp.asarray(rewards, jnp.float32),
        reference=jnp.asarray(offset, jnp.float32),
        possible=jnp.asarray(possible),
        iterations=2000,
    )
    # Variables: occupancy, then the worst case; flow in equals flow out.
    transition = np.asarray(_PROCESS.transition, np.float64)
    flow, goal = np.zeros((9, 19)), np.zeros(9)
    for h in range(3):
        for s in range(3):
            row, index = 3 * h + s, lambda h, s, a: 6 * h + 2 * s + a
            for a in range(2):
                flow[row, index(h, s, a)] += 1.0
                for before in range(3) if h else ():
                    flow[row, index(h - 1, before, a)] -= transition[h - 1, before, a, s]
            goal[row] = 0.0 if h else float(_PROCESS.initial[s])
    below = np.concatenate([-rewards.reshape(4, -1), np.ones((4, 1))], axis=1)[possible]
    cost = np.zeros(19)
    cost[-1] = -1.0
    bounds = [(0, None)] * 18 + [(None, None)]
    exact = linprog(cost, below, -offset[possible], flow, goal, bounds).x[-1]
    assert float(found.value) <= exact + 1e-4 <= float(found.value + found.gap) + 2e-4
    assert float(found.gap) < 0.1


def test_freehand_estimates_and_compares_with_what_was_logged():
    method = FREEHAND(width=0.5, ridge=0.3, iterations=40)
    state = method.init_with_model(_TASK.problem(), _PROCESS.transition)
    state, metrics = jax.jit(method.update)(state, _LOG, key=_KEY)
    rows, weights = _differences(_LOG), np.asarray(state.weights, np.float64)
    chance = 1 / (1 + np.exp(-rows @ weights))
    slope = (np.asarray(_LOG.first_preferred) - chance) @ rows - 0.3 * weights
    np.testing.assert_allclose(slope, 0.0, atol=1e-3)
    precision = (rows * (chance * (1 - chance))[:, None]).T @ rows + 0.3 * np.eye(2)
    reference = np.asarray(trajectory_features(_LOG.first, _TASK.features)).mean(axis=0)
    by_hand = _worst_case(state.table, weights, precision, 0.5, reference)
    np.testing.assert_allclose(metrics["worst_case"], by_hand, atol=1e-3)


def test_likelihood_sets_and_their_coverage():
    rivals = jax.random.normal(jax.random.key(5), (7, 3, 3, 2))
    given = FiniteHypotheses(
        _TASK.problem(),
        jnp.concatenate([_PROCESS.reward[None], rivals]),
        jnp.stack([_PROCESS.transition, jnp.full((3, 3, 2, 3), 1 / 3)]),
    )
    method = EnumeratedFREEHAND(iterations=10)

    @jax.jit
    @jax.vmap
    def learned(key):
        data = _log(30, key)
        return data, method.update(method.init(given, key=key), data, key=key)[0]

    data, state = learned(jax.random.split(_KEY, 100))
    assert float(jnp.mean(state.rewards_possible[:, 0] & state.models_possible[:, 0])) > 0.9
    for run in range(3):
        one = jax.tree.map(lambda x, run=run: np.asarray(x[run]), data)
        step, fits = np.arange(3), []
        for reward in np.asarray(given.rewards):
            worth = [
                reward[step, e.state[:, :-1], e.action].sum(1) for e in (one.first, one.second)
            ]
            chance = 1 / (1 + np.exp(worth[1] - worth[0]))
            fits.append(np.log(np.where(one.first_preferred, chance, 1 - chance)).sum())
        kept = np.asarray(fits) >= max(fits) - np.log(2 * 8 / 0.1)
        np.testing.assert_array_equal(state.rewards_possible[run], kept)


def test_pbts_asks_only_where_rewards_disagree():
    method = PbTS(threshold=1.8, query_budget=20)
    state = method.init(_TASK.problem(), key=_KEY)
    rows = _differences(_LOG)
    asked = 2 / np.sqrt(np.pi) * np.linalg.norm(rows, axis=1) > 1.8
    assert 0 < asked.sum() < len(asked)
    update = jax.jit(method.update)
    new, metrics = update(state, _LOG, key=_KEY)
    assert float(metrics["queries"]) == asked.sum()
    np.testing.assert_allclose(new.answers.difference[: asked.sum()], rows[asked], rtol=1e-5)
    # Answers that were not asked for are not looked at, and rewards never are.
    answers = jnp.where(jnp.asarray(asked), _LOG.first_preferred, ~_LOG.first_preferred)
    first = replace(_LOG.first, reward=jnp.full_like(_LOG.first.reward, 7.0))
    again, _ = update(state, replace(_LOG, first=first, first_preferred=answers), key=_KEY)
    learned, relearned = (
        jax.tree.leaves((s.answers, s.weights, s.precision, s.table, s.pair)) for s in (new, again)
    )
    for a, b in zip(learned, relearned, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(new.pair[1], state.pair[0])
    weights = np.asarray(new.weights, np.float64)
    chance = 1 / (1 + np.exp(-rows[asked] @ weights))
    by_hand = (rows[asked] * (chance * (1 - chance))[:, None]).T @ rows[asked] + np.eye(2)
    np.testing.assert_allclose(new.precision, by_hand, rtol=1e-4)


def test_pr_lsvi_plans_by_its_equations():
    method = PRLSVI(lower=0.2, upper=0.4, dynamics_noise=0.4, ridge=1.0)
    counts = count(count(no_counts(_TASK.problem()), _LOG.first), _LOG.second)
    random = np.random.default_rng(2)
    weights, noise = random.normal(size=6), random.normal(size=(3, 2))
    found = method._plan(
        _TASK.problem(),
        counts,
        jnp.asarray(weights, jnp.float32),
        jnp.asarray(noise, jnp.float32),
    )
    value, mixed = np.zeros(3), 0
    visits, led = np.asarray(counts.visits), np.asarray(counts.following)
    for h in (2, 1, 0):
        phi = _FEATURES[h]
        seen = np.eye(2) + np.einsum("sa,saf,sag->fg", visits[h], phi, phi)
        targets = np.einsum("saf,sat,t->f", phi, led[h], value)
        root = np.linalg.cholesky(seen)
        learned = np.linalg.solve(seen, targets) + 0.4 * np.linalg.solve(root.T, noise[h])
        action_value = phi @ (weights.reshape(3, 2)[h] + learned)
        norm = np.sqrt(np.einsum("saf,fg,sag->sa", phi, np.linalg.inv(seen), phi))
        share = np.clip((0.4 - norm) / (0.4 - 0.2), 0, 1)
        mixed += np.sum((share > 0) & (share < 1))
        action_value = share * action_value + (1 - share) * (3 - h)
        np.testing.assert_array_equal(np.asarray(found)[h].argmax(-1), action_value.argmax(-1))
        value = action_value.max(-1)
    assert mixed, "the truncation was not met"


def test_pr_lsvi_asks_by_the_covariance_of_what_was_asked():
    method = PRLSVI(threshold=1.2, reward_noise=0.8, query_budget=20)
    state = method.init(_TASK.problem(), key=_KEY)
    update = jax.jit(method.update)
    new, metrics = update(state, _LOG, key=_KEY)
    first, second = (
        np.stack(
            [_FEATURES[h, np.asarray(e.state)[:, h], np.asarray(e.action)[:, h]] for h in range(3)],
            1,
        )
        for e in (_LOG.first, _LOG.second)
    )
    rows = (first - second).reshape(12, 6)
    asked = 2 / np.sqrt(np.pi) * 0.8 * np.linalg.norm(rows, axis=1) > 1.2
    assert 0 < asked.sum() == float(metrics["queries"])
    np.testing.assert_allclose(new.precision, np.eye(6) + rows[asked].T @ rows[asked], atol=1e-4)


def test_regime_asks_once_after_exploring():
    method = REGIME(comparisons=12, explorations=1, restarts=2)
    state = method.init(_TASK.problem(), key=_KEY)
    update = jax.jit(method.update)
    for expected, changes in ((0.0, False), (12.0, True), (12.0, False)):
        before = state
        state, metrics = update(state, _LOG, key=_KEY)
        assert float(metrics["queries"]) == expected
        assert bool(jnp.any(state.weights != before.weights)) is changes
    rows = _differences(_LOG)
    chance = 1 / (1 + np.exp(-rows @ np.asarray(state.weights, np.float64)))
    slope = (np.asarray(_LOG.first_preferred) - chance) @ rows
    np.testing.assert_allclose(slope, 0.1 * np.asarray(state.weights), atol=1e-3)


@pytest.mark.parametrize("method", [REGIME(), FREEHAND()])
def test_a_problem_without_a_start_is_refused(method):
    with pytest.raises(SpecificationError, match="plans from where episodes start"):
        method.init(FiniteProblem(3, 2, 3), key=_KEY)


def test_hypotheses_of_the_wrong_shape_are_refused():
    with pytest.raises(SpecificationError, match=r"rewards has shape \(1, 3, 3, 4\), but"):
        FiniteHypotheses(_TASK.problem(), jnp.zeros((1, 3, 3, 4)), jnp.zeros((1, 3, 3, 4, 3)))
