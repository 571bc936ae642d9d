"""Every row once in each pass: compiled, on the host, and after a stop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.records import Completions
from headwater.methods.language.texts.sft import SFT
from headwater.sources.language.completions import CompletionReplay
from headwater.sources.language.packed import PackedReplay, Shape

COUNT, ROWS = 7, 3
AGENT = Agent(SFT(), None)
# Which row it is can be read from its first token.
TOKENS = jnp.arange(COUNT)[:, None] + jnp.zeros((1, 4), jnp.int32)
DATA = Completions(TOKENS, jnp.broadcast_to(jnp.arange(4) > 0, TOKENS.shape))


def test_every_row_comes_once_in_each_pass_and_in_another_order(key):
    source = CompletionReplay(DATA, ROWS, passes=True)

    @jax.jit
    def drawn(key):
        one = lambda state, key: source.draw(state, AGENT, key=key)
        return jax.lax.scan(one, source.init(key=key), jax.random.split(key, COUNT))[1].tokens

    taken = np.asarray(drawn(key))[..., 0].reshape(ROWS, COUNT)
    assert np.array_equal(np.sort(taken, axis=1), np.tile(np.arange(COUNT), (ROWS, 1)))
    assert len({tuple(order) for order in taken}) == ROWS
    # Another seed has other orders.
    assert not np.array_equal(taken, np.asarray(drawn(jax.random.key(9)))[..., 0].reshape(3, 7))


def test_the_host_takes_the_same_rows_and_goes_on_where_it_was(key):
    keys = jax.random.split(key, 2)
    compiled = CompletionReplay(DATA, ROWS, passes=True)
    hosted = PackedReplay(DATA, ROWS, (Shape(ROWS, 4),), passes=True)
    state, states = hosted.init(keys=keys), [compiled.init(key=each) for each in keys]
    for step in range(5):
        state, batch = hosted.draw(state, AGENT, keys=keys)
        # The order of what follows is in what is saved.
        state = hosted.load(hosted.save(state), keys=jax.random.split(keys[0], 2))
        for seed in range(2):
            states[seed], own = compiled.draw(states[seed], AGENT, key=keys[seed])
            assert np.array_equal(batch.tokens[seed], own.tokens), step


def test_passes_leave_no_room_for_weights():
    weights = jnp.ones(COUNT)
    for make in (
        lambda: CompletionReplay(DATA, ROWS, weights, passes=True),
        lambda: PackedReplay(DATA, ROWS, (Shape(ROWS, 4),), weights, passes=True),
    ):
        with pytest.raises(SpecificationError, match="in a pass every row comes once, whatever"):
            make()
