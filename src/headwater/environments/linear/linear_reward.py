"""Finite processes whose rewards are linear in features, for methods that only see preferences."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem, FiniteProcess


class LinearRewardProcess(eqx.Module):
    """A process, the features in which its rewards are linear, and the weights that nobody knows.

    **Arguments:** `process`: its `reward` is `features @ weights`; `features`; `weights`.
    """

    process: FiniteProcess
    features: Float[Array, "horizon state action feature"]
    weights: Float[Array, " feature"]

    def problem(self) -> FiniteProblem:
        """What a method is told: sizes, first states and features."""
        process = self.process
        return FiniteProblem(
            process.states,
            process.actions,
            process.horizon,
            process.initial,
            features=self.features,
        )


def random_linear_rewards(
    *,
    states: int,
    actions: int,
    horizon: int,
    features: int,
    weight_norm: float = 3.0,
    key: PRNGKeyArray,
) -> LinearRewardProcess:
    """A process drawn at random; can be drawn many times at once under `jax.vmap`.

    Rows and the start come from a symmetric Dirichlet distribution of concentration one half, each
    step its own rows; the features of a state and action, the same in all steps, have norm one and
    any direction; so have the weights, with norm `weight_norm`: the larger, the surer a judge is of
    its preferences.

    Raises `SpecificationError` for sizes below one.
    """
    sizes = {"states": states, "actions": actions, "horizon": horizon, "features": features}
    for name, size in sizes.items():
        if size < 1:
            raise SpecificationError(f"{name} = {size} must be at least one")
    shapes = (
        (horizon, states, actions, states),
        (states,),
        (states, actions, features),
        (features,),
    )
    # Squares of random directions have the Dirichlet distribution of concentration one half. One
    # draw for all: every call of a random generator takes long to compile.
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    drawn = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
    rows, start, direction, weights = (
        _unit(piece.reshape(shape)) for piece, shape in zip(drawn, shapes)
    )
    transition, initial = jnp.square(rows), jnp.square(start)
    mapped = jnp.broadcast_to(direction, (horizon, *direction.shape))
    weights *= weight_norm
    process = FiniteProcess(transition, mapped @ weights, initial)
    return LinearRewardProcess(process, mapped, weights)


def deceptive_chain(
    *, states: int = 5, near: float = 0.5, far: float = 5.0, slip: float = 0.1
) -> LinearRewardProcess:
    """A chain whose end is worth going to, with something pleasant where it starts.

    Action 0 stays in the first state, or falls back there from any other; action 1 goes on by one
    state, and stays where it is with probability `slip`. Staying in the first state is worth `near`
    at every step, staying at the end with action 1 is worth `far`; the horizon is twice the number
    of states. There is one feature for each of these two, and one for the other states together,
    worth nothing: whoever has never reached the end cannot know what it is worth.

    Raises `SpecificationError` for fewer than two states.
    """
    if states < 2:
        raise SpecificationError(f"a chain needs at least two states, not {states}")
    here = jnp.arange(states)
    transition = jnp.zeros((states, 2, states)).at[:, 0, 0].set(1.0)
    transition = transition.at[here, 1, jnp.minimum(here + 1, states - 1)].add(1.0 - slip)
    transition = transition.at[here, 1, here].add(slip)
    features = jnp.zeros((states, 2, 3)).at[1:-1, :, 1].set(1.0)
    features = features.at[0, 1, 1].set(1.0).at[-1, 0, 1].set(1.0)
    features = features.at[0, 0, 0].set(1.0).at[-1, 1, 2].set(1.0)
    horizon = 2 * states
    features = jnp.broadcast_to(features, (horizon, *features.shape))
    weights = jnp.asarray([near, 0.0, far], jnp.float32)
    process = FiniteProcess(
        jnp.broadcast_to(transition, (horizon, *transition.shape)),
        features @ weights,
        jnp.zeros(states).at[0].set(1.0),
    )
    return LinearRewardProcess(process, features, weights)


def _unit(vectors: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """With norm one along the last axis."""
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
