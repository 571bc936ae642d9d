"""GOLF's version space against NumPy, and that it keeps the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.hypotheses import ValueClass
from headwater.evaluation.instances import learn_instances
from headwater.methods.tabular.online.m_golf import MGOLF
from headwater.ops.tabular.planning import optimal_values
from headwater.parts.value_class import value_class_of

from ..random_episodes import KEY, A, F, G, H, S, episodes_of, value_class


@pytest.mark.parity
@pytest.mark.parametrize("memory", [0, 1, 2])
def test_version_space(memory):
    given = value_class()
    method = MGOLF(memory_length=memory, radius_scale=0.02, num_episodes=50.0)
    state = method.init(given, key=KEY)
    update = jax.jit(method.update)
    batches = [episodes_of(H if memory else 1, seed) for seed in range(6)]
    for data in batches:
        state, metrics = update(state, data, key=KEY)

    f, g = np.asarray(given.candidates, np.float64), np.asarray(given.helpers, np.float64)
    excess = np.zeros((H, F))
    for h in range(H):
        rows = []
        for data in batches:
            for e in range(len(data.action)):
                if memory == 0 or e == h:
                    s, a, after = data.state[e, h], data.action[e, h], data.state[e, h + 1]
                    rows.append((int(s), int(a), float(data.reward[e, h]), int(after)))
        for i in range(F):

            def loss(function, i=i, h=h, rows=rows):
                total = 0.0
                for s, a, r, after in rows:
                    value = f[i, h + 1, after].max() if h + 1 < H else 0.0
                    total += (function[h, s, a] - r - value) ** 2
                return total

            excess[h, i] = loss(f[i]) - min(loss(g[j]) for j in range(G))
    radius = 0.02 * np.log(50 * H * F * G / 0.1)
    alive = (excess <= radius).all(axis=0)
    assert float(method.radius(given)) == pytest.approx(radius, rel=1e-5)
    np.testing.assert_array_equal(np.asarray(state.alive), alive)
    first = 0.5 * (f[:, 0, 0].max(-1) + f[:, 0, 1].max(-1))
    worst = excess.max(axis=0)
    chosen = np.where(alive, first, -np.inf).argmax() if alive.any() else worst.argmin()
    assert int(state.chosen) == chosen
    assert float(metrics["contradiction"]) == pytest.approx(worst[chosen] / radius, abs=2e-3)


@pytest.mark.parity
def test_without_helpers_a_candidate_is_compared_with_the_means():
    given = value_class(helpers=False)
    method = MGOLF(memory_length=0)
    data = episodes_of(7)
    state, metrics = method.update(method.init(given, key=KEY), data, key=KEY)
    f = np.asarray(given.candidates, np.float64)[int(state.chosen)]
    worst = 0.0
    for h in range(H):
        following = f[h + 1].max(-1) if h + 1 < H else np.zeros(S)
        target = np.asarray(data.reward)[:, h] + following[np.asarray(data.state)[:, h + 1]]
        cell = np.asarray(data.state)[:, h] * A + np.asarray(data.action)[:, h]
        mean = {c: target[cell == c].mean() for c in set(cell.tolist())}
        own = ((f[h].reshape(-1)[cell] - target) ** 2).sum()
        worst = max(worst, own - sum((target[i] - mean[c]) ** 2 for i, c in enumerate(cell)))
    assert float(metrics["contradiction"] * method.radius(given)) == pytest.approx(worst, rel=1e-4)


@pytest.mark.parity
def test_episodes_are_free_for_the_last_steps_only():
    method = MGOLF(memory_length=2)
    state = method.init(value_class(), key=KEY)
    greedy, table = (np.asarray(method.policy(state, explore=e)) for e in (False, True))
    for episode in range(H):
        for step in range(H):
            free = episode - 2 < step <= episode
            expected = np.full((S, A), 0.5) if free else greedy[step]
            np.testing.assert_allclose(table[episode, step], expected)


def test_bad_input_is_refused_in_words():
    problem = FiniteProblem(S, A, H, initial=jnp.asarray([1.0, 0.0, 0.0, 0.0]))
    with pytest.raises(SpecificationError, match="memory = 4 must lie between 0 and the horizon"):
        MGOLF(memory_length=4).init(value_class(), key=KEY)
    method = MGOLF(memory_length=1)
    with pytest.raises(SpecificationError, match="one episode for each of the 3 steps, not from 5"):
        method.update(method.init(value_class(), key=KEY), episodes_of(5), key=KEY)
    with pytest.raises(SpecificationError, match=r"candidates has shape \(2, 3\): it must be"):
        ValueClass.from_arrays(problem, np.zeros((2, 3)))
    wrong = np.zeros((2, H, S, A))
    wrong[1, 2, 3, 0] = np.nan
    with pytest.raises(DataError, match="candidates: function 1 is not finite at step 2, state 3"):
        ValueClass.from_arrays(problem, wrong)
    with pytest.raises(SpecificationError, match="needs to know where episodes start"):
        ValueClass.from_arrays(FiniteProblem(S, A, H), wrong)


class _Kept:
    """Whether the first candidate is alive."""

    def __call__(self, agent):
        return {"kept": agent.state.alive[0].astype(jnp.float32)}


@pytest.mark.oracle
def test_version_space_keeps_the_truth_as_often_as_promised():
    """Over many seeds of a noisy process, with half of the radius that the default has."""
    generator = np.random.default_rng(0)
    shape = 20, 2, 2, 2
    rows = generator.dirichlet(np.ones(2), shape[:-1])[:, None].repeat(2, 1)
    reward = generator.random((20, 1, 2, 2)).repeat(2, 1) / 2.0
    models = FiniteProcess(
        jnp.asarray(rows, jnp.float32),
        jnp.asarray(reward, jnp.float32),
        jnp.broadcast_to(jnp.asarray([0.5, 0.5]), (20, 2)),
    )
    truth = jax.tree.map(lambda x: x[0], models)
    given = value_class_of(models, truth.problem())
    # The truth comes first, and it is its own backup.
    best = np.asarray(optimal_values(truth).action_value)
    np.testing.assert_allclose(given.candidates[0], best, atol=1e-6)
    for step in range(2):
        assert np.abs(np.asarray(given.helpers)[:, step] - best[step]).max((1, 2)).min() < 1e-5
    stacked = jax.tree.map(lambda x: jnp.stack([x] * 200), (truth, given))
    method = MGOLF(memory_length=0, radius_scale=0.5, failure_probability=0.5, num_episodes=1.0)
    kept = learn_instances(method, *stacked, _Kept(), updates=60, key=jax.random.key(0))["kept"]
    assert kept.min(axis=1).mean() >= 0.5
    # A radius of nothing would lose it: the test can fail.
    method = MGOLF(memory_length=0, radius_scale=1e-4, failure_probability=0.5, num_episodes=1.0)
    lost = learn_instances(method, *stacked, _Kept(), updates=60, key=jax.random.key(0))["kept"]
    assert lost.min(axis=1).mean() < 0.5
