"""EDAC against NumPy, against SAC-N, and on problems with known answers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.spaces import Box, Spaces
from headwater.methods.control.offline.edac import EDAC
from headwater.methods.control.offline.sac_n import SACN
from headwater.ops.control.ensemble import slope_similarity

from .. import identities
from ..numpy_twin import (
    ACTION,
    ROWS,
    Perceptron,
    batch,
    problem,
    update,
)
from ..small_problems import (
    bandit,
    trained,
)
from ..soft_problems import (
    SMALL,
    expect_best_action,
)
from ..soft_twin import RATES, SoftTwin, before_the_critics, columns

MEMBERS, ETA = 3, 0.7


def _similarity(networks, s, a):
    """The mean over rows of Σ_{i≠j} cos(g_i, g_j) / (N - 1), pair by pair."""
    directions = []
    for critic in networks:
        critic.forward(np.concatenate([s, a], -1))
        slope = critic.backward(np.ones((len(s), 1)))[1][:, -ACTION:]
        directions.append(slope / np.linalg.norm(slope, axis=-1, keepdims=True))
    total = sum(
        np.sum(directions[i] * directions[j], -1)
        for i in range(len(networks))
        for j in range(len(networks))
        if i != j
    )
    return np.mean(total) / (len(networks) - 1)


@pytest.mark.parity
def test_two_updates_of_edac():
    method = EDAC(hidden_sizes=(6, 6), num_critics=MEMBERS, diversity_weight=ETA, **RATES)
    state = method.init(problem(False), key=jax.random.key(1))
    twin = SoftTwin(state, log_std_range=(-5.0, 2.0))
    for i in range(2):
        data, key = batch(i, False), jax.random.key(i)
        state, metrics = update(method, state, data, key=key)
        c = columns(data, lambda x: np.asarray(x, np.float64))
        s, a = c[:2]
        y = before_the_critics(twin, state, metrics, c, key, -ACTION)
        np.testing.assert_allclose(
            metrics["similarity"], _similarity(twin.critics, s, a), rtol=1e-4
        )
        # The second derivative by differences: the twin knows only first ones.
        similar = [_differences(twin.critics, j, s, a) for j in range(MEMBERS)]
        for j, (critic, adam) in enumerate(zip(twin.critics, twin.critic_adams)):
            predicted = critic.forward(np.concatenate([s, a], -1))[:, 0]
            error = critic.backward(2 * (predicted - y)[:, None] / ROWS)[0]
            adam.step([g + ETA * h for g, h in zip(error, similar[j])])
        twin.move()
    twin.expect(state, tolerance=2e-4)


def _differences(networks, j, s, a, step=1e-6):
    """The derivative of the similarity by every parameter of critic `j`."""
    gradients = []
    for parameter in networks[j].parameters:
        gradient = np.zeros_like(parameter)
        for index in np.ndindex(parameter.shape):
            sides = []
            for sign in (1, -1):
                moved = Perceptron(networks[j].parameters)
                moved.parameters[len(gradients)][index] += sign * step
                others = [*networks[:j], moved, *networks[j + 1 :]]
                sides.append(_similarity(others, s, a))
            gradient[index] = (sides[0] - sides[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


@pytest.mark.equivalence("SACN")
def test_edac_without_diversity_is_sac_n():
    edac, sac_n = EDAC(diversity_weight=0.0, **identities.SETTINGS), SACN(**identities.SETTINGS)
    state = edac.init(identities.problem(), key=jax.random.key(3))
    identities.expect_same(state, sac_n.init(identities.problem(), key=jax.random.key(3)))
    plain = identities.learn(sac_n, state, identities.batch(0), identities.batch(1))
    identities.expect_same(
        identities.learn(edac, state, identities.batch(0), identities.batch(1)), plain
    )
    diverse = identities.learn(
        EDAC(diversity_weight=5.0, **identities.SETTINGS),
        state,
        identities.batch(0),
        identities.batch(1),
    )
    identities.expect_different(diverse.critics, plain.critics)


@pytest.mark.oracle
def test_the_best_action_of_a_one_step_problem_is_found(key):
    expect_best_action(EDAC(num_critics=3, diversity_weight=0.1, **SMALL), key)


@pytest.mark.oracle
def test_diversity_turns_the_critics_slopes_apart(key):
    # Two components of the action: slopes along a line cannot turn.
    problem = Spaces(Box((-1.0,), (1.0,)), Box((-1.0,) * 2, (1.0,) * 2))
    _, data = bandit(key, rows=128)
    action = jax.random.uniform(key, (128, 2), minval=-1.0, maxval=1.0)
    reward = -jnp.sum(action**2, axis=-1)
    data = dataclasses.replace(data, action=action, reward=reward, next_action=None)
    similar = {}
    for diversity in (0.0, 1.0):
        method = EDAC(num_critics=3, diversity_weight=diversity, **SMALL)
        state = trained(method, problem, data, 400)

        def slopes(critic):
            return jax.grad(lambda a: jnp.sum(critic(data.observation, a)))(data.action)

        similar[diversity] = float(jnp.mean(slope_similarity(state.critics.each(slopes))))
    assert similar[0.0] > 2.0 and similar[1.0] < similar[0.0] - 1.0, similar
