"""A policy as a program that JAX serialises (StableHLO)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractPolicy
from headwater.core.spaces import Spaces
from headwater.exports.policy_function import greedy, interface

_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def stablehlo_program(method: AbstractPolicy, state: Any, spaces: Spaces) -> bytes:
    """The greedy policy for batches of any size, serialised.

    Raises `SpecificationError` if the package that JAX serialises with is missing.
    """
    try:
        import flatbuffers  # noqa: F401  (JAX loads it when it serialises)
    except ImportError:
        raise SpecificationError(
            "writing StableHLO needs the package flatbuffers: pip install 'headwater[stablehlo]'"
        ) from None
    (batch,) = jax_export.symbolic_shape("batch")
    observed = jax.ShapeDtypeStruct((batch, spaces.observation_size), jnp.float32)
    function = jax.jit(greedy(method, state, spaces))
    program = jax_export.export(function, platforms=_PLATFORMS)(observed)
    return bytes(program.serialize())


def stablehlo_description(spaces: Spaces, name: str) -> dict[str, Any]:
    """What goes in and out of the program in the file called `name`, and how to load it."""
    return {
        **interface(spaces),
        "platforms": list(_PLATFORMS),
        "made_with": {"jax": jax.__version__},
        "load": [
            "from jax import export  # needs the package flatbuffers",
            f"with open({name!r}, 'rb') as file:",
            "    policy = export.deserialize(bytearray(file.read()))",
            "action = policy.call(observation)",
        ],
    }
