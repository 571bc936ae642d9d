"""Identities within the soft actor-critic family."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.offline.cal_ql import CalQL
from headwater.methods.control.offline.cql import CQL
from headwater.methods.control.offline.edac import EDAC
from headwater.methods.control.offline.sac_n import SACN
from headwater.methods.control.online.rlpd import RLPD
from headwater.methods.control.online.sac import SAC
from headwater.parts.soft_actor_critic import SoftActorCritic

SIZE, ROWS = 2, 12
RATES = {
    "actor_learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "temperature_learning_rate": 1e-3,
}
FIELDS = {"widths": (8, 8), "members": 3, **RATES}


def _problem(discrete: bool = False) -> Spaces:
    action = Discrete(3) if discrete else Box((-1.0,) * SIZE, (1.0,) * SIZE)
    return Spaces(Box((-9.0,) * 3, (9.0,) * 3), action)


def _batch(seed: int, discrete: bool = False) -> Transitions:
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
        truncated=~terminal,
        return_to_go=random.normal(size=ROWS).astype(np.float32),
    )
    return jax.tree.map(jnp.asarray, data)


@eqx.filter_jit
def _update(method, state, data, key):
    return method.update(state, data, key=key)[0]


def _learn(method, state, *batches):
    for i, data in enumerate(batches):
        # Numbers become arguments of the compiled program, so that it serves all their values.
        state = _update(jax.tree.map(jnp.asarray, method), state, data, jax.random.key(i))
    return state


def _shared(state) -> SoftActorCritic:
    """The parts of `state` that every method of the family has, by name."""
    names = [field.name for field in dataclasses.fields(SoftActorCritic)]
    return SoftActorCritic(**{name: getattr(state, name) for name in names})


def _expect_same(a, b, tolerance=2e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def _expect_different(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    assert any(not np.allclose(x, y, atol=1e-4) for x, y in pairs)


@pytest.mark.parametrize("target_actions", [1, 3])
def test_cql_without_its_penalty_is_sac(target_actions):
    # SAC takes over what CQL began, moments and all, as a warm start does.
    fields = {**FIELDS, "target_members": 2, "layer_norm": "both", "backup_entropy": 0.7}
    cql = CQL(conservative_weight=0.0, target_actions=target_actions, **fields)
    sac = SAC(target_actions=target_actions, **fields)
    begun = _learn(cql, cql.init(_problem(), key=jax.random.key(3)), _batch(9))
    one = _learn(cql, begun, _batch(0), _batch(1))
    other = _learn(sac, _shared(begun), _batch(0), _batch(1))
    _expect_same(_shared(one), other)
    penalised = _learn(CQL(target_actions=target_actions, **fields), begun, _batch(0), _batch(1))
    _expect_different(one.critics, penalised.critics)


@pytest.mark.parametrize("missing", ["minus infinity", "none"])
def test_cal_ql_without_returns_is_cql(missing):
    fields = {**FIELDS, "proposals": 3, "conservative_weight": 2.0, "target_gap": 0.5}
    cql, cal = CQL(**fields), CalQL(**fields)
    state = cql.init(_problem(), key=jax.random.key(3))
    _expect_same(state, cal.init(_problem(), key=jax.random.key(3)))
    nothing = jnp.full(ROWS, -jnp.inf) if missing == "minus infinity" else None
    bare = [dataclasses.replace(_batch(i), return_to_go=nothing) for i in (0, 1)]
    plain = _learn(cql, state, _batch(0), _batch(1))
    _expect_same(_learn(cal, state, *bare), plain)
    _expect_different(_learn(cal, state, _batch(0), _batch(1)).critics, plain.critics)


def test_edac_without_diversity_is_sac_n():
    edac, sac_n = EDAC(diversity=0.0, **FIELDS), SACN(**FIELDS)
    state = edac.init(_problem(), key=jax.random.key(3))
    _expect_same(state, sac_n.init(_problem(), key=jax.random.key(3)))
    plain = _learn(sac_n, state, _batch(0), _batch(1))
    _expect_same(_learn(edac, state, _batch(0), _batch(1)), plain)
    diverse = _learn(EDAC(diversity=5.0, **FIELDS), state, _batch(0), _batch(1))
    _expect_different(diverse.critics, plain.critics)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(("critic_updates", "target_members"), [(1, 3), (2, 2)])
def test_rlpd_is_sac_with_its_settings(discrete, critic_updates, target_members):
    fields = {
        **FIELDS,
        "critic_updates": critic_updates,
        "target_members": target_members,
        "target_entropy": -0.5,
    }
    rlpd = RLPD(**fields)
    sac = SAC(actor_reduction="mean", actor_rows="last", layer_norm="critics", **fields)
    state = rlpd.init(_problem(discrete), key=jax.random.key(3))
    _expect_same(state, sac.init(_problem(discrete), key=jax.random.key(3)))
    batches = [_batch(i, discrete) for i in (0, 1)]
    _expect_same(_learn(rlpd, state, *batches), _learn(sac, state, *batches))


def test_the_two_extremes_of_the_actors_rows_differ():
    fields = {**FIELDS, "critic_updates": 2}
    state = SAC(**fields).init(_problem(), key=jax.random.key(3))
    both = [_learn(SAC(actor_rows=rows, **fields), state, _batch(0)) for rows in ("all", "last")]
    _expect_same(both[0].critics, both[1].critics)
    _expect_different(both[0].actor, both[1].actor)


def test_a_temperature_with_rate_zero_stays():
    fields = {**FIELDS, "temperature_learning_rate": 0.0, "initial_temperature": 0.3}
    method = SAC(**fields)
    state = _learn(method, method.init(_problem(), key=jax.random.key(3)), _batch(0), _batch(1))
    np.testing.assert_allclose(state.log_temperature, np.log(0.3), rtol=1e-6)
