"""A transformer over trajectories: returns to go, observations and actions, one after the other."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from headwater.core.errors import SpecificationError
from headwater.core.tokens import AbstractTokenNetwork
from headwater.networks.control.trajectory_windows import Layout
from headwater.networks.decoders.blocks import Norm
from headwater.networks.decoders.changes import without_tokens
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.decoders.vectors import hidden_of_vectors
from headwater.networks.low_rank_adapters import Adapted
from headwater.networks.mlp import MLP

Training = Literal["adapters", "whole", "frozen"]
"""What of a language model's body is trained: low-rank adapters, everything, or nothing."""


class TrajectoryTransformer(eqx.Module):
    """From the steps of a trajectory to an output for each, which has not seen the step's action.

    A step is three vectors: of the return to go, the observation and the action, each a linear map
    and a layer norm. The body reads them in this order, and a linear head reads the output off
    where it has read the observation.

    **Arguments:** `observations`: numbers of one; `actions`: of one; `outputs`: numbers of the
    output; `body`: a decoder that reads vectors, perhaps with adapters; `trains_body`: whether what
    it says is trainable of the body is, and otherwise nothing.
    """

    of_return: MLP
    of_observation: MLP
    of_action: MLP
    norm: Norm
    body: Decoder | Adapted
    head: MLP
    trains_body: bool = eqx.field(static=True)

    def __init__(
        self,
        observations: int,
        actions: int,
        outputs: int,
        body: Decoder | Adapted,
        trains_body: bool,
        *,
        key: PRNGKeyArray,
    ):
        keys = jax.random.split(key, 4)
        width = body.width
        self.of_return, self.of_observation, self.of_action = (
            MLP(size, width, (), key=each) for size, each in zip((1, observations, actions), keys)
        )
        self.norm = Norm(jnp.ones((3, width)), jnp.zeros((3, width)), 1e-5)
        self.body = body
        self.head = MLP(width, outputs, (), key=keys[3])
        self.trains_body = trains_body

    def __call__(
        self,
        returns: Float[Array, "row step"],
        observations: Float[Array, "row step observation"],
        actions: Float[Array, "row step action"],
        present: Bool[Array, "row step"],
    ) -> Float[Array, "row step output"]:
        """Outputs for the steps that are present, which are the last of each row; anything else
        where they are not."""
        rows, steps = present.shape
        # To the front, so that none of them sees one that there is not.
        absent = steps - jnp.sum(present, axis=-1, dtype=jnp.int32)[:, None]
        place = jnp.broadcast_to(jnp.arange(steps), (rows, steps)) + absent
        to_front = jnp.minimum(place, steps - 1)
        moved = lambda x: jnp.take_along_axis(x, to_front[..., None], axis=1)
        parts = (
            self.of_return(moved(returns[..., None])),
            self.of_observation(moved(observations)),
            self.of_action(moved(actions)),
        )
        vectors = self.norm(jnp.stack(parts, axis=2)).reshape(rows, 3 * steps, -1)
        decoder = self.body.decoder if isinstance(self.body, Adapted) else self.body
        # The last action is not known, and nothing would look at it.
        hidden = hidden_of_vectors(decoder, vectors[:, :-1])
        found = self.head(hidden[:, 1::3])
        back = jnp.maximum(place - 2 * absent, 0)
        return jnp.take_along_axis(found, back[..., None], axis=1)

    def trainable(self) -> PyTree[bool]:
        """Which leaves learning may change: a tree like the network, of booleans."""
        everything = jax.tree.map(eqx.is_inexact_array, self)
        body = self.body.trainable()
        if not self.trains_body:
            body = jax.tree.map(lambda _: False, body)
        return eqx.tree_at(lambda network: network.body, everything, body)


def with_body_of(
    model: AbstractTokenNetwork,
    layout: Layout,
    outputs: int,
    training: Training,
    adapter_rank: int,
    *,
    key: PRNGKeyArray,
) -> TrajectoryTransformer:
    """A transformer over the windows of `layout` with the body of a language model.

    Raises `SpecificationError` unless that is a decoder, perhaps with adapters, which then become
    part of it, or if windows are longer than its context.
    """
    decoder = model.merged() if isinstance(model, Adapted) else model
    if not isinstance(decoder, Decoder):
        raise SpecificationError(
            f"trajectories are read with the layers of a decoder, which {type(model).__name__} has "
            "not"
        )
    places = 3 * layout.frames.length - 1
    if places > decoder.context:
        raise SpecificationError(
            f"{layout.frames.length} steps are {places} positions, and the model has "
            f"{decoder.context}: take fewer steps, or a model with more"
        )
    adapter_key, key = jax.random.split(key)
    body = without_tokens(decoder)
    if training == "adapters":
        body = Adapted(body, rank=adapter_rank, alpha=2.0 * adapter_rank, key=adapter_key)
    trains = training != "frozen"
    sizes = layout.observations, layout.actions, outputs
    return TrajectoryTransformer(*sizes, body, trains, key=key)


def error_of_actions(
    found: Float[Array, "row step output"],
    actions: Float[Array, "row step action"],
    present: Bool[Array, "row step"],
    discrete: bool,
) -> Float[Array, ""]:
    """The mean over steps that are present of how far outputs are from the actions there.

    That is cross-entropy for one of a finite set, and the squared error of a squashed output else.
    """
    if discrete:
        missed = -jnp.sum(jax.nn.log_softmax(found) * actions, axis=-1)
    else:
        missed = jnp.mean((jnp.tanh(found) - actions) ** 2, axis=-1)
    return jnp.sum(jnp.where(present, missed, 0.0)) / jnp.sum(present)
