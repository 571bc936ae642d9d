"""OPPO: a policy of what segments have in common that a judge prefers, without a reward."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, positive, sizes
from headwater.core.method import AbstractMethod, AbstractPolicy, Info
from headwater.core.records import ComparisonsAndSegments, Segments
from headwater.core.spaces import Box, Spaces
from headwater.networks.control.actors import (
    CategoricalActor,
    DeterministicActor,
    choose,
    choose_near,
)
from headwater.networks.normaliser import Normaliser
from headwater.networks.segment_encoder import SegmentEncoder
from headwater.ops.control.gradient_steps import begin, descend

_SMALLEST = 1e-12
"""Added under roots, so that a distance of zero has a derivative."""


class OPPONetworks(eqx.Module):
    """From a segment to its context, and from observation and context to an action."""

    encoder: SegmentEncoder
    actor: DeterministicActor | CategoricalActor


class OPPOState(eqx.Module):
    """The networks, the optimal context, moments of both and the scale of observations."""

    networks: OPPONetworks
    context: Float[Array, " context"]
    optimiser: optax.OptState
    context_optimiser: optax.OptState
    normaliser: Normaliser


class OPPO(
    AbstractMethod[Spaces, ComparisonsAndSegments, OPPOState],
    AbstractPolicy[OPPOState],
):
    r"""Learns contexts of segments, the policy that each implies, and the context to be preferred.

    $z = \phi(\tau)$, $L = L_{clone} + \alpha L_{triplet}(\bar w) + \beta E(\lVert z \rVert - 1)^2$,
    where $L_{clone}$ is the squared error of $\pi(s, z)$ (for discrete actions minus the
    log-likelihood) on the segment's own actions and
    $L_{triplet}(w) = E\,[\lVert w - z^+\rVert - \lVert w - z^-\rVert + m]_+$ over compared pairs.
    Then the optimal context $w$ descends $L_{triplet}$ with contexts fixed. It acts with
    $\pi(s, w)$.

    **Arguments:**

    - `preference_weight`: $\alpha$, of the triplet loss.
    - `norm_weight`: $\beta$, which holds contexts to the unit sphere.
    - `margin`: $m$, by how much nearer the preferred segments are to come.
    - `learning_rate`: of AdamW, for the networks.
    - `context_learning_rate`: of Adam, for $w$.
    - `weight_decay`: of AdamW.
    - `max_gradient_norm`: of the networks' gradient.
    - `context_size`: components of a context.
    - `width`: of the encoder's hidden states.
    - `layers`: of the encoder.
    - `exploration_noise`: deviation of the noise while exploring, of continuous actions.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `hidden_sizes`: hidden layers of the policy.

    **Reference:** Kang, Shi, Liu, He, Wang (2023), arXiv:2305.16217.

    **Differences from the paper:** the policy looks at the current observation and the context,
    where the paper's is a decision transformer over the last steps; the encoder averages over steps
    instead of summing, with sines for places and smaller layers; actions are also reconstructed in
    segments that nobody compared; pairs that are as good as each other do not enter the triplet
    loss; the learning rate is constant from the start.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "kang2023beyond",
        summary="clones segments given their context, and acts with the context to be preferred",
        parents=("BC",),
        rewards=False,
    )

    preference_weight: float = non_negative(0.1)
    norm_weight: float = non_negative(0.1)
    margin: float = non_negative(1.0)
    learning_rate: float = non_negative(1e-4)
    context_learning_rate: float = non_negative(1e-3)
    weight_decay: float = non_negative(1e-4)
    max_gradient_norm: float = positive(0.25, infinite=True)
    context_size: int = integer(8)
    width: int = integer(32)
    layers: int = integer(2)
    exploration_noise: float = non_negative(0.1)
    normalise_observations: bool = flag(True)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> OPPOState:
        encoder_key, actor_key, context_key = jax.random.split(key, 3)
        inputs = problem.observation_size + self.context_size
        seen = Box((-jnp.inf,) * inputs, (jnp.inf,) * inputs)
        kind = CategoricalActor if problem.discrete else DeterministicActor
        networks = OPPONetworks(
            SegmentEncoder(problem, self.context_size, self.width, self.layers, key=encoder_key),
            kind(dataclasses.replace(problem, observation=seen), self.hidden_sizes, key=actor_key),
        )
        context = jax.random.normal(context_key, (self.context_size,)) * self.context_size**-0.5
        return OPPOState(
            networks=networks,
            context=context,
            optimiser=begin(self._optimiser, networks),
            context_optimiser=begin(optax.adam(self.context_learning_rate), context),
            normaliser=Normaliser(problem, self.normalise_observations),
        )

    def update(self, state: OPPOState, data: ComparisonsAndSegments, *, key: PRNGKeyArray):
        pairs = data.comparisons
        segments = [
            dataclasses.replace(found, observation=state.normaliser(found.observation))
            for found in (pairs.first, pairs.second, data.logged)
        ]

        def loss(networks: OPPONetworks):
            contexts = [networks.encoder(found) for found in segments]
            cloned = [_miss(networks.actor, s, z) for s, z in zip(segments, contexts)]
            clone_loss = jnp.mean(jnp.stack(cloned))
            norm_loss = jnp.mean((_length(jnp.stack(contexts)) - 1.0) ** 2)
            triplet = self._triplet(state.context, contexts[0], contexts[1], pairs.preference)
            total = clone_loss + self.preference_weight * triplet + self.norm_weight * norm_loss
            return total, (clone_loss, triplet, norm_loss, contexts)

        gradients, found = jax.grad(loss, has_aux=True)(state.networks)
        clone_loss, triplet, norm_loss, contexts = found
        networks, optimiser = descend(self._optimiser, gradients, state.optimiser, state.networks)
        slope = jax.grad(self._triplet)(state.context, contexts[0], contexts[1], pairs.preference)
        context, context_optimiser = descend(
            optax.adam(self.context_learning_rate), slope, state.context_optimiser, state.context
        )
        state = OPPOState(networks, context, optimiser, context_optimiser, state.normaliser)
        return state, {"clone_loss": clone_loss, "triplet_loss": triplet, "norm_loss": norm_loss}

    def act(self, state: OPPOState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        actor = state.networks.actor
        inputs = jnp.concatenate([state.normaliser(observation), state.context])
        if isinstance(actor, DeterministicActor):
            noise = self.exploration_noise
            return choose_near(actor, inputs, key=key, explore=explore, noise=noise), ()
        return choose(actor, inputs, key=key, explore=explore), ()

    def distance(self, state: OPPOState, segments: Segments) -> Float[Array, "*batch"]:
        """How far the context of each segment is from the one that it acts with."""
        seen = dataclasses.replace(segments, observation=state.normaliser(segments.observation))
        found = state.networks.encoder(seen)
        return _length(found - jnp.broadcast_to(state.context, found.shape))

    @property
    def _optimiser(self) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(self.max_gradient_norm),  # pyright: ignore[reportArgumentType]
            optax.adamw(self.learning_rate, weight_decay=self.weight_decay),  # pyright: ignore[reportArgumentType]
        )

    def _triplet(self, context, first, second, preference) -> Float[Array, ""]:
        """How far preferred contexts miss being nearer by the margin, over pairs that differ."""
        near, far = (_length(x - jnp.broadcast_to(context, x.shape)) for x in (first, second))
        # 1 where the first is preferred, -1 where the second is, 0 where neither is.
        sign = 2.0 * preference - 1.0
        missed = jax.nn.relu(sign * (near - far) + self.margin)
        return jnp.sum(jnp.abs(sign) * missed) / jnp.maximum(jnp.sum(jnp.abs(sign)), 1.0)


def _miss(actor, segments: Segments, contexts: Float[Array, "*batch context"]) -> Array:
    """How far the policy misses the segments' actions, given their contexts."""
    seen = segments.observation
    contexts = jnp.broadcast_to(contexts[..., None, :], (*seen.shape[:-1], contexts.shape[-1]))
    found = actor(jnp.concatenate([seen, contexts], axis=-1))
    if isinstance(actor, DeterministicActor):
        return jnp.mean((found - segments.action) ** 2)
    return -jnp.mean(found.log_density(segments.action))


def _length(x: Float[Array, "*batch size"]) -> Float[Array, "*batch"]:
    return jnp.sqrt(jnp.sum(x**2, axis=-1) + _SMALLEST)
