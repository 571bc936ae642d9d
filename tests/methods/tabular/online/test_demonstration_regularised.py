"""UCBVI-Ent+ against its equations in NumPy, and what it promises near demonstrations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.environments.tabular.finite import random_process
from headwater.evaluation.exact import best_return, regret_of
from headwater.methods.tabular.offline.tabular_cloning import TabularCloning
from headwater.methods.tabular.online.demonstration_regularised import DemonstrationRegularised
from headwater.ops.tabular.planning import (
    expected_return,
    soft_values,
    uniform_policy,
)
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.episodes import FreshEpisodes, WholeLog, log_episodes

from ..random_log import ACTIONS, EPISODES, HORIZON, STATES, random_log


@pytest.fixture(scope="module")
def data():
    return random_log()


def transcribed(data, anchor, temperature, scale, failure, known):
    """Backwards over steps, states and actions, as the equations are written."""
    data = jax.tree.map(np.asarray, data)
    shape = (HORIZON, STATES, ACTIONS)
    visits, following, earned = np.zeros(shape), np.zeros((*shape, STATES)), np.zeros(shape)
    for episode in range(EPISODES):
        for step in range(HORIZON):
            at = step, data.state[episode, step], data.action[episode, step]
            visits[at] += 1
            following[(*at, data.state[episode, step + 1])] += 1
            earned[at] += data.reward[episode, step]
    upper, lower, gap = np.zeros((3, STATES))
    target, uncertainty = np.zeros(shape), np.zeros(shape)
    event = np.log(3 * STATES * ACTIONS * HORIZON / failure)
    for step in reversed(range(HORIZON)):
        left, above, below = (
            HORIZON - step,
            np.zeros((STATES, ACTIONS)),
            np.zeros((STATES, ACTIONS)),
        )
        rest = np.zeros((STATES, ACTIONS))
        for s in range(STATES):
            for a in range(ACTIONS):
                n = visits[step, s, a]
                if n == 0:
                    above[s, a], below[s, a], rest[s, a] = left, 0.0, left
                    continue
                row = following[step, s, a] / n
                narrow = event + np.log(8 * np.e * (n + 1))
                wide = event + STATES * np.log(8 * np.e * (n + 1))
                variance = row @ (upper - row @ upper) ** 2
                bonus = 3 * np.sqrt(variance * narrow / n) + 9 * HORIZON**2 * wide / n
                if known is None:
                    reward = earned[step, s, a] / n
                    bonus += np.sqrt(narrow / (2 * n))
                else:
                    reward = known[step, s, a]
                bonus = scale * bonus + row @ (upper - lower) / HORIZON
                above[s, a] = min(max(reward + row @ upper + bonus, 0), left)
                below[s, a] = min(max(reward + row @ lower - bonus, 0), left)
                rest[s, a] = (1 + 1 / HORIZON) * (row @ gap) + scale * 4 * HORIZON**2 * wide / n
        weight = anchor[step] * np.exp(above / temperature)
        target[step] = weight / weight.sum(1, keepdims=True)
        upper = temperature * np.log(weight.sum(1))
        lower = temperature * np.log((anchor[step] * np.exp(below / temperature)).sum(1))
        uncertainty[step] = above - below
        gap = (above - below).max(1) ** 2 / (2 * temperature) + (target[step] * rest).sum(1)
        gap = np.minimum(gap, left)
    return target, uncertainty, gap


@pytest.mark.parity
@pytest.mark.parametrize("known", [False, True])
def test_plan_and_gap(data, known):
    draw = np.random.default_rng(1)
    reward = draw.uniform(size=(HORIZON, STATES, ACTIONS)).astype(np.float32)
    anchor = draw.dirichlet(np.ones(ACTIONS), (HORIZON, STATES)).astype(np.float32)
    method = DemonstrationRegularised(0.4, 0.002, 0.2)
    problem = FiniteProblem(STATES, ACTIONS, HORIZON, reward=jnp.asarray(reward) if known else None)
    state = method.around(problem, jnp.asarray(anchor), key=jax.random.key(0))
    state = jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(3))[0])(state, data)
    target, uncertainty, gap = transcribed(data, anchor, 0.4, 0.002, 0.2, reward if known else None)
    np.testing.assert_allclose(state.target, target, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.uncertainty, uncertainty, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.gap, gap, rtol=1e-4, atol=1e-5)
    explored, judged = (np.asarray(method.policy(state, explore=e)) for e in (True, False))
    left_at = int(state.left_at)
    for step in range(HORIZON):
        if step == left_at:
            assert np.array_equal(explored[step], np.eye(ACTIONS)[uncertainty[step].argmax(-1)])
        else:
            assert np.array_equal(explored[step], judged[step])


def test_an_anchor_of_another_shape_is_refused():
    problem = FiniteProblem(STATES, ACTIONS, HORIZON)
    with pytest.raises(SpecificationError) as caught:
        DemonstrationRegularised().around(problem, jnp.ones((2, 2)), key=jax.random.key(0))
    assert str(caught.value) == (
        "DemonstrationRegularised got an anchor of shape (2, 2), but the problem has (horizon, "
        "state, action) = (3, 3, 2)"
    )


@pytest.mark.oracle("TabularCloning")
def test_cloning_then_learning_near_the_clone_finds_the_best_policy():
    process = random_process(
        states=3, actions=3, horizon=3, concentration=0.5, key=jax.random.key(2)
    )
    expert = soft_values(process, 0.05).policy
    log = log_episodes(process, expert, episodes=50, key=jax.random.key(0))

    def begin(outcomes, problem, key):
        clone = outcomes["clone"]
        anchor = clone.method.policy(clone.state, explore=False)
        return DemonstrationRegularised().around(problem, anchor, key=key)

    stages = [
        Stage("clone", TabularCloning(), WholeLog(log), 1),
        Stage(
            "learn",
            DemonstrationRegularised(kl_weight=0.05, bonus_scale=1e-4),
            FreshEpisodes(process),
            500,
            begin=begin,
            measure=regret_of(process, explore=False),
        ),
    ]
    result = run(stages, process.problem(), seeds=4, layout="vmap", logs=10)
    rows = [row for row in result.metrics if row["stage"] == "learn"]
    regret = np.asarray([row["metrics"]["regret"] for row in rows])
    assert regret[-1].mean() < 0.03 < float(best_return(process))
    assert regret[-1].mean() < regret[0].mean()
    anchor = TabularCloning().policy(
        jax.tree.map(lambda x: x[0], result.outcomes["clone"].state), explore=False
    )
    np.testing.assert_allclose(result.outcomes["learn"].state.anchor[0], anchor)


@pytest.mark.oracle
def test_the_gap_covers_the_regularised_gap_with_the_constants_of_the_theorem():
    process = dataclasses.replace(
        random_process(states=2, actions=2, horizon=2, key=jax.random.key(4)), noisy=True
    )
    anchor, temperature = jnp.full(process.reward.shape, 0.5), 1.0
    method = DemonstrationRegularised(temperature)
    best = soft_values(process, temperature)
    # Soft values count entropy; against a uniform anchor that is divergence up to a constant.
    constant = temperature * process.horizon * np.log(process.actions)

    @jax.jit
    def one(key):
        data = log_episodes(process, uniform_policy(process), episodes=20_000, key=key)
        state = method.around(process.problem(), anchor, key=key)
        state = method.update(state, data, key=key)[0]
        judged = method.policy(state, explore=False)
        divergence = jnp.sum(judged * jnp.log(judged / anchor), axis=-1)
        reward = process.reward - temperature * divergence[:, :, None]
        worth = expected_return(dataclasses.replace(process, reward=reward), judged)
        return process.initial @ best.value[0] - constant - worth, process.initial @ state.gap

    short, gap = (np.asarray(x) for x in jax.vmap(one)(jax.random.split(jax.random.key(0), 20)))
    assert np.all(short >= -1e-5) and np.mean(short <= gap + 1e-6) >= 0.9
    assert gap.max() < 1.8, "the gap is the horizon: it says nothing"
