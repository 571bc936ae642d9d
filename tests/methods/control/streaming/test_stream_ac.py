"""Stream AC(λ) against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Transition
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.streaming.stream_ac import StreamAC

from .stream_twin import (
    FIELDS,
    STEP_SIZES,
    TwinNetwork,
    TwinScales,
    begun,
    flat,
    problem,
    steps,
    updated,
)


def _categorical(output, action):
    log = output - np.log(np.exp(output).sum())
    return log[action], -(np.exp(log) * log).sum()


def _normal(output, action):
    mean, std = output[:2], np.log1p(np.exp(output[2:])) + 1e-5
    log = -0.5 * ((action - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    return log.sum(), np.log(std).sum()


@pytest.mark.parity
@pytest.mark.parametrize(("learning_rate", "bounded"), STEP_SIZES)
@pytest.mark.parametrize("discrete", [True, False])
def test_an_episode_after_the_other(discrete, learning_rate, bounded):
    method = StreamAC(learning_rate=learning_rate, bounded=bounded, entropy_weight=0.3, **FIELDS)
    judged = _categorical if discrete else _normal
    state = begun(method, problem(discrete), "actor", "critic")
    actor, critic, scales = TwinNetwork(state.actor), TwinNetwork(state.critic), TwinScales()
    for data in steps(discrete):
        x, reward, following = scales.scaled(method, data)
        next_value = 0.0 if following is None else critic(following)[0]
        error = reward + method.discount * next_value - critic(x)[0]
        action = int(data.action) if discrete else np.asarray(data.action, np.float64)

        def preference(w, x=x, action=action, error=error):
            log, entropy = judged(actor(x, w), action)
            return log + 0.3 * np.sign(error) * entropy

        over = scales.fresh
        actor.learn(preference, error, over, method=method, kappa=method.actor_kappa)
        critic.learn(
            lambda w, x=x: critic(x, w)[0], error, over, method=method, kappa=method.critic_kappa
        )
    state = updated(method, state, steps(discrete))
    for mine, twin in ((state.actor, actor), (state.critic, critic)):
        np.testing.assert_allclose(flat(mine), twin.weights, rtol=2e-4, atol=2e-5)
    for mine, twin in ((state.actor_trace, actor), (state.critic_trace, critic)):
        np.testing.assert_allclose(flat(mine), twin.trace, rtol=2e-3, atol=2e-4)


@pytest.mark.oracle
def test_it_finds_the_better_of_two_arms():
    """One-step episodes, in which the second of two actions earns 1 and the other nothing."""
    method, spaces = StreamAC(hidden_sizes=(8, 8)), Spaces(Box((-1.0,), (1.0,)), Discrete(2))
    here = jnp.zeros(1)

    def pull(state, key):
        action, _ = method.act(state, here, key=key, explore=True)
        reward = (action == 1).astype(jnp.float32)
        data = Transition(here, action, reward, here, jnp.asarray(True), jnp.asarray(False))
        return method.update(state, data, key=key)[0], reward

    def run(key):
        state = method.init(spaces, key=key)
        return jax.lax.scan(pull, state, jax.random.split(key, 2_000))[1]

    rewards = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4)))
    assert rewards[:, :5].mean() < 0.8 and rewards[:, -500:].mean() > 0.95, rewards.mean(1)
