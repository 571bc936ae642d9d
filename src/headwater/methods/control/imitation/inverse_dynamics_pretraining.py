"""What to keep of observations, learned from demonstrations of many tasks."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, sizes
from headwater.core.method import AbstractEncoding, AbstractMethod, Info
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.encoders import Encoder, Encoding
from headwater.networks.distributions import Categorical
from headwater.networks.mlp import MLP
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin, descend

_SMALLEST_NORM = 1e-6


class Heads(eqx.Module):
    """What is learned beside the encoder and thrown away afterwards.

    **Arguments:** `first`: predicts, from features and perhaps an action; `second`: of what it is
    compared with, for the contrastive task alone.
    """

    first: MLP
    second: MLP | None


class PretrainingState(eqx.Module):
    """The encoder with what is learned beside it, optimiser moments, the scale of observations."""

    encoder: Encoder
    heads: Heads
    optimiser: optax.OptState
    normaliser: Normaliser


class InverseDynamicsPretraining(
    AbstractMethod[Spaces, Transitions, PretrainingState],
    AbstractEncoding[PretrainingState],
):
    r"""Learns features of observations by telling which action lies between two of them.

    $L = E\,\mathrm{mean}_j (f(\phi(s), \phi(s'))_j - a_j)^2$, or the cross-entropy of a softmax for
    discrete actions, over demonstrations of many tasks whose goals are not observed. What is not
    needed to tell actions is not kept, and the goal does not confuse what is predicted. `EncodedBC`
    then learns a new task from a few demonstrations on the frozen features.

    **Arguments:**

    - `pretext`: the task that features are learned on: `inverse`; and for comparison `cloning` (the
      action from $\phi(s)$ alone), `forward` ($s'$ from $\phi(s)$ and the action) or `contrastive`
      (which of a batch's $\phi(s')$ follows $\phi(s)$ and the action).
    - `embedding_size`: components of $\phi$.
    - `learning_rate`: of AdamW.
    - `weight_decay`: of AdamW.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `hidden_sizes`: hidden layers of the encoder and of each head.

    **Reference:** Brandfonbrener, Nachum, Bruna (2023), arXiv:2305.16985.

    **Differences from the paper:** perceptrons on vectors instead of convolutions on images, so no
    crops; actions enter as they are instead of through an embedding; no dropout, and a learning
    rate that stays. A terminal row, after which nothing was observed, is only cloned.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "brandfonbrener2023inverse",
        summary="features of observations that tell which action lies between two of them",
        parents=("InverseDynamics",),
        rewards=False,
    )

    pretext: Literal["inverse", "cloning", "forward", "contrastive"] = choice("inverse")
    embedding_size: int = integer(64)
    learning_rate: float = non_negative(1e-3)
    weight_decay: float = non_negative(1e-4)
    normalise_observations: bool = flag(True)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> PretrainingState:
        encoder_key, first_key, second_key = jax.random.split(key, 3)
        seen, acted, kept = problem.observation_size, problem.action_size, self.embedding_size
        encoder = Encoder(seen, kept, self.hidden_sizes, key=encoder_key)
        inputs, outputs = {
            "inverse": (2 * kept, acted),
            "cloning": (kept, acted),
            "forward": (kept + acted, seen),
            "contrastive": (kept + acted, kept),
        }[self.pretext]
        heads = Heads(MLP(inputs, outputs, self.hidden_sizes, key=first_key), None)
        if self.pretext == "contrastive":
            heads = Heads(heads.first, MLP(kept, kept, self.hidden_sizes, key=second_key))
        return PretrainingState(
            encoder=encoder,
            heads=heads,
            optimiser=begin(self._optimiser, (encoder, heads)),
            normaliser=Normaliser(problem, self.normalise_observations),
        )

    def update(self, state: PretrainingState, data: Transitions, *, key: PRNGKeyArray):
        over = jnp.broadcast_to(data.terminal[..., None], data.observation.shape)
        # Nothing follows a terminal row, and what stands there may be no number.
        following = jnp.where(over, data.observation, data.next_observation)
        before, after = state.normaliser(data.observation), state.normaliser(following)
        follows = jnp.ones(data.terminal.shape)
        if self.pretext != "cloning":
            follows = 1.0 - data.terminal.astype(jnp.float32)

        def loss(learned: tuple[Encoder, Heads]) -> Float[Array, ""]:
            encoder, heads = learned
            found = self._losses(encoder, heads, before, after, data.action, follows)
            return jnp.sum(found * follows) / jnp.maximum(jnp.sum(follows), 1.0)

        value, gradients = jax.value_and_grad(loss)((state.encoder, state.heads))
        (encoder, heads), optimiser = descend(
            self._optimiser, gradients, state.optimiser, (state.encoder, state.heads)
        )
        return PretrainingState(encoder, heads, optimiser, state.normaliser), {"loss": value}

    def encoding(self, state: PretrainingState) -> Encoding:
        return Encoding(state.encoder, state.normaliser)

    @property
    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adamw(self.learning_rate, weight_decay=self.weight_decay)  # pyright: ignore[reportArgumentType]

    def _losses(
        self, encoder: Encoder, heads: Heads, before: Array, after: Array, action: Array, follows
    ) -> Float[Array, " row"]:
        """The loss of each row."""
        now = encoder(before)
        if self.pretext == "cloning":
            return _action_loss(heads.first(now), action)
        if self.pretext == "inverse":
            both = jnp.concatenate([now, encoder(after)], axis=-1)
            return _action_loss(heads.first(both), action)
        acted = action
        if jnp.issubdtype(action.dtype, jnp.integer):
            choices = heads.first.weights[0].shape[0] - now.shape[-1]
            acted = jax.nn.one_hot(action, choices)
        predicted = heads.first(jnp.concatenate([now, acted], axis=-1))
        if self.pretext == "forward":
            return jnp.mean((predicted - after) ** 2, axis=-1)
        assert heads.second is not None
        likeness = _directions(predicted) @ _directions(heads.second(encoder(after))).T
        # What follows a terminal row is no candidate.
        candidates = jnp.broadcast_to(follows[None], likeness.shape) > 0
        chances = jax.nn.log_softmax(jnp.where(candidates, likeness, -1e9), axis=-1)
        return -jnp.diagonal(chances) * follows


def _action_loss(predicted: Array, action: Array) -> Float[Array, " row"]:
    if jnp.issubdtype(action.dtype, jnp.integer):
        return -Categorical(predicted).log_density(action)
    return jnp.mean((predicted - action) ** 2, axis=-1)


def _directions(features: Float[Array, "row feature"]) -> Float[Array, "row feature"]:
    norm = jnp.sqrt(jnp.sum(features**2, axis=-1, keepdims=True) + _SMALLEST_NORM)
    return features / norm
