"""A small decoder and texts for methods with experts, and `SFT` on the decoder without them."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem, position_mask
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder

from ..exact_texts import learn

RATES = {"learning_rate": 0.01, "max_gradient_norm": float("inf")}
DENSE = Decoder(Architecture(5, 6, 4, 2, 1, hidden=4), key=jax.random.key(0), deviation=0.5)


def texts(rows=6) -> Completions:
    """Prompts of one or two tokens, responses of up to three, and padding."""
    keys = jax.random.split(jax.random.key(1), 3)
    start = jax.random.randint(keys[0], (rows,), 1, 3)
    stop = start + jax.random.randint(keys[1], (rows,), 1, 4)
    return Completions(jax.random.randint(keys[2], (rows, 6), 0, 5), position_mask(start, stop, 6))


def expect_the_steps_of_sft(method, problem, key, pick):
    """Fails unless `method` takes the steps of `SFT`; `pick` undoes what it made of the decoder."""
    data = texts()
    state, metrics = learn(method, problem, data, key=key, updates=3)
    plain, expected = learn(SFT(**RATES), TokenProblem(DENSE), data, key=key, updates=3)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-4)
    found = pick(method.network(state))
    for name in ("up", "down", "gate", "query"):
        np.testing.assert_allclose(
            getattr(found.blocks, name).weight,
            getattr(plain.network.blocks, name).weight,
            atol=2e-4,
        )
    moved = jnp.abs(plain.network.blocks.up.weight - DENSE.blocks.up.weight)
    assert float(jnp.max(moved)) > 0.01
