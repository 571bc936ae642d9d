"""GOLF's version space, GORP's and SQIRL's updates, Q-learning's, against NumPy transcriptions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes
from headwater.core.value_class import ValueClass
from headwater.methods.tabular.online.gorp import GORP
from headwater.methods.tabular.online.m_golf import MGOLF
from headwater.methods.tabular.online.q_learning import QLearning
from headwater.methods.tabular.online.sqirl import SQIRL

H, S, A, F, G = 3, 4, 2, 6, 5
KEY = jax.random.key(0)


def _episodes(count, seed=0):
    generator = np.random.default_rng(seed)
    return Episodes(
        jnp.asarray(generator.integers(0, S, (count, H + 1)), jnp.int32),
        jnp.asarray(generator.integers(0, A, (count, H)), jnp.int32),
        jnp.asarray(generator.random((count, H)), jnp.float32),
    )


def _class(helpers=True):
    generator = np.random.default_rng(1)
    problem = FiniteProblem(S, A, H, initial=jnp.asarray([0.5, 0.5, 0.0, 0.0]))
    functions = generator.random((F + G, H, S, A))
    return ValueClass.from_arrays(problem, functions[:F], functions[F:] if helpers else None)


@pytest.mark.parametrize("memory", [0, 1, 2])
def test_version_space(memory):
    given = _class()
    method = MGOLF(memory=memory, radius_scale=0.02, episodes=50.0)
    state = method.init(given, key=KEY)
    update = jax.jit(method.update)
    batches = [_episodes(H if memory else 1, seed) for seed in range(6)]
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


def test_without_helpers_a_candidate_is_compared_with_the_means():
    given = _class(helpers=False)
    method = MGOLF(memory=0)
    data = _episodes(7)
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


def test_episodes_are_free_for_the_last_steps_only():
    method = MGOLF(memory=2)
    state = method.init(_class(), key=KEY)
    greedy, table = (np.asarray(method.policy(state, explore=e)) for e in (False, True))
    for episode in range(H):
        for step in range(H):
            free = episode - 2 < step <= episode
            expected = np.full((S, A), 0.5) if free else greedy[step]
            np.testing.assert_allclose(table[episode, step], expected)


def test_gorp_fixes_the_action_that_is_followed_by_most():
    method = GORP(depth=2, samples=3)
    problem = FiniteProblem(S, A, H)
    state = method.init(problem, key=KEY)
    table = np.asarray(method.policy(state, explore=True))
    assert table.shape == (12, H, S, A)
    assert sorted({tuple(row[:2, 0].argmax(-1)) for row in table}) == [
        (0, 0), (0, 1), (1, 0), (1, 1)
    ]  # fmt: skip
    np.testing.assert_allclose(table[:, 2], 0.5)
    prefix = []
    for step in range(H + 1):
        data = _episodes(40, step)
        action, reward = np.asarray(data.action), np.asarray(data.reward)
        state, _ = method.update(state, data, key=KEY)
        if step == H:
            break
        followed = (action[:, :step] == np.asarray(prefix, int)).all(axis=1)
        means = {}
        for sequence in {tuple(row) for row in action[followed, step : step + 2].tolist()}:
            rows = followed & (action[:, step : step + 2] == sequence).all(axis=1)
            means[sequence] = reward[rows, step:].sum(axis=1).mean()
        prefix.append(max(means, key=means.get)[0])
    assert np.asarray(state.prefix).tolist() == prefix and int(state.fixed) == H
    np.testing.assert_allclose(
        np.asarray(method.policy(state, explore=False))[:, 0], np.eye(A)[prefix]
    )


@pytest.mark.parametrize("reuse", [True, False])
def test_sqirl_fits_means_and_backs_them_up(reuse):
    method = SQIRL(depth=2, samples=4, reuse=reuse)
    state = method.init(FiniteProblem(S, A, H), key=KEY)
    rows: dict[tuple[int, int, int], list[tuple[float, float, int]]] = {}
    expected = np.zeros((H, S, A))
    for iteration in range(H):
        explore = np.asarray(method.policy(state, explore=True))
        assert explore.shape == (4, H, S, A)
        np.testing.assert_allclose(explore[:, iteration:], 0.5)
        np.testing.assert_allclose(
            explore[0, :iteration], np.eye(A)[expected[:iteration].argmax(-1)]
        )
        data = _episodes(30, iteration)
        state, _ = method.update(state, data, key=KEY)
        rows = rows if reuse else {}
        for e in range(30):
            for h in range(iteration, H):
                at = h, int(data.state[e, h]), int(data.action[e, h])
                reward = np.asarray(data.reward)[e, h:]
                rows.setdefault(at, []).append(
                    (float(reward[0]), float(reward.sum()), int(data.state[e, h + 1]))
                )
        first = np.zeros((H + 1, S, A))
        for at, found in rows.items():
            first[at] = np.mean([x[1] for x in found])
        for (h, s, a), found in rows.items():
            if h == iteration:
                expected[h, s, a] = np.mean([r + first[h + 1, t].max() for r, _, t in found])
        np.testing.assert_allclose(np.asarray(state.action_value), expected, rtol=1e-4, atol=1e-5)


def test_q_learning_is_the_textbook_rule():
    method = QLearning(learning_rate=0.3, initial_value=0.5)
    state = method.init(FiniteProblem(S, A, H), key=KEY)
    expected = np.full((H + 1, S, A), 0.5)
    expected[H] = 0.0
    for seed in range(5):
        data = _episodes(1, seed)
        old = expected.copy()
        for h in range(H):
            at = h, int(data.state[0, h]), int(data.action[0, h])
            target = float(data.reward[0, h]) + old[h + 1, int(data.state[0, h + 1])].max()
            expected[at] += 0.3 * (target - old[at])
        state, _ = method.update(state, data, key=KEY)
    np.testing.assert_allclose(np.asarray(state.action_value), expected[:H], rtol=1e-5)
    table = np.asarray(method.policy(state, explore=True))
    np.testing.assert_allclose(table.min(-1), 0.05, rtol=1e-5)


def test_bad_input_is_refused_in_words():
    problem = FiniteProblem(S, A, H, initial=jnp.asarray([1.0, 0.0, 0.0, 0.0]))
    with pytest.raises(SpecificationError, match="memory = 4 must lie between 0 and the horizon"):
        MGOLF(memory=4).init(_class(), key=KEY)
    method = MGOLF(memory=1)
    with pytest.raises(SpecificationError, match="one episode for each of the 3 steps, not from 5"):
        method.update(method.init(_class(), key=KEY), _episodes(5), key=KEY)
    with pytest.raises(SpecificationError, match=r"candidates has shape \(2, 3\): it must be"):
        ValueClass.from_arrays(problem, np.zeros((2, 3)))
    wrong = np.zeros((2, H, S, A))
    wrong[1, 2, 3, 0] = np.nan
    with pytest.raises(DataError, match="candidates: function 1 is not finite at step 2, state 3"):
        ValueClass.from_arrays(problem, wrong)
    with pytest.raises(SpecificationError, match="needs to know where episodes start"):
        ValueClass.from_arrays(FiniteProblem(S, A, H), wrong)
    for method in (GORP(depth=4), SQIRL(depth=4)):
        with pytest.raises(SpecificationError, match="depth = 4 looks further than an episode"):
            method.init(problem, key=KEY)
    with pytest.raises(SpecificationError, match=r"GORP\.samples = 0: it must be at least 1"):
        GORP(samples=0).init(problem, key=KEY)
    with pytest.raises(SpecificationError, match="more than fit in memory"):
        GORP(depth=3, samples=2**26).init(problem, key=KEY)
