"""What the soft actor-critic family must find on problems with known answers."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .small_problems import (
    CHAIN_NEXT,
    CHAIN_REWARD,
    CHAIN_STATES,
    DISCOUNT,
    PROBE,
    bandit,
    best_action,
    chain,
    greedy,
    trained,
    values,
)

ALPHA = 0.3


LEARNING_RATES = {
    "actor_learning_rate": 3e-3,
    "critic_learning_rate": 3e-3,
    "temperature_learning_rate": 3e-3,
}


SMALL = {"hidden_sizes": (32, 32), "target_entropy": -2.0, **LEARNING_RATES}


def soft_optimum() -> np.ndarray:
    """Q of the best policy on the chain that is paid α per nat of entropy, by value iteration."""
    q = np.zeros((CHAIN_STATES, 2))
    for _ in range(500):
        value = ALPHA * np.log(np.sum(np.exp(q / ALPHA), -1))
        following = DISCOUNT * value[CHAIN_NEXT]
        following[CHAIN_STATES - 1, 1] = 0.0
        q = CHAIN_REWARD + following
    return q


@eqx.filter_jit
def log_probabilities(method, state, data):
    return jax.vmap(lambda o, a: method.log_probability(state, o, a))(data.observation, data.action)


def narrow(key):
    """A one-step problem whose log holds small actions only, with and without returns."""
    problem, data = bandit(key, rows=256)
    data = eqx.tree_at(lambda d: d.action, data, 0.3 * data.action)
    reward = -4.0 * jnp.sum((data.action - best_action(data.observation)) ** 2, axis=-1)
    return problem, dataclasses.replace(data, reward=reward, return_to_go=reward)


def expect_soft_optimum(method, **options):
    """Fails unless `method`, a class, learns the values and the policy that `soft_optimum` has."""
    fields = {
        **LEARNING_RATES,
        "temperature_learning_rate": 0.0,
        "initial_temperature": ALPHA,
        "discount": DISCOUNT,
        "polyak_rate": 0.05,
        "hidden_sizes": (32,),
    }
    learner = method(**fields, **options)
    problem, data = chain()
    # Every row twice, so that each half of the batch, which RLPD cuts it into, holds all.
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), data)
    state = trained(learner, problem, twice, 2500)
    expected = soft_optimum()
    learned = np.asarray(values(learner, state, data)).reshape(CHAIN_STATES, 2)
    np.testing.assert_allclose(learned, expected, atol=0.02)
    policy = np.exp(log_probabilities(learner, state, data)).reshape(CHAIN_STATES, 2)
    exponentials = np.exp(expected / ALPHA)
    np.testing.assert_allclose(
        policy, exponentials / exponentials.sum(-1, keepdims=True), atol=0.02
    )


def expect_best_action(method, key):
    """Fails unless `method` finds the best action of the one-step problem and its values."""
    problem, data = bandit(key, rows=256)
    state = trained(method, problem, data, 1500)
    np.testing.assert_allclose(greedy(method, state, PROBE), best_action(PROBE), atol=0.12)
    error = values(method, state, data) - data.reward
    assert np.sqrt(np.mean(error**2)) < 0.2
