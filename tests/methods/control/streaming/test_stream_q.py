"""Stream Q(λ) against NumPy, and on a pole."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.control.cart_pole import CartPole
from headwater.methods.control.streaming.stream_q import StreamQ
from headwater.runs.learn import learn
from headwater.sources.rollout import Stream

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
    method = StreamQ(learning_rate=learning_rate, bounded=bounded, **FIELDS)
    state = begun(method, problem(), "network")
    twin, scales, cut = TwinNetwork(state.network), TwinScales(), 0
    for data in steps():
        x, reward, following = scales.scaled(method, data)
        values, action = twin(x), int(data.action)
        next_value = 0.0 if following is None else twin(following).max()
        error = reward + method.discount * next_value - values[action]
        explored = action != values.argmax()
        cut += explored and not scales.fresh
        twin.learn(
            lambda w, x=x, a=action: twin(x, w)[a],
            error,
            scales.fresh or explored,
            method=method,
            kappa=method.kappa,
        )
    assert 0 < cut < len(steps()) - 3, "the actions should be of both kinds"
    state = updated(method, state, steps())
    np.testing.assert_allclose(flat(state.network), twin.weights, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(flat(state.trace), twin.trace, rtol=2e-3, atol=2e-4)


@pytest.mark.oracle
def test_exploratory_actions_and_ends_clear_the_trace_and_greedy_ones_do_not():
    method = StreamQ(**FIELDS, initial_exploration_rate=0.5)
    state = begun(method, problem(), "network")
    data = eqx.tree_at(lambda d: (d.terminal, d.truncated), steps()[0], (False, False))
    likely = [method.log_probability(state, data.observation, jnp.asarray(a)) for a in range(4)]
    best = int(np.argmax(likely))
    for action, terminal, truncated, kept in (
        (best, False, False, True),
        ((best + 1) % 4, False, False, False),
        (best, True, False, False),
        (best, False, True, False),
    ):
        values = tuple(jnp.asarray(x) for x in (action, terminal, truncated))
        one = eqx.tree_at(lambda d: (d.action, d.terminal, d.truncated), data, values)
        assert bool(np.any(flat(updated(method, state, [one]).trace))) is kept


@pytest.mark.oracle
def test_it_balances_a_pole():
    environment, method = CartPole(), StreamQ()

    def ends(agent, data):
        return {"ends": (data.terminal | data.truncated).astype(jnp.float32)}

    @jax.jit
    @jax.vmap
    def run(key):
        source, spaces = Stream(environment), environment.spaces
        return learn(method, spaces, source, 30_000, measure=ends, every=10_000, key=key).sums

    ended = np.asarray(run(jax.random.split(jax.random.key(0), 2))["ends"])
    lengths = (10_000 / ended).mean(0)
    # A random policy stays up for 22 steps; with a fixed step size nothing is learned.
    assert lengths[0] < 100 and lengths[-1] > 150, lengths


def test_it_refuses_actions_that_are_numbers():
    with pytest.raises(SpecificationError, match="StreamQ"):
        StreamQ().init(problem(discrete=False), key=jax.random.key(0))
