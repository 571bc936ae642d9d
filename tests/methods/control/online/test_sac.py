"""SAC against NumPy and on problems with known answers."""

import jax
import numpy as np
import pytest

from headwater.methods.control.online.sac import SAC

from .. import identities
from ..numpy_twin import (
    ACTION,
    CHOICES,
    ROWS,
    batch,
    problem,
    standardised,
    update,
)
from ..small_problems import (
    CHAIN_STATES,
    DISCOUNT,
    chain,
    trained,
)
from ..soft_problems import (
    LEARNING_RATES,
    SMALL,
    expect_best_action,
    expect_soft_optimum,
    log_probabilities,
)
from ..soft_twin import RATES, SoftTwin, columns


@pytest.mark.parity
@pytest.mark.parametrize("discrete", [False, True])
def test_three_updates(discrete):
    method = SAC(hidden_sizes=(8, 8), initial_temperature=0.3, normalise_observations=True, **RATES)
    state = method.init(problem(discrete), key=jax.random.key(1))
    twin = SoftTwin(state, discrete)
    target_entropy = 0.5 * np.log(CHOICES) if discrete else -ACTION
    for i in range(3):
        data, key = batch(i, discrete), jax.random.key(i)
        state, metrics = update(method, state, data, key=key)
        critic_key, actor_key = jax.random.split(key)
        s, a, r, terminal, following = columns(data, standardised)
        y = twin.target(r, terminal, following, twin.noise(jax.random.split(critic_key)[0], ROWS))
        np.testing.assert_allclose(metrics["critic_loss"], twin.critic_step(s, a, y), rtol=1e-5)
        loss, entropy = twin.actor_step(s, twin.noise(actor_key, ROWS))
        np.testing.assert_allclose(metrics["actor_loss"], loss, rtol=1e-4)
        np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-4)
        twin.temperature_step(entropy, target_entropy)
        np.testing.assert_allclose(metrics["temperature"], twin.temperature, rtol=1e-5)
    twin.expect(state)


@pytest.mark.parity
def test_the_online_stage_of_wsrl():
    # Four critics, two of them in the target, three critic steps, the actor on all rows.
    method = SAC(
        hidden_sizes=(8, 8),
        num_critics=4,
        num_target_critics=2,
        num_critic_updates=3,
        backup_entropy=0.0,
        target_entropy=-1.0,
        **RATES,
    )
    state = method.init(problem(False), key=jax.random.key(1))
    twin = SoftTwin(state)
    for i in range(2):
        data, key = batch(i, False), jax.random.key(i)
        state, metrics = update(method, state, data, key=key)
        critic_key, actor_key = jax.random.split(key)
        s, a, r, terminal, following = columns(data, lambda x: np.asarray(x, np.float64))
        losses = []
        for piece, piece_key in enumerate(jax.random.split(critic_key, 3)):
            rows = slice(piece * ROWS // 3, (piece + 1) * ROWS // 3)
            action_key, member_key = jax.random.split(piece_key)
            chosen = np.asarray(jax.random.choice(member_key, 4, (2,), replace=False))
            noise = twin.noise(action_key, ROWS // 3)
            y = twin.target(
                r[rows], terminal[rows], following[rows], noise, chosen=chosen, share=0.0
            )
            losses.append(twin.critic_step(s[rows], a[rows], y))
        np.testing.assert_allclose(metrics["critic_loss"], np.mean(losses), rtol=1e-5)
        _, entropy = twin.actor_step(s, twin.noise(actor_key, ROWS))
        twin.temperature_step(entropy, -1.0)
    twin.expect(state)


@pytest.mark.parity
def test_the_best_of_several_next_actions():
    method = SAC(hidden_sizes=(8, 8), num_target_actions=3, initial_temperature=0.5, **RATES)
    state = method.init(problem(False), key=jax.random.key(1))
    twin = SoftTwin(state)
    data, key = batch(0, False), jax.random.key(5)
    _, metrics = update(method, state, data, key=key)
    action_key = jax.random.split(jax.random.split(key)[0])[0]
    s, a, r, terminal, following = columns(data, lambda x: np.asarray(x, np.float64))
    y = np.max(
        [
            twin.target(r, terminal, following, twin.noise(k, ROWS))
            for k in jax.random.split(action_key, 3)
        ],
        axis=0,
    )
    np.testing.assert_allclose(metrics["critic_loss"], twin.critic_step(s, a, y), rtol=1e-5)


@pytest.mark.equivalence
def test_the_two_extremes_of_the_actors_rows_differ():
    fields = {**identities.SETTINGS, "num_critic_updates": 2}
    state = SAC(**fields).init(identities.problem(), key=jax.random.key(3))
    both = [
        identities.learn(SAC(actor_rows=rows, **fields), state, identities.batch(0))
        for rows in ("all", "last")
    ]
    identities.expect_same(both[0].critics, both[1].critics)
    identities.expect_different(both[0].actor, both[1].actor)


@pytest.mark.equivalence
def test_a_temperature_with_rate_zero_stays():
    fields = {**identities.SETTINGS, "temperature_learning_rate": 0.0, "initial_temperature": 0.3}
    method = SAC(**fields)
    state = identities.learn(
        method,
        method.init(identities.problem(), key=jax.random.key(3)),
        identities.batch(0),
        identities.batch(1),
    )
    np.testing.assert_allclose(state.log_temperature, np.log(0.3), rtol=1e-6)


@pytest.mark.oracle
def test_soft_optimal_values_and_policy_of_a_chain():
    expect_soft_optimum(SAC)


@pytest.mark.oracle
def test_the_temperature_finds_the_wished_entropy():
    problem, data = chain()
    method = SAC(discount=DISCOUNT, polyak_rate=0.05, hidden_sizes=(32,), **LEARNING_RATES)
    state = trained(method, problem, data, 2500)
    p = np.exp(log_probabilities(method, state, data))
    # Every action of every state is one row, so the sum over rows is over both.
    entropy = -np.sum(p * np.log(p)) / CHAIN_STATES
    np.testing.assert_allclose(entropy, 0.5 * np.log(2), atol=0.02)


@pytest.mark.oracle
def test_the_best_action_of_a_one_step_problem_is_found(key):
    expect_best_action(SAC(**SMALL), key)
