"""CQL against NumPy, against SAC, and on problems with known answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.control.offline.cql import CQL
from headwater.methods.control.online.sac import SAC

from .. import identities
from ..conservative_twin import CONSERVATIVE_SETTINGS, expect_parity
from ..small_problems import PROBE, greedy, trained, values
from ..soft_problems import SMALL, expect_best_action, narrow


@pytest.mark.parity
def test_cql():
    expect_parity(CQL(**CONSERVATIVE_SETTINGS))


@pytest.mark.parity
def test_cql_with_entropy_in_the_backup_and_a_learned_weight():
    expect_parity(CQL(backup_entropy=0.5, target_action_gap=0.3, **CONSERVATIVE_SETTINGS))


@pytest.mark.parity
def test_cql_that_leaves_small_gaps_alone():
    # About half of the gaps are smaller than this.
    expect_parity(CQL(min_action_gap=3.2, **CONSERVATIVE_SETTINGS), smallest=3.2)


@pytest.mark.parity
def test_cql_with_a_bound_below_all_gaps():
    # CORL's is far below zero: it must be taken, and changes nothing here.
    settings = {**CONSERVATIVE_SETTINGS, "min_action_gap": -200.0}
    expect_parity(CQL(**settings))


@pytest.mark.equivalence("SAC")
@pytest.mark.parametrize("num_target_actions", [1, 3])
def test_cql_without_its_penalty_is_sac(num_target_actions):
    # SAC takes over what CQL began, moments and all, as a warm start does.
    fields = {
        **identities.SETTINGS,
        "num_target_critics": 2,
        "layer_norm": "both",
        "backup_entropy": 0.7,
    }
    cql = CQL(conservative_weight=0.0, num_target_actions=num_target_actions, **fields)
    sac = SAC(num_target_actions=num_target_actions, **fields)
    begun = identities.learn(
        cql, cql.init(identities.problem(), key=jax.random.key(3)), identities.batch(9)
    )
    one = identities.learn(cql, begun, identities.batch(0), identities.batch(1))
    other = identities.learn(
        sac, identities.shared(begun), identities.batch(0), identities.batch(1)
    )
    identities.expect_same(identities.shared(one), other)
    penalised = identities.learn(
        CQL(num_target_actions=num_target_actions, **fields),
        begun,
        identities.batch(0),
        identities.batch(1),
    )
    identities.expect_different(one.soft.critics, penalised.soft.critics)


@pytest.mark.oracle
def test_the_best_action_of_a_one_step_problem_is_found(key):
    expect_best_action(CQL(conservative_weight=0.01, num_action_samples=2, **SMALL), key)


@pytest.mark.oracle
def test_conservative_values_prefer_logged_actions(key):
    problem, data = narrow(key)
    gaps = {}
    # Every logged observation again, with an action at the edge of the box.
    far = eqx.tree_at(lambda d: d.action, data, jnp.sign(data.action))
    for weight in (0.0, 1.0):
        method = CQL(conservative_weight=weight, num_action_samples=4, **SMALL)
        state = trained(method, problem, data, 600)
        gaps[weight] = float(
            jnp.mean(values(method, state, data)) - jnp.mean(values(method, state, far))
        )
        np.testing.assert_array_less(np.abs(greedy(method, state, PROBE)), 1.0)
    assert gaps[1.0] > max(0.0, gaps[0.0] + 0.5), gaps
