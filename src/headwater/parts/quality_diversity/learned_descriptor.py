"""Descriptors learned from frames: what an autoencoder keeps of a picture of what was done."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.problems.measured_space import MeasuredSpace
from headwater.networks.mlp import MLP
from headwater.ops.control import gradient_steps
from headwater.parts.quality_diversity.archive import Archive
from headwater.parts.quality_diversity.novelty import AbstractNoveltySettings, Joined, novelty


class AbstractDescriptorSettings(eqx.Module):
    """Settings of the autoencoder that methods share.

    **Arguments:** `hidden_sizes`: of its encoder, and of its decoder the other way round;
    `feature_size`: numbers that it keeps of a frame; `trained`: whether it is, or stays as it
    began; `training_evaluations`: after so many it is trained, then after twice as many more, and
    so on; `num_steps`: of Adam each time, of `batch_size` frames; `learning_rate`.
    """

    hidden_sizes: eqx.AbstractVar[tuple[int, ...]]
    feature_size: eqx.AbstractVar[int]
    trained: eqx.AbstractVar[bool]
    training_evaluations: eqx.AbstractVar[int]
    num_steps: eqx.AbstractVar[int]
    batch_size: eqx.AbstractVar[int]
    learning_rate: eqx.AbstractVar[float]


class Descriptor(eqx.Module):
    """The autoencoder, and when it is trained next.

    **Arguments:** `evaluations`: so far; `trainings`: so far; `loss`: of the last one.
    """

    encoder: MLP
    decoder: MLP
    optimiser: optax.OptState
    evaluations: Int[Array, ""]
    trainings: Int[Array, ""]
    loss: Float[Array, ""]


def begin(
    settings: AbstractDescriptorSettings, problem: MeasuredSpace, *, key: PRNGKeyArray
) -> Descriptor:
    """Before any frame. Raises `SpecificationError` if there are none."""
    pixels = problem.require_frames(type(settings).__name__)
    encoder_key, decoder_key = jax.random.split(key)
    sizes, features = settings.hidden_sizes, settings.feature_size
    encoder = MLP(pixels, features, sizes, key=encoder_key, activation="silu")
    decoder = MLP(features, pixels, sizes[::-1], key=decoder_key, activation="silu")
    optimiser = gradient_steps.begin(optax.adam(settings.learning_rate), (encoder, decoder))
    none = jnp.zeros((), jnp.int32)
    return Descriptor(encoder, decoder, optimiser, none, none, jnp.zeros(()))


def surprise(state: Descriptor, frame: Float[Array, "row pixel"]) -> Float[Array, " row"]:
    """The mean squared error with which each frame is reconstructed."""
    return jnp.mean((state.decoder(state.encoder(frame)) - frame) ** 2, axis=-1)


def after(
    settings: AbstractDescriptorSettings,
    state: Descriptor,
    frame: Float[Array, "row pixel"],
    usable: Bool[Array, " row"],
    evaluations: int,
    *,
    key: PRNGKeyArray,
) -> Descriptor:
    """After so many more evaluations: trained on the usable frames, if it is time.

    The gaps between trainings grow by `training_evaluations` each time. Where nothing is usable, a
    training changes nothing.
    """
    state = eqx.tree_at(lambda s: s.evaluations, state, state.evaluations + evaluations)
    if not settings.trained:
        return state
    # Decided by what is the same for all seeds: if those that are mapped differed in it, all
    # would be trained at every update.
    number = state.trainings + 1
    due = state.evaluations >= settings.training_evaluations * number * (number + 1) // 2

    def train(state: Descriptor) -> Descriptor:
        return _trained(settings, state, frame, usable, key=key)

    return jax.lax.cond(due, train, lambda state: state, state)


def _trained(settings, state: Descriptor, frame, usable, *, key) -> Descriptor:
    optimiser = optax.adam(settings.learning_rate)
    chances = jnp.where(usable, 0.0, -jnp.inf)

    def step(carry, key):
        networks, moments = carry
        rows = jax.random.categorical(key, chances, shape=(settings.batch_size,))

        def loss(networks):
            encoder, decoder = networks
            return jnp.mean((decoder(encoder(frame[rows])) - frame[rows]) ** 2)

        value, gradients = jax.value_and_grad(loss)(networks)
        return gradient_steps.descend(optimiser, gradients, moments, networks), value

    start = (state.encoder, state.decoder), state.optimiser
    keys = jax.random.split(key, settings.num_steps)
    ((encoder, decoder), moments), losses = jax.lax.scan(step, start, keys)
    (encoder, decoder), moments = jax.tree.map(
        lambda new, old: jnp.where(jnp.any(usable), new, old),
        ((encoder, decoder), moments),
        start,
    )
    number = state.trainings + 1
    return Descriptor(encoder, decoder, moments, state.evaluations, number, losses[-1])


def novelty_or_surprise(
    settings: AbstractNoveltySettings,
    state: Descriptor,
    both: Joined,
    known: Archive,
    *,
    key: PRNGKeyArray,
) -> Float[Array, " row"]:
    """Of each row, whichever of the two a fair coin decides on.

    **Arguments:** `settings`: of the search for novelty; `known`: holds frames.
    """
    novel = novelty(
        state.encoder(both.rows.frame),
        both.usable,
        state.encoder(known.measures),
        known.filled,
        settings.num_neighbours,
    )
    return jnp.where(jax.random.bernoulli(key), novel, surprise(state, both.rows.frame))
