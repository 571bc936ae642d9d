"""A policy as a function: what goes in, what comes out."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractArmPolicy, AbstractPolicy
from headwater.core.problems.arms import Arms
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


CONTEXT, PROBABILITY = "context", "probability"
"""Names of the input and the output of a policy over arms."""


def greedy_arms(method: AbstractArmPolicy, state: Any, problem: Arms) -> Callable:
    """The greedy policy over arms as a function of a batch of contexts.

    Raises `SpecificationError` if there is no context, or arms have other features in each round.
    """
    name = type(method).__name__
    if not problem.context_size:
        raise SpecificationError(
            f"{name} was trained on rounds without contexts, so that it is no function of "
            "anything: run.policy.predict_proba() is all that it says"
        )
    if problem.features is None and problem.feature_size:
        raise SpecificationError(
            f"{name} chooses by features that arms have in each round, which is not a function of "
            "the context alone: keep it by run.policy.save(PATH)"
        )
    features = jnp.zeros((problem.arms, 0)) if problem.features is None else problem.features

    def one(context):
        key = jax.random.key(0)
        return method.probabilities(state, context, features, key=key, explore=False)

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
