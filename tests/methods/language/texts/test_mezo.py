"""MeZO is replayed to the bit, and follows the gradient on average."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import every_response
from headwater.evaluation.exact_tokens import log_policy
from headwater.methods.language.texts.mezo import MeZO
from headwater.networks.token_table import PrefixTable

from ..exact_texts import (
    RESPONSES,
    learn,
)

AS_USERS_DO = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}
"""How programs are compiled outside of the tests; promises to the bit are about these."""


@pytest.mark.oracle
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_mezo_is_replayed_from_its_log_bit_for_bit(weight_decay, key):
    task = TokenProblem(PrefixTable(3, 3, key=key))
    data = jax.tree.map(lambda x: x[0, :4], RESPONSES.data)
    method = MeZO(learning_rate=0.01, decay_updates=80.0, weight_decay=weight_decay)
    state, metrics = learn(method, task, data, key=key, updates=50, options=AS_USERS_DO)
    assert len(set(np.asarray(metrics["seed"]).tolist())) == 50
    # Through text, as a log holds them.
    logged = [
        jnp.asarray([float(repr(float(x))) for x in metrics[name]], jnp.float32)
        for name in ("seed", "slope", "rate")
    ]
    again = jax.jit(method.replay, compiler_options=AS_USERS_DO)(task.network, *logged)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(state.network)):
        np.testing.assert_array_equal(one, other)
    assert any(
        np.any(np.asarray(one) != np.asarray(other))
        for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(task.network))
    )


@pytest.mark.oracle
def test_mezo_follows_the_gradient_on_average(key):
    """The mean of slope times noise is the gradient, so losses fall as far as this foresees."""
    task = TokenProblem(PrefixTable(3, 2, key=key))
    responses = every_response(vocabulary=3, new_tokens=1)
    data = jax.tree.map(lambda x: x[0, :2], responses.data)
    method = MeZO(learning_rate=1e-3)
    state = method.init(task, key=key)

    def step(key):
        moved, _ = method.update(state, data, key=key)
        return jax.tree.map(lambda new, old: new - old, moved.network, task.network)

    keys = jax.random.split(key, 20_000)
    each = jax.jit(lambda: jax.lax.map(step, keys, batch_size=1000))()

    def loss(network):
        return -jnp.mean(log_policy(network, responses)[0, :2])

    exact = jax.tree.leaves(eqx.filter_grad(loss)(task.network))[0]
    moved = jnp.mean(jax.tree.leaves(each)[0], axis=0)
    np.testing.assert_allclose(-moved / 1e-3, exact, atol=0.03)


@pytest.mark.oracle
def test_mezo_lowers_what_has_no_gradient(key):
    """The share of tokens that greedy choices get wrong."""
    task = TokenProblem(PrefixTable(3, 3, key=key))
    unlikely = jnp.argmin(log_policy(task.network, RESPONSES)[0])
    data = jax.tree.map(lambda x: x[0, unlikely[None]], RESPONSES.data)
    method = MeZO(loss="errors", perturbation_scale=2.0, learning_rate=1.0)
    _, metrics = learn(method, task, data, key=key, updates=200)
    losses = np.asarray(metrics["loss"])
    assert losses[:5].mean() >= 0.5 and losses[-20:].mean() < 0.1
