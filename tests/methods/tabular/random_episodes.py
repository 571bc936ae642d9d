"""Random episodes and functions of a process with three steps and four states."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProblem
from headwater.core.hypotheses import ValueClass
from headwater.core.records import Episodes

H, S, A, F, G = 3, 4, 2, 6, 5


KEY = jax.random.key(0)


def episodes_of(count, seed=0):
    generator = np.random.default_rng(seed)
    return Episodes(
        jnp.asarray(generator.integers(0, S, (count, H + 1)), jnp.int32),
        jnp.asarray(generator.integers(0, A, (count, H)), jnp.int32),
        jnp.asarray(generator.random((count, H)), jnp.float32),
    )


def value_class(helpers=True):
    generator = np.random.default_rng(1)
    problem = FiniteProblem(S, A, H, initial=jnp.asarray([0.5, 0.5, 0.0, 0.0]))
    functions = generator.random((F + G, H, S, A))
    return ValueClass.from_arrays(problem, functions[:F], functions[F:] if helpers else None)
