"""Levels by regret: what is left of it without replay, and what levels are worth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.methods.meta.groove import GROOVE
from headwater.methods.meta.lpg import LPG
from headwater.parts.meta.antagonist import Antagonist

ARMS, TASKS = 3, 2
SETTINGS = {
    "episodes_per_update": 6, "unroll_updates": 1, "num_predictions": 2, "recurrent_size": 3,
    "shortest_lifetime": 1, "longest_lifetime": 3, "learning_rate": 0.1,
}  # fmt: skip
METHOD = GROOVE(**SETTINGS, num_levels=6)
PROBLEM = FiniteProblem(1, ARMS, 1, tasks=TASKS)


@jax.jit
def bandits(key):
    means = jax.random.uniform(key, (TASKS, 1, 1, ARMS))
    return FiniteProcess(jnp.ones((*means.shape, 1)), means, jnp.ones((TASKS, 1)), noisy=True)


init = jax.jit(lambda method, *, key: method.init(PROBLEM, key=key))
# Compiled once for all probabilities.
update = jax.jit(lambda method, *given, key: method.update(*given, key=key))


def learned(method, updates):
    """The last state, and what the metrics were."""
    state, seen = init(method, key=jax.random.key(0)), []
    for i in range(updates):
        state, metrics = update(
            method, state, bandits(jax.random.key(i)), key=jax.random.key(50 + i)
        )
        seen.append(metrics)
    return state, seen


@pytest.mark.equivalence
def test_without_replay_it_is_the_learned_policy_gradient():
    never, _ = learned(dataclasses.replace(METHOD, replay_probability=0.0), 8)
    same, _ = learned(LPG(**SETTINGS), 8)
    begun = init(LPG(**SETTINGS), key=jax.random.key(0))
    moved = same.rule.head.weights[-1] - begun.rule.head.weights[-1]
    assert float(jnp.abs(moved).max()) > 0.1
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), never.learned, same
    )


@pytest.mark.oracle
def test_what_levels_are_worth():
    tasks = bandits(jax.random.key(7))
    means = np.asarray(tasks.reward)[:, 0, 0]
    even = jnp.full((TASKS, 1, 1, ARMS), 1.0 / ARMS)
    logits = jnp.zeros((TASKS, 1, 1, ARMS)).at[..., 0].set(jnp.log(4.0))
    antagonist = Antagonist(logits, jnp.zeros((TASKS, 1, 1)))
    # Four parts of six of the first arm, and one of each other.
    gained = means @ np.asarray([4.0, 1.0, 1.0]) / 6.0
    found = METHOD.scores(even, antagonist, tasks)
    np.testing.assert_allclose(found, gained - means.mean(axis=1), rtol=1e-5)
    apart = np.abs(means - means.mean(axis=1, keepdims=True)).mean(axis=1)
    np.testing.assert_allclose(METHOD.scores(even, None, tasks), apart, rtol=1e-5)


def test_levels_come_again_and_their_scores_are_those_of_the_agents_that_end():
    state, seen = learned(METHOD, 12)
    assert any(float(metrics["replayed"]) > 0.0 for metrics in seen)
    buffer, agents = state.buffer, state.learned.agents
    # The agents are in the levels that their slots hold, and in no other's.
    np.testing.assert_array_equal(buffer.reward[state.slot], agents.reward)
    np.testing.assert_array_equal(buffer.lifetime[state.slot], agents.lifetime)
    assert sorted(np.flatnonzero(buffer.active)) == sorted(state.slot.tolist())
    ended = agents.over
    expected = METHOD.scores(
        jax.nn.softmax(agents.agent.policy),
        state.antagonist,
        agents.tasks(bandits(jax.random.key(0))),
    )
    after, _ = update(METHOD, state, bandits(jax.random.key(99)), key=jax.random.key(98))
    assert ended.any()
    for i in np.flatnonzero(ended):
        # Unless a new level took its place at once.
        if bool(after.buffer.scored[state.slot[i]]):
            np.testing.assert_allclose(after.buffer.score[state.slot[i]], expected[i], rtol=1e-4)


def test_a_small_buffer_is_refused():
    with pytest.raises(SpecificationError, match="it must hold at least 4 levels"):
        GROOVE(num_levels=3).init(PROBLEM, key=jax.random.key(0))
