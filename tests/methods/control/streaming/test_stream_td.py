"""Stream TD(λ) against NumPy, and on the predictor's example of Sutton and Barto."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Transition
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.streaming.stream_td import StreamTD

from .stream_twin import (
    FIELDS,
    STEP_SIZES,
    TwinNetwork,
    TwinScales,
    begun,
    flat,
    problem,
    steps,
    updated,
)


@pytest.mark.parity
@pytest.mark.parametrize(("learning_rate", "bounded"), STEP_SIZES)
def test_an_episode_after_the_other(learning_rate, bounded):
    method = StreamTD(learning_rate=learning_rate, bounded=bounded, **FIELDS)
    state = begun(method, problem(), "network")
    twin, scales = TwinNetwork(state.network), TwinScales()
    for data in steps():
        x, reward, following = scales.scaled(method, data)
        next_value = 0.0 if following is None else twin(following)[0]
        error = reward + method.discount * next_value - twin(x)[0]
        twin.learn(
            lambda w, x=x: twin(x, w)[0], error, scales.fresh, method=method, kappa=method.kappa
        )
    state = updated(method, state, steps())
    np.testing.assert_allclose(flat(state.network), twin.weights, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(flat(state.trace), twin.trace, rtol=2e-3, atol=2e-4)


def _predictor():
    """Steps of eight episodes: A, 0, B, 0 once; B, 1 six times; B, 0 once."""
    at = jnp.eye(2)
    rows = [(0, 0.0, False), (1, 0.0, True), *[(1, 1.0, True)] * 6, (1, 0.0, True)]
    each = [
        Transition(
            at[state],
            jnp.zeros((), jnp.int32),
            jnp.asarray(reward),
            at[1],
            jnp.asarray(terminal),
            jnp.zeros((), bool),
        )
        for state, reward, terminal in rows
    ]
    return jax.tree.map(lambda *x: jnp.stack(x), *each)


@pytest.mark.oracle
@pytest.mark.parametrize(("trace_decay", "answer"), [(0.0, 0.75), (1.0, 0.0)])
def test_the_predictors_example(trace_decay, answer):
    """Again and again over the episodes: TD(0) gives A the value of B, Monte Carlo its return."""
    method = StreamTD(
        discount=1.0,
        trace_decay=trace_decay,
        learning_rate=0.003,
        bounded=False,
        normalise_observations=False,
        scale_rewards=False,
        hidden_sizes=(),
    )
    spaces = Spaces(Box((0.0, 0.0), (1.0, 1.0)), Discrete(2))
    state, episodes = method.init(spaces, key=jax.random.key(0)), _predictor()

    def once(state, _):
        return jax.lax.scan(
            lambda s, d: method.update(s, d, key=jax.random.key(0)), state, episodes
        )[0], None

    state = jax.jit(lambda s: jax.lax.scan(once, s, length=3_000)[0])(state)
    values = [float(method.predict(state, x)) for x in jnp.eye(2)]
    np.testing.assert_allclose(values, [answer, 0.75], atol=0.015)
