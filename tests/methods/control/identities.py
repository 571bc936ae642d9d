"""Comparing the states of methods that share a special case."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.parts.soft_actor_critic import SoftActorCritic

SIZE, ROWS = 2, 12


WIDTHS = (8, 8)


RATES = {
    "actor_learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "temperature_learning_rate": 1e-3,
}


SETTINGS = {"hidden_sizes": (8, 8), "num_critics": 3, **RATES}


def problem(discrete: bool = False) -> Spaces:
    action = Discrete(3) if discrete else Box((-1.0,) * SIZE, (1.0,) * SIZE)
    return Spaces(Box((-9.0,) * 3, (9.0,) * 3), action)


def batch(seed: int, discrete: bool = False) -> Transitions:
    random = np.random.default_rng(seed)
    terminal = np.arange(ROWS) % 3 == 0
    action = (
        random.integers(0, 3, ROWS).astype(np.int32)
        if discrete
        else random.uniform(-1, 1, (ROWS, SIZE)).astype(np.float32)
    )
    data = Transitions(
        observation=random.normal(size=(ROWS, 3)).astype(np.float32),
        action=action,
        reward=random.normal(size=ROWS).astype(np.float32),
        next_observation=random.normal(size=(ROWS, 3)).astype(np.float32),
        terminal=terminal,
        truncated=~terminal & (np.arange(ROWS) % 5 == 0),
        return_to_go=random.normal(size=ROWS).astype(np.float32),
        next_action=action[::-1],
    )
    return jax.tree.map(jnp.asarray, data)


@eqx.filter_jit
def update(method, state, data, key):
    return method.update(state, data, key=key)[0]


@eqx.filter_jit
def begin(method, spaces):
    """The state before any data."""
    return method.init(spaces, key=jax.random.key(3))


def learn(method, state, *batches):
    for i, data in enumerate(batches):
        # Numbers become arguments of the compiled program, so that it serves all their values.
        state = update(jax.tree.map(jnp.asarray, method), state, data, jax.random.key(i))
    return state


def shared(state) -> SoftActorCritic:
    """What every method of the family has of its state."""
    return state if isinstance(state, SoftActorCritic) else state.soft


def expect_same(a, b, tolerance=2e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def expect_different(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    assert any(not np.allclose(x, y, atol=1e-4) for x, y in pairs)


def several(discrete=False, updates=4):
    """Batches for so many updates."""
    return [batch(i, discrete) for i in range(updates)]
