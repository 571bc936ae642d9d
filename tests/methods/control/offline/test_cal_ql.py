"""Cal-QL against NumPy, against CQL, and on problems with known answers."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from headwater.methods.control.offline.cal_ql import CalQL
from headwater.methods.control.offline.cql import CQL
from headwater.parts import conservative

from .. import identities
from ..conservative_twin import CONSERVATIVE_SETTINGS, ROWS, expect_parity
from ..small_problems import (
    greedy,
    trained,
    values,
)
from ..soft_problems import (
    SMALL,
    narrow,
)


@pytest.mark.parity
@pytest.mark.parametrize("target_action_gap", [None, 0.8])
def test_cal_ql(target_action_gap):
    expect_parity(CalQL(target_action_gap=target_action_gap, **CONSERVATIVE_SETTINGS))


@pytest.mark.parity("CQL")
@pytest.mark.parametrize("together", [None, ROWS, ROWS // 4])
def test_rows_looked_at_together_change_nothing(monkeypatch, together):
    monkeypatch.setattr(conservative, "_rows_together", lambda rows, candidates: together)
    expect_parity(CalQL(target_action_gap=0.3, **CONSERVATIVE_SETTINGS))
    expect_parity(CQL(min_action_gap=3.2, **CONSERVATIVE_SETTINGS), smallest=3.2)


@pytest.mark.equivalence("CQL")
@pytest.mark.parametrize("missing", ["minus infinity", "none"])
def test_cal_ql_without_returns_is_cql(missing):
    fields = {
        **identities.SETTINGS,
        "num_action_samples": 3,
        "conservative_weight": 2.0,
        "target_action_gap": 0.5,
    }
    cql, cal = CQL(**fields), CalQL(**fields)
    state = cql.init(identities.problem(), key=jax.random.key(3))
    identities.expect_same(state, cal.init(identities.problem(), key=jax.random.key(3)))
    nothing = jnp.full(ROWS, -jnp.inf) if missing == "minus infinity" else None
    bare = [dataclasses.replace(identities.batch(i), return_to_go=nothing) for i in (0, 1)]
    plain = identities.learn(cql, state, identities.batch(0), identities.batch(1))
    identities.expect_same(identities.learn(cal, state, *bare), plain)
    identities.expect_different(
        identities.learn(cal, state, identities.batch(0), identities.batch(1)).soft.critics,
        plain.soft.critics,
    )


@pytest.mark.oracle("CQL")
def test_calibration_keeps_values_above_the_logged_returns(key):
    problem, data = narrow(key)
    believed = {}
    for name, method in (
        ("CQL", CQL(conservative_weight=5.0, num_action_samples=4, **SMALL)),
        ("Cal-QL", CalQL(conservative_weight=5.0, num_action_samples=4, **SMALL)),
    ):
        state = trained(method, problem, data, 600)
        chosen = greedy(method, state, data.observation)
        of_policy = values(method, state, eqx.tree_at(lambda d: d.action, data, chosen))
        believed[name] = float(jnp.mean(of_policy))
    logged = float(jnp.mean(data.reward))
    assert believed["CQL"] < logged - 0.05 and believed["Cal-QL"] > logged, (believed, logged)
