import functools

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes
from headwater.ops.linear.low_rank import (
    Factors,
    count_targets,
    expect,
    exploring_policies,
    fit_mixture,
    fit_softmax,
    maximise,
    plan_jointly,
    row_distances,
    transitions,
)
from headwater.ops.tabular.counts import no_counts

_TASKS, _STATES, _ACTIONS, _RANK = 3, 6, 2, 3
_SMOOTHING = 0.05


def _planted(seed: int, times: int):
    """Kinds of pairs, measures, and counts of `times` draws of each pair in each task."""
    random = np.random.default_rng(seed)
    kind = random.permutation(np.arange(_STATES * _ACTIONS) % _RANK)
    measure = random.dirichlet(np.full(_STATES, 0.5), (_TASKS, _RANK))
    counts = np.stack([[random.multinomial(times, m[k]) for k in kind] for m in measure])
    shape = (_TASKS, _STATES, _ACTIONS, _STATES)
    return kind, measure, counts.reshape(shape).astype(np.float32)


def _nothing_known() -> Factors:
    feature = jnp.zeros((_STATES, _ACTIONS, _RANK)).at[..., 0].set(1.0)
    return Factors(feature, jnp.full((_TASKS, _RANK, _STATES), 1.0 / _STATES))


@functools.partial(jax.jit, static_argnums=0)
def _compiled(fit, counts, previous, key):
    return fit(counts, previous, smoothing=_SMOOTHING, restarts=4, key=key)


def _fit(fit, counts, seed=0):
    return _compiled(fit, jnp.asarray(counts), _nothing_known(), jax.random.key(seed))


def _likelihood(factors, counts) -> float:
    model = np.einsum("saf,tfn->tsan", factors.feature, factors.measure)
    return float(np.sum(counts * np.log(model)))


def test_expectation_maximisation_never_lowers_the_likelihood():
    random = np.random.default_rng(0)
    for seed in range(3):
        counts = _planted(seed, 4)[2]
        rows = jnp.asarray(np.moveaxis(counts, 0, 2).reshape(-1, _TASKS, _STATES))
        probabilities = jnp.asarray(random.dirichlet(np.ones(_RANK), 12), jnp.float32)
        found = []
        for _ in range(15):
            measure, share = maximise(rows, probabilities, _SMOOTHING)
            probabilities, scores = expect(rows, measure, share)
            by_kind = np.asarray(scores, np.float64) + np.log(np.asarray(share, np.float64))
            added = _SMOOTHING * (np.log(measure).sum() + np.log(share).sum())
            found.append(np.log(np.exp(by_kind).sum(-1)).sum() + added)
        assert np.all(np.diff(found) >= -1e-3), found
        assert found[-1] > found[0] + 1.0


def test_the_mixture_finds_what_was_planted():
    for seed in range(3):
        kind, measure, counts = _planted(seed, 200)
        found = _fit(fit_mixture, counts, seed)
        labels = np.argmax(found.feature, axis=-1).reshape(-1)
        pairs = {(int(a), int(b)) for a, b in zip(kind, labels)}
        assert len(pairs) == _RANK, pairs
        for planted, label in pairs:
            np.testing.assert_allclose(found.measure[:, label], measure[:, planted], atol=0.07)


def test_a_pair_that_was_never_tried_gets_kinds_at_random():
    counts = _planted(0, 50)[2]
    counts[:, 1, 1] = 0.0
    kinds = {int(np.argmax(_fit(fit_mixture, counts, seed).feature[1, 1])) for seed in range(12)}
    assert len(kinds) == _RANK
    nothing = _fit(fit_mixture, np.zeros_like(counts))
    np.testing.assert_allclose(nothing.measure, 1.0 / _STATES)


def test_softmax_factors_are_likelier_where_features_are_mixtures():
    random = np.random.default_rng(1)
    feature = random.dirichlet(np.ones(_RANK), (_STATES, _ACTIONS))
    measure = random.dirichlet(np.full(_STATES, 0.3), (_TASKS, _RANK))
    model = np.einsum("saf,tfn->tsan", feature, measure)
    counts = np.round(400 * model).astype(np.float32)
    soft, hard = _fit(fit_softmax, counts), _fit(fit_mixture, counts)
    assert _likelihood(soft, counts) > _likelihood(hard, counts) + 100.0
    found = np.einsum("saf,tfn->tsan", soft.feature, soft.measure)
    assert 0.5 * np.abs(found - model).sum(-1).mean() < 0.02
    # Where features are kinds, both find them.
    counts = _planted(2, 200)[2]
    soft, hard = (
        _likelihood(_fit(fit_softmax, counts), counts),
        _likelihood(_fit(fit_mixture, counts), counts),
    )
    assert abs(soft - hard) < 0.01 * abs(hard)


def test_row_distances_are_weighted_over_common_tasks():
    rows = np.random.default_rng(2).integers(0, 4, (5, 2, 3)).astype(np.float32)
    rows[0, 0], rows[1, 1] = 0.0, 0.0
    found = row_distances(jnp.asarray(rows))
    for i, j in np.ndindex(5, 5):
        above = below = 0.0
        for task in range(2):
            n, m = rows[i, task].sum(), rows[j, task].sum()
            if n * m == 0.0:
                continue
            weight = np.sqrt(n * m)
            above += weight * (1.0 - np.sum(np.sqrt(rows[i, task] / n * rows[j, task] / m)))
            below += weight
        np.testing.assert_allclose(found[i, j], above / below if below else 1.0, atol=1e-5)


def test_transitions_are_products():
    random = np.random.default_rng(3)
    feature = random.dirichlet(np.ones(3), (4, 5, 2)).astype(np.float32)
    measure = random.dirichlet(np.ones(5), (4, 2, 3)).astype(np.float32)
    found = transitions(Factors(jnp.asarray(feature), jnp.asarray(measure)))
    for task, step in np.ndindex(2, 4):
        np.testing.assert_allclose(
            found[task, step], feature[step] @ measure[step, task], rtol=1e-5
        )


def test_exploring_policies_follow_up_to_two_steps_before_the_target():
    policy = jnp.asarray(np.random.default_rng(4).dirichlet(np.ones(2), (4, 3)), jnp.float32)
    found = exploring_policies(policy, episodes=5)
    assert found.shape == (5, 4, 4, 3, 2)
    for target, step in np.ndindex(4, 4):
        expected = policy[step] if step < target - 1 else np.full((3, 2), 0.5)
        np.testing.assert_allclose(found[2, target, step], expected)


def test_an_episode_counts_for_its_target_alone():
    random = np.random.default_rng(5)
    state = random.integers(0, 3, (7, 4, 5))
    action = random.integers(0, 2, (7, 4, 4))
    data = Episodes(jnp.asarray(state), jnp.asarray(action), jnp.asarray(state[..., 1:] / 2.0))
    none = no_counts(FiniteProblem(3, 2, 4))
    for back in (0, 1):
        following, reward = np.zeros((4, 3, 2, 3)), np.zeros((4, 3, 2))
        for episode, target in np.ndindex(7, 4):
            step = target - back
            if step < 0:
                continue
            s, a, n = (
                state[episode, target, step],
                action[episode, target, step],
                state[episode, target, step + 1],
            )
            following[step, s, a, n] += 1
            reward[step, s, a] += n / 2.0
        found = _counted(none, data, back)
        np.testing.assert_allclose(found.following, following)
        np.testing.assert_allclose(found.visits, following.sum(-1))
        np.testing.assert_allclose(found.reward.total[..., 0], reward)
    whole = jax.tree.map(lambda x: x[:, 0], data)
    assert float(jnp.sum(_counted(none, whole, 0).visits)) == 7 * 4


@functools.partial(jax.jit, static_argnums=2)
def _counted(counts, data, back):
    return count_targets(counts, data, FiniteProblem(3, 2, 4), back=back)


def _value(transition, bonus, initial, policy) -> float:
    """The pseudo-cumulative value, by walking forwards."""
    tasks, horizon = bonus.shape[:2]
    expected = np.zeros((tasks, horizon - 1))
    for task in range(tasks):
        here = initial[task].astype(np.float64)
        for step in range(horizon - 1):
            visited = here[:, None] * policy[task, step]
            expected[task, step] = np.sum(visited * bonus[task, step])
            here = np.einsum("sa,san->n", visited, transition[task, step])
    return float(np.sum(np.sqrt(np.sum(expected**2, axis=0))))


def test_no_round_of_joint_planning_lowers_the_value():
    random = np.random.default_rng(6)
    for _ in range(3):
        transition = random.dirichlet(np.full(4, 0.3), (3, 4, 4, 2)).astype(np.float32)
        bonus = (random.uniform(size=(3, 4, 4, 2)) ** 3).astype(np.float32)
        initial = random.dirichlet(np.ones(4), 3).astype(np.float32)
        given = [jnp.asarray(x) for x in (transition, bonus, initial)]
        policy, values = plan_jointly(*given, rounds=4)
        assert np.all(np.diff(values) >= -1e-6), values
        np.testing.assert_allclose(
            np.max(values), _value(transition, bonus, initial, np.asarray(policy)), rtol=1e-5
        )
        uniform = np.full_like(bonus, 0.5)
        assert float(values[0]) > _value(transition, bonus, initial, uniform)
