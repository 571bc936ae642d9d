"""PR-LSVI against its equations in NumPy, and what its defaults learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.finite import random_process
from headwater.methods.preference.pr_lsvi import PRLSVI
from headwater.ops.tabular.counts import count_both, no_counts
from headwater.ops.tabular.planning import expected_return, optimal_values, uniform_policy
from headwater.runs.learn import learn
from headwater.sources.comparisons import BradleyTerryJudge, FreshComparisons

from .logged_preferences import (
    FEATURES,
    KEY,
    LOG,
    TASK,
)


@pytest.mark.parity
def test_pr_lsvi_plans_by_its_equations():
    method = PRLSVI(lower_cutoff=0.2, upper_cutoff=0.4, dynamics_noise=0.4, ridge=1.0)
    counts = count_both(no_counts(TASK.problem()), LOG, TASK.problem())
    random = np.random.default_rng(2)
    weights, noise = random.normal(size=6), random.normal(size=(3, 2))
    found = method._plan(
        TASK.problem(),
        counts,
        jnp.asarray(weights, jnp.float32),
        jnp.asarray(noise, jnp.float32),
    )
    value, mixed = np.zeros(3), 0
    visits, led = np.asarray(counts.visits), np.asarray(counts.following)
    for h in (2, 1, 0):
        phi = FEATURES[h]
        seen = np.eye(2) + np.einsum("sa,saf,sag->fg", visits[h], phi, phi)
        targets = np.einsum("saf,sat,t->f", phi, led[h], value)
        root = np.linalg.cholesky(seen)
        learned = np.linalg.solve(seen, targets) + 0.4 * np.linalg.solve(root.T, noise[h])
        action_value = phi @ (weights.reshape(3, 2)[h] + learned)
        norm = np.sqrt(np.einsum("saf,fg,sag->sa", phi, np.linalg.inv(seen), phi))
        share = np.clip((0.4 - norm) / (0.4 - 0.2), 0, 1)
        mixed += np.sum((share > 0) & (share < 1))
        action_value = share * action_value + (1 - share) * (3 - h)
        np.testing.assert_array_equal(np.asarray(found)[h].argmax(-1), action_value.argmax(-1))
        value = action_value.max(-1)
    assert mixed, "the truncation was not met"


@pytest.mark.parity
def test_pr_lsvi_asks_by_the_covariance_of_what_was_asked():
    method = PRLSVI(query_threshold=1.2, reward_noise=0.8, query_budget=20)
    state = method.init(TASK.problem(), key=KEY)
    update = jax.jit(method.update)
    new, metrics = update(state, LOG, key=KEY)
    first, second = (
        np.stack(
            [FEATURES[h, np.asarray(e.state)[:, h], np.asarray(e.action)[:, h]] for h in range(3)],
            1,
        )
        for e in (LOG.first, LOG.second)
    )
    rows = (first - second).reshape(12, 6)
    queried = 2 / np.sqrt(np.pi) * 0.8 * np.linalg.norm(rows, axis=1) > 1.2
    assert 0 < queried.sum() == float(metrics["queries"])
    np.testing.assert_allclose(
        new.precision, np.eye(6) + rows[queried].T @ rows[queried], atol=1e-4
    )


@pytest.mark.parametrize("upper", [0.1, 0.05])
def test_cutoffs_in_the_wrong_order_are_refused(upper):
    """Between equal cutoffs the share of optimism would be zero over zero."""
    with pytest.raises(SpecificationError, match=r"upper_cutoff = .* must be above lower_cutoff"):
        PRLSVI(lower_cutoff=0.1, upper_cutoff=upper)


@pytest.mark.evidence
def test_pr_lsvi_explores_with_its_defaults():
    """At most a quarter of what playing uniformly loses is left, over processes and seeds.

    The defaults were chosen on other processes. The cutoffs that theory gives for one feature per
    state and action, 0.24 and 0.47, failed this criterion on the processes of keys 0 to 2.
    """
    processes = [
        random_process(states=3, actions=2, horizon=3, key=jax.random.key(number))
        for number in (10, 11, 12)
    ]
    method = PRLSVI(query_budget=600)

    def share_left(process: FiniteProcess, key):
        source = FreshComparisons(process, BradleyTerryJudge(process.reward))
        state = learn(method, process.problem(), source, 600, key=key).state
        best = jnp.dot(process.initial, optimal_values(process).value[0])
        lost = best - expected_return(process, method.policy(state, explore=False))
        return lost / (best - expected_return(process, uniform_policy(process)))

    every = jax.tree.map(lambda *leaves: jnp.stack(leaves), *processes)
    seeds = jax.random.split(jax.random.key(3), 8)
    found = jax.jit(jax.vmap(jax.vmap(share_left, (None, 0)), (0, None)))(every, seeds)
    assert float(jnp.mean(found)) <= 0.25, found
