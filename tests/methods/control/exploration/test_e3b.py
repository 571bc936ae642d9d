"""Elliptical bonuses against NumPy, and against counts where they are counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Transition
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.exploration.count_bonus import CountBonus
from headwater.methods.control.exploration.e3b import E3B
from headwater.methods.control.streaming.stream_ac import StreamAC

from .walks import INNER, PLACES, paid, steps

_PLAIN = {"inner": INNER, "scale_bonus": False}


@pytest.mark.parity
def test_bonuses_are_those_of_the_whole_covariance():
    expected = []
    for places in PLACES:
        seen = [np.asarray([9.0, places[0]])]
        for place in places[1:]:
            x = np.asarray([9.0, place])
            covariance = 0.3 * np.eye(2) + sum(np.outer(y, y) for y in seen)
            expected.append(x @ np.linalg.solve(covariance, x))
            seen.append(x)
    found, _ = paid(E3B(**_PLAIN, features="observed", ridge=0.3), steps())
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.equivalence
def test_one_hot_observations_give_the_same_as_their_cells():
    places = 3

    def one_hot(step):
        shown = lambda x: jnp.append(jax.nn.one_hot(x[1].astype(int), places), x[1])
        after = shown(step.next_observation)
        return dataclasses.replace(
            step, observation=shown(step.observation), next_observation=after
        )

    data = [one_hot(step) for step in steps()]
    spaces = Spaces(Box((0.0,) * 4, (1.0, 1.0, 1.0, 2.0)), Discrete(2))
    found = {}
    for features, columns in (("observed", (0, 1, 2)), ("cells", (3,))):
        method = E3B(**_PLAIN, features=features, novelty_columns=columns)
        state = method.init(spaces, key=jax.random.key(0))
        found[features] = []
        for step in data:
            state, metrics = method.update(state, step, key=jax.random.key(1))
            found[features].append(float(metrics["paid"]))
    np.testing.assert_allclose(found["observed"], found["cells"], rtol=1e-4)
    assert len(set(np.round(found["cells"], 3))) > 2, "cells should be visited once and more often"


@pytest.mark.equivalence
def test_the_product_with_counts_is_the_product():
    # The clip does not touch what is paid, which is what is compared.
    alone, _ = paid(E3B(**_PLAIN, features="cells"), steps())
    product, _ = paid(E3B(**_PLAIN, features="cells", times_counts=True), steps())
    counts, _ = paid(CountBonus(**_PLAIN, bonus="global"), steps())
    np.testing.assert_allclose(product, alone * counts, rtol=1e-5)


@pytest.mark.oracle
def test_learned_features_tell_the_action_and_not_the_noise():
    # Column 0 is what actions move, column 1 is noise: only the first tells an action.
    rng = np.random.default_rng(0)
    method = E3B(inner=INNER, learning_rate=3e-3, embedding_size=4, hidden_sizes=(16,))
    spaces = Spaces(Box((-1.0, -1.0), (1.0, 1.0)), Discrete(2))
    action = rng.integers(0, 2, 3000)
    before = rng.uniform(-1.0, 1.0, (3000, 2))
    after = rng.uniform(-1.0, 1.0, (3000, 2))
    after[:, 0] = before[:, 0] + np.where(action == 1, 0.3, -0.3)
    no = jnp.zeros((), bool)

    def one(state, row):
        step = Transition(row[0], row[1], jnp.zeros(()), row[2], no, no)
        state, metrics = method.update(state, step, key=jax.random.key(0))
        return state, metrics["inverse_loss"]

    before, after = jnp.asarray(before, jnp.float32), jnp.asarray(after, jnp.float32)
    rows = (before, jnp.asarray(action, jnp.int32), after)
    start = method.init(spaces, key=jax.random.key(1))
    end, loss = jax.jit(lambda s: jax.lax.scan(one, s, rows))(start)
    assert float(loss[-200:].mean()) < 0.2 < float(loss[:200].mean())

    def moved_by(column):
        shift = jnp.zeros(2).at[column].set(0.3)
        encoder = end.memory.model.encoder
        away = encoder(before + shift[None]) - encoder(before)
        return float(jnp.mean(jnp.linalg.norm(away, axis=-1)))

    assert moved_by(0) > 3.0 * moved_by(1)


@pytest.mark.oracle
def test_continuous_actions_are_told_by_least_squares():
    method = E3B(inner=StreamAC(hidden_sizes=(4,)), embedding_size=3, hidden_sizes=(5,))
    box = Box((-1.0, -1.0), (1.0, 1.0))
    state = method.init(Spaces(box, box), key=jax.random.key(0))
    no = jnp.zeros((), bool)
    before, after, action = jnp.asarray([[0.1, 0.2], [0.3, -0.4], [0.5, -0.6]])
    step = Transition(before, action, jnp.zeros(()), after, no, no)
    model = state.memory.model
    both = jnp.concatenate([model.encoder(before), model.encoder(after)])
    expected = float(jnp.sum(jnp.square(model.head(both) - action)))
    _, metrics = method.update(state, step, key=jax.random.key(0))
    assert float(metrics["inverse_loss"]) == pytest.approx(expected, rel=1e-5)
