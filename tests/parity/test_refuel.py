"""REFUEL, RAFFLE and RepUCB against their equations in NumPy, given what their oracle found."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes
from headwater.methods.low_rank.raffle import RAFFLE
from headwater.methods.low_rank.refuel import REFUEL
from headwater.methods.low_rank.rep_ucb import RepUCB

_TASKS, _HORIZON, _STATES, _ACTIONS, _BATCH, _RANK = 2, 3, 3, 2, 4, 2
_DELTA = 0.1


def _data(seed: int, lead: tuple[int, ...]) -> Episodes:
    random = np.random.default_rng(seed)
    shape = (*lead, _BATCH, _HORIZON)
    state = random.integers(0, _STATES, (*shape, _HORIZON + 1))
    action = random.integers(0, _ACTIONS, (*shape, _HORIZON))
    reward = random.uniform(size=(*shape, _HORIZON)).astype(np.float32)
    return Episodes(jnp.asarray(state), jnp.asarray(action), jnp.asarray(reward))


def _problem(lead: tuple[int, ...]) -> FiniteProblem:
    random = np.random.default_rng(9)
    return FiniteProblem(
        _STATES,
        _ACTIONS,
        _HORIZON,
        initial=jnp.asarray(random.dirichlet(np.ones(_STATES), lead or None), jnp.float32),
        reward=jnp.asarray(random.uniform(size=(*lead, _HORIZON, _STATES, _ACTIONS)), jnp.float32),
        tasks=lead[0] if lead else None,
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _learn(method, lead, data):
    state = method.init(_problem(lead), key=jax.random.key(0))
    for seed, each in enumerate(data):
        state, metrics = method.update(state, each, key=jax.random.key(seed))
    return state, metrics


def _both_constants(cls, lead):
    data = tuple(_data(seed, lead) for seed in range(2))
    for constants in ("practical", "theorem"):
        method = cls(rank=_RANK, batch=_BATCH, constants=constants, restarts=2)
        yield constants, *_learn(method, lead, data), data


def _log_classes(updates: int) -> tuple[float, float]:
    features = _STATES * _ACTIONS * np.log(_RANK)
    return features, _RANK * _STATES * np.log(1.0 + updates)


def _bonus(feature, pairs, scale, regularisation, highest):
    """`pairs[step]`: the pairs of state and action that were seen."""
    bonus = np.zeros((_HORIZON, _STATES, _ACTIONS))
    for step in range(_HORIZON):
        matrix = regularisation * np.eye(_RANK)
        for state, action in pairs[step]:
            matrix += np.outer(feature[step, state, action], feature[step, state, action])
        inverse = np.linalg.inv(matrix)
        for state, action in np.ndindex(_STATES, _ACTIONS):
            phi = feature[step, state, action]
            bonus[step, state, action] = min(scale * np.sqrt(phi @ inverse @ phi), highest)
    return bonus


def _targets(data, lead, back=0):
    """Pairs seen at each step by the episodes that were played for the step `back` after it."""
    pairs = [[] for _ in range(_HORIZON)]
    for each in data:
        state, action = np.asarray(each.state)[lead], np.asarray(each.action)[lead]
        for episode, target in np.ndindex(_BATCH, _HORIZON):
            step = target - back
            if step >= 0:
                at = episode, target, step
                pairs[step].append((state[at], action[at]))
    return pairs


def _model(state):
    feature = np.asarray(state.factors.feature, np.float64)
    measure = np.asarray(state.factors.measure, np.float64)
    return feature, np.einsum("hsaf,htfn->thsan", feature, measure)


def _policies():
    """All deterministic policies."""
    for choice in itertools.product(range(_ACTIONS), repeat=_HORIZON * _STATES):
        yield np.eye(_ACTIONS)[np.reshape(choice, (_HORIZON, _STATES))]


def _expected(model, initial, reward, policy):
    """What a policy earns at each step."""
    here, earned = np.asarray(initial, np.float64), []
    for step in range(_HORIZON):
        visited = here[:, None] * policy[step]
        earned.append(np.sum(visited * reward[step]))
        here = np.einsum("sa,san->n", visited, model[step])
    return np.asarray(earned)


def test_refuel_plans_for_the_bonuses_of_the_paper():
    features, measures = _log_classes(2)
    for constants, state, metrics, data in _both_constants(REFUEL, (_TASKS,)):
        feature, model = _model(state)
        common = np.log(2 * _HORIZON / _DELTA)
        log = np.log(2.0) + features + _TASKS * measures + common
        scale, regularisation = 1.0, 1.0
        if constants == "theorem":
            regularisation = _RANK * (features + np.log(_TASKS) + common)
            scale = 5.0 * np.sqrt(2.0 * _ACTIONS * log + regularisation * _TASKS * _RANK)
        initial = np.asarray(state.problem.initial)
        expected = []
        for task in range(_TASKS):
            pairs = _targets(data, task)
            bonus = _bonus(feature, pairs, scale, regularisation, 1.0)
            policy = np.asarray(state.explorer)[task]
            expected.append(_expected(model[task], initial[task], bonus, policy)[:-1])
        value = np.sum(np.sqrt(np.sum(np.square(expected), axis=0)))
        np.testing.assert_allclose(metrics["pseudo_cumulative_value"], value, rtol=1e-4)
        bound = 2.0 * value / _TASKS + 2.0 * np.sqrt(_ACTIONS * log / 2.0 / _TASKS)
        np.testing.assert_allclose(metrics["model_error_bound"], bound, rtol=1e-4)


def test_raffle_plans_for_the_truncated_value():
    features, measures = _log_classes(2)
    for constants, state, metrics, data in _both_constants(RAFFLE, ()):
        feature, model = _model(state)
        common = np.log(2 * _HORIZON / _DELTA)
        log = np.log(2.0) + features + measures + common
        scale, regularisation = 1.0, 1.0
        if constants == "theorem":
            regularisation = _RANK * (features + common)
            scale = 5.0 * np.sqrt(_ACTIONS * log + regularisation * _RANK)
        bonus = _bonus(feature, _targets(data, ...), scale, regularisation, 1.0)
        bonus[-1] = 0.0
        value, policy = np.zeros(_STATES), np.asarray(state.explorer)
        for step in reversed(range(_HORIZON)):
            action_value = np.minimum(bonus[step] + model[0, step] @ value, 1.0)
            value = action_value.max(-1)
            chosen = np.sum(action_value * policy[step], axis=-1)
            np.testing.assert_allclose(chosen, value, atol=1e-5)
        start = np.asarray(state.problem.initial)
        np.testing.assert_allclose(metrics["truncated_value"], start @ value, rtol=1e-4)
        bound = 2.0 * start @ value + 2.0 * np.sqrt(_ACTIONS * log / 2.0)
        np.testing.assert_allclose(metrics["model_error_bound"], bound, rtol=1e-4)


def test_rep_ucb_is_optimistic_for_the_reward():
    for constants, state, metrics, data in _both_constants(RepUCB, ()):
        feature, model = _model(state)
        log = sum(_log_classes(2)) + np.log(2.0 / _DELTA)
        scale, regularisation = 1.0, 1.0
        if constants == "theorem":
            scale, regularisation = np.sqrt((_ACTIONS + _RANK**2) * log), _RANK * log
        bonus = _bonus(feature, _targets(data, ..., back=1), scale, regularisation, 2.0)
        bonus[-1] = 0.0
        reward = np.asarray(state.problem.reward, np.float64) + bonus
        start = np.asarray(state.problem.initial)
        best = max(_expected(model[0], start, reward, policy).sum() for policy in _policies())
        np.testing.assert_allclose(metrics["optimistic_value"], best, rtol=1e-4)
        found = _expected(model[0], start, reward, np.asarray(state.explorer)).sum()
        np.testing.assert_allclose(found, best, rtol=1e-4)


def test_methods_have_the_practical_constants_by_default():
    for cls in (REFUEL, RAFFLE, RepUCB):
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        chosen = fields["constants"], fields["bonus_scale"], fields["regularisation"]
        assert chosen == ("practical", 1.0, 1.0)
