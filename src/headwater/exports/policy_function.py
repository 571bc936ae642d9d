"""A policy as a function: what goes in, what comes out."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from headwater.core.method import AbstractPolicy
from headwater.core.spaces import Box, Spaces

INPUT, OUTPUT = "observation", "action"
"""Names of the input and the output."""


def greedy(method: AbstractPolicy, state: Any, spaces: Spaces) -> Callable:
    """The greedy policy as a function of a batch of observations, in the environment's units."""
    action = spaces.action

    def one(observation):
        # What is greedy depends on no key.
        chosen = method.act(state, observation, key=jax.random.key(0), explore=False)[0]
        if isinstance(action, Box):
            return action.from_canonical(chosen).astype(jnp.float32)
        return action.from_canonical(chosen.astype(jnp.int32))

    return jax.vmap(one)


def interface(spaces: Spaces) -> dict[str, Any]:
    """What goes in and out, as values that JSON can hold."""
    as_json = spaces.to_json()
    shape: list[str | int] = ["batch"]
    if spaces.discrete:
        action = {"dtype": "int32", "shape": shape, "units": "number of the action"}
    else:
        shape = [*shape, spaces.action_size]
        action = {"dtype": "float32", "shape": shape, "units": "as the environment takes them"}
    observation = {
        "dtype": "float32",
        "shape": ["batch", spaces.observation_size],
        "units": "as the environment gives them, not normalised",
    }
    return {
        "inputs": [{"name": INPUT, **observation, **as_json["observation"]}],
        "outputs": [{"name": OUTPUT, **action, **as_json["action"]}],
    }


def as_text(description: dict[str, Any]) -> dict[str, str]:
    """`description` with every value as text, for headers that hold nothing else."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        for name, value in description.items()
    }
