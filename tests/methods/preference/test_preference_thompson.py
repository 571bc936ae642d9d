"""PbTS against its equations in NumPy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.preference.preference_thompson import PbTS

from .logged_preferences import (
    KEY,
    LOG,
    TASK,
    differences,
)


@pytest.mark.parity
def test_pbts_asks_only_where_rewards_disagree():
    method = PbTS(query_threshold=1.8, query_budget=20)
    state = method.init(TASK.problem(), key=KEY)
    rows = differences(LOG)
    queried = 2 / np.sqrt(np.pi) * np.linalg.norm(rows, axis=1) > 1.8
    assert 0 < queried.sum() < len(queried)
    update = jax.jit(method.update)
    new, metrics = update(state, LOG, key=KEY)
    assert float(metrics["queries"]) == queried.sum()
    np.testing.assert_allclose(new.answers.difference[: queried.sum()], rows[queried], rtol=1e-5)
    # Answers that were not asked for are not looked at, and rewards never are.
    answers = jnp.where(jnp.asarray(queried), LOG.first_preferred, ~LOG.first_preferred)
    first = replace(LOG.first, reward=jnp.full_like(LOG.first.reward, 7.0))
    again, _ = update(state, replace(LOG, first=first, first_preferred=answers), key=KEY)
    learned, relearned = (
        jax.tree.leaves((s.answers, s.weights, s.precision, s.table, s.pair)) for s in (new, again)
    )
    for a, b in zip(learned, relearned, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(new.pair[1], state.pair[0])
    weights = np.asarray(new.weights, np.float64)
    chance = 1 / (1 + np.exp(-rows[queried] @ weights))
    by_hand = (rows[queried] * (chance * (1 - chance))[:, None]).T @ rows[queried] + np.eye(2)
    np.testing.assert_allclose(new.precision, by_hand, rtol=1e-4)
