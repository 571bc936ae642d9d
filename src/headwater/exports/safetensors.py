"""The arrays of a policy, and no program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from headwater.core.method import AbstractPolicy
from headwater.core.spaces import Spaces
from headwater.exports.policy_function import as_text
from headwater.runs.checkpoint import flatten


def policy_arrays(
    method: AbstractPolicy, state: Any, spaces: Spaces, description: dict[str, Any]
) -> bytes:
    """The arrays that acting reads, by their path in the state, with `description` as header."""
    from safetensors.numpy import save

    def acts(state, observation):
        key = jax.random.key(0)
        return [
            method.act(state, observation, key=key, explore=explore)[0] for explore in (False, True)
        ]

    # The state also holds critics and the optimiser's moments; acting, greedily or not, says itself
    # which arrays it reads.
    observed = jax.ShapeDtypeStruct((spaces.observation_size,), jnp.float32)
    read = jax_export.export(jax.jit(acts))(state, observed).module_kept_var_idx
    arrays = {
        name: np.asarray(array, order="C")
        for i, (name, array) in enumerate(flatten(state).items())
        if i in read
    }
    return save(arrays, metadata=as_text(description))
