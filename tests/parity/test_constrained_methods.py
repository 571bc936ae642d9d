"""One or two updates of the constrained family against the equations in plain NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes
from headwater.methods.tabular.constrained.appropo import ApproPO
from headwater.methods.tabular.constrained.conrl import ConRL
from headwater.methods.tabular.constrained.rcpo import RCPO
from headwater.methods.tabular.reward_free.rf_ucrl import RFUCRL
from headwater.methods.tabular.reward_free.vi_zero import VIZero

H, S, A, D = 3, 4, 2, 1
PROBLEM = FiniteProblem(
    S, A, H, initial=jnp.asarray([0.5, 0.5, 0.0, 0.0]), budgets=jnp.asarray([0.4])
)
KEY = jax.random.key(0)


def _data(count, seed=0):
    random = np.random.default_rng(seed)
    return Episodes(
        jnp.asarray(random.integers(0, S, (count, H + 1)), jnp.int32),
        jnp.asarray(random.integers(0, A, (count, H)), jnp.int32),
        jnp.asarray(random.random((count, H)), jnp.float32),
        jnp.asarray(random.random((count, H, D)), jnp.float32),
    )


def _tables(data, stationary):
    """Visits, next states, sums of rewards and of costs, for every step."""
    visits, following = np.zeros((H, S, A)), np.zeros((H, S, A, S))
    reward, cost = np.zeros((H, S, A)), np.zeros((H, S, A))
    for states, actions, rewards, costs in zip(data.state, data.action, data.reward, data.cost):
        for h in range(H):
            for at in range(H) if stationary else [h]:
                where = at, int(states[h]), int(actions[h])
                visits[where] += 1
                following[(*where, int(states[h + 1]))] += 1
                reward[where] += float(rewards[h])
                cost[where] += float(costs[h, 0])
    return visits, following, reward, cost


def _update(method, *batches):
    state = method.init(PROBLEM, key=KEY)
    update = jax.jit(lambda state, data: method.update(state, data, key=KEY))
    for data in batches:
        state, metrics = update(state, data)
    return state, metrics


@pytest.mark.parametrize(("stationary", "scale"), [(False, 1.0), (True, 0.1)])
def test_the_error_bound_of_rf_ucrl(stationary, scale):
    data = _data(20)
    state, _ = _update(RFUCRL(stationary=stationary, bonus_scale=scale), data)
    visits, following, _, _ = _tables(data, stationary)
    value = np.zeros(S)
    for h in reversed(range(H)):
        error = np.zeros((S, A))
        for s in range(S):
            for a in range(A):
                n, most = visits[h, s, a], H - 1 - h
                if n == 0:
                    error[s, a] = most
                    continue
                beta = np.log(2 * S * A * H / 0.1) + (S - 1) * np.log(np.e * (1 + n / (S - 1)))
                onward = following[h, s, a] @ value / n
                error[s, a] = min(most, most * scale * np.sqrt(2 * beta / n) + onward)
        np.testing.assert_allclose(state.error[h], error, rtol=1e-5, atol=1e-6)
        value = error.max(axis=1)


@pytest.mark.parametrize("stationary", [False, True])
def test_the_values_of_vi_zero(stationary):
    data, scale = _data(20), 1e-3
    state, _ = _update(VIZero(stationary=stationary, bonus_scale=scale), data)
    visits, following, _, _ = _tables(data, stationary)
    log = np.log(S * A * H * 1e4 / 0.1)
    value = np.zeros(S)
    for h in reversed(range(H)):
        found = np.full((S, A), float(H))
        for s, a in np.argwhere(visits[h] > 0):
            n = visits[h, s, a]
            beta = scale * (np.sqrt(H**2 * log / n) + H**2 * S * log / n)
            onward = (1 + 1 / H) * (following[h, s, a] @ value) / n
            found[s, a] = min(onward + beta, H)
        np.testing.assert_allclose(state.action_value[h], found, rtol=1e-5)
        value = found.max(axis=1)


def test_vi_zero_keeps_the_model_of_the_lowest_value():
    method = VIZero(bonus_scale=1e-3)
    state = method.init(PROBLEM, key=KEY)
    kept = np.asarray(state.best.visits)
    for seed in range(4):
        data = _data(1, seed)
        before = float(state.lowest)
        state, metrics = method.update(state, data, key=KEY)
        if float(metrics["value"]) < before:
            kept = np.asarray(state.counts.visits)
        np.testing.assert_array_equal(state.best.visits, kept)


def _plan(transition, reward):
    """The first of the best policies, by backward induction in double precision."""
    value, policy = np.zeros(S), np.zeros((H, S, A))
    for h in reversed(range(H)):
        q = reward[h] + transition[h] @ value
        best = np.argmax(q, axis=1)
        policy[h, np.arange(S), best] = 1.0
        value = q.max(axis=1)
    return policy


def _sum(transition, policy, table):
    here, total = np.asarray([0.5, 0.5, 0.0, 0.0]), 0.0
    for h in range(H):
        visited = here[:, None] * policy[h]
        total += (visited * table[h]).sum()
        here = np.einsum("sa,sat->t", visited, transition[h])
    return total


@pytest.mark.parametrize("scale", [1.0, 0.002])
def test_the_bonus_and_prices_of_conrl(scale):
    data, later = _data(15), _data(15, 1)
    state, metrics = _update(ConRL(bonus_scale=scale, rounds=4, price_rate=0.3), data, later)
    visits, following, reward, cost = (
        x + y for x, y in zip(_tables(data, True), _tables(later, True))
    )
    price = 0.0
    for played, pieces in ((15, _tables(data, True)), (30, (visits, following, reward, cost))):
        n, onward, earned, spent = pieces
        seen = n > 0
        times = np.maximum(n, 1)
        bonus = H * np.sqrt(2 * np.log(8 * S * A * H * (D + 1) * (played + 1) ** 2 / 0.1) / times)
        bonus = np.where(seen, scale * np.minimum(bonus, 2 * H), 1.0)
        model = np.where(seen[..., None], onward / times[..., None], np.eye(S)[:, None])
        high, low = earned / times + bonus, spent / times - bonus
        prices = []
        for _ in range(4):
            policy = _plan(model, high - price * low)
            price = max(0.0, price + 0.3 * (_sum(model, policy, low) - 0.4))
            prices.append(price)
        final = _plan(model, high - np.mean(prices) * low)
    optimistic = ConRL(bonus_scale=scale).optimistic(state)
    np.testing.assert_allclose(optimistic.reward, high, rtol=1e-5)
    np.testing.assert_allclose(optimistic.cost[..., 0], low, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(optimistic.transition, model, atol=1e-6)
    np.testing.assert_allclose(state.price, [price], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(state.policy, final)
    assert (price > 0.0) == (scale < 1.0)
    both = float(jnp.mean(jnp.sum(later.cost, axis=(1, 2))))
    assert float(metrics["over_budget"]) == pytest.approx(both - 0.4, rel=1e-4)
    total = float(jnp.sum(data.cost) + jnp.sum(later.cost))
    assert float(metrics["budget_left"]) == pytest.approx(1.0 - total / 4000.0, rel=1e-5)


def test_a_hard_budget_switches_to_the_cheapest_policy():
    data = _data(15)
    used = float(jnp.sum(data.cost))
    for episodes, exhausted in ((used / 0.4 + 1.0, False), (used / 0.4 - 1.0, True)):
        method = ConRL(hard=True, episodes=episodes, bonus_scale=0.002)
        state, _ = _update(method, data)
        wanted = state.cheapest if exhausted else state.policy
        np.testing.assert_array_equal(method.policy(state, explore=True), wanted)
        np.testing.assert_array_equal(method.policy(state, explore=False), state.policy)
    model = method.optimistic(state)
    cheapest = _plan(np.asarray(model.transition, np.float64), -np.asarray(model.cost)[..., 0])
    np.testing.assert_allclose(state.cheapest, cheapest)


def test_a_round_of_appropo():
    data, height = _data(6), 3.0
    method = ApproPO(reward_threshold=1.0, height=height, cache=1, learning_rate=0.5)
    state, metrics = _update(method, data)
    visits, following, reward, cost = _tables(data, True)
    times, seen = np.maximum(visits, 1), visits > 0
    model = np.where(seen[..., None], following / times[..., None], np.eye(S)[:, None])
    uniform = np.full((H, S, A), 0.5)
    returns = np.asarray([_sum(model, uniform, table / times) for table in (reward, cost)])
    lifted = np.append(returns, height) / height
    direction, rounds = np.zeros(3), 0
    # The response is played once and used again as long as it is good enough, here once at most.
    while rounds < 2 and (rounds == 0 or direction @ lifted <= 0.0):
        rounds += 1
        direction = direction + 0.5 * lifted / np.sqrt(rounds)
        # The polar of the cone over {reward ≥ 1, cost ≤ 0.4}: spanned by these two directions.
        rays = np.asarray([[-1.0, 0.0, 1.0 / height], [0.0, 1.0, -0.4 / height]])
        best = np.zeros(3)
        for rows in ([0], [1], [0, 1]):
            weights = np.linalg.lstsq(rays[rows].T, direction, rcond=None)[0]
            near = weights @ rays[rows]
            closer = np.linalg.norm(near - direction) < np.linalg.norm(best - direction)
            if (weights >= 0).all() and closer:
                best = near
        direction = best / max(np.linalg.norm(best), 1.0)
    assert float(metrics["rounds"]) == rounds
    np.testing.assert_allclose(state.direction, direction, atol=1e-4)
    worth = -direction[0] * reward / times - direction[1] * cost / times
    size = np.linalg.norm(direction[:2])
    worth = np.where(seen, worth + size * 0.01 / np.sqrt(times), size)
    np.testing.assert_allclose(state.policy, _plan(model, worth))


def test_a_step_of_rcpo():
    data, rate = _data(5), 0.02
    first = RCPO(learning_rate=rate, price_rate=0.5)
    state, _ = _update(first, data)
    spent = float(jnp.mean(jnp.sum(data.cost, axis=(1, 2))))
    price = max(0.0, 0.5 * (spent - 0.4))
    np.testing.assert_allclose(state.price, [price], rtol=1e-5)
    # The first step of Adam has the size of the rate, against the gradient's sign.
    gradient, value = np.zeros((S, A)), np.zeros(S)
    for states, actions, rewards in zip(data.state, data.action, data.reward):
        for h in range(H):
            ahead = float(jnp.sum(rewards[h:]))
            score = np.eye(A)[int(actions[h])] - 0.5
            gradient[int(states[h])] += score * ahead
            value[int(states[h])] += ahead
    np.testing.assert_allclose(state.logits, rate * np.sign(gradient), atol=1e-5)
    np.testing.assert_allclose(state.value, rate * np.sign(value), atol=1e-5)
