"""Behavioural cloning on features that were learned before."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, sizes
from headwater.core.method import (
    AbstractEncoding,
    AbstractMethod,
    AbstractPolicy,
    AbstractWarmStart,
    Agent,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Spaces
from headwater.networks.control.actors import (
    CategoricalActor,
    DeterministicActor,
    choose,
    choose_near,
)
from headwater.networks.control.encoders import Encoder, Encoding
from headwater.networks.control.flows import FlowEncoder
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin, descend


class EncodedBCState(eqx.Module):
    """The features and the policy on them, and optimiser moments."""

    encoding: Encoding
    actor: CategoricalActor | DeterministicActor
    optimiser: optax.OptState


class EncodedBC(
    AbstractMethod[Spaces, Transitions, EncodedBCState],
    AbstractPolicy[EncodedBCState],
    AbstractWarmStart[Spaces, EncodedBCState],
):
    r"""Clones actions from features $\phi(s)$ that another method learned, which stay as they are.

    $L = E\,\mathrm{mean}_j (\pi_j(\phi(s)) - a_j)^2$, or the cross-entropy of a softmax for
    discrete actions: with features that tell what matters, a few demonstrations are enough.
    `imitation_stages` chains both methods. Without one before it, features are random.

    **Arguments:**

    - `train_encoder`: learn the features too, from where they begin.
    - `embedding_size`: components of $\phi$ where none was learned before.
    - `learning_rate`: of AdamW.
    - `weight_decay`: of AdamW.
    - `exploration_noise`: deviation of the normal noise of exploring with continuous actions.
    - `normalise_observations`: where no features were learned before: standardise with the data's
      mean and deviation.
    - `hidden_sizes`: hidden layers of the policy, and of features that were not learned before.

    **Reference:** Brandfonbrener, Nachum, Bruna (2023), arXiv:2305.16985.

    **Differences from the paper:** no dropout, and a learning rate that stays; the action is
    squashed into the box.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "brandfonbrener2023inverse",
        summary="behavioural cloning on features that another method learned",
        parents=("BC", "InverseDynamicsPretraining"),
        rewards=False,
    )

    train_encoder: bool = flag(False)
    embedding_size: int = integer(64)
    learning_rate: float = non_negative(1e-3)
    weight_decay: float = non_negative(1e-4)
    exploration_noise: float = non_negative(0.1)
    normalise_observations: bool = flag(True)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> EncodedBCState:
        encoder_key, key = jax.random.split(key)
        encoder = Encoder(
            problem.observation_size, self.embedding_size, self.hidden_sizes, key=encoder_key
        )
        encoding = Encoding(encoder, Normaliser(problem, self.normalise_observations))
        return self._begin(encoding, problem, key)

    def warm_start(
        self, learned: Agent, problem: Spaces, *, key: PRNGKeyArray
    ) -> EncodedBCState | None:
        if not isinstance(learned.method, AbstractEncoding):
            return None
        return self._begin(learned.method.encoding(learned.state), problem, key)

    def update(self, state: EncodedBCState, data: Transitions, *, key: PRNGKeyArray):
        observation = state.encoding.normaliser(data.observation)

        def loss(learned) -> Float[Array, ""]:
            encoder, actor = learned if self.train_encoder else (state.encoding.encoder, learned)
            features = encoder(observation)
            if isinstance(actor, CategoricalActor):
                return -jnp.mean(actor(features).log_density(data.action))
            return jnp.mean((actor(features) - data.action) ** 2)

        learned = self._learned(state.encoding.encoder, state.actor)
        value, gradients = jax.value_and_grad(loss)(learned)
        learned, optimiser = descend(self._optimiser, gradients, state.optimiser, learned)
        encoding, actor = state.encoding, learned
        if self.train_encoder:
            encoder, actor = learned
            encoding = Encoding(encoder, encoding.normaliser)
        return EncodedBCState(encoding, actor, optimiser), {"actor_loss": value}

    def act(self, state: EncodedBCState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        features = state.encoding(observation)
        if isinstance(state.actor, CategoricalActor):
            return choose(state.actor, features, key=key, explore=explore), ()
        noise = self.exploration_noise
        return choose_near(state.actor, features, key=key, explore=explore, noise=noise), ()

    @property
    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adamw(self.learning_rate, weight_decay=self.weight_decay)  # pyright: ignore[reportArgumentType]

    def _begin(self, encoding: Encoding, problem: Spaces, key: PRNGKeyArray) -> EncodedBCState:
        size = encoding.encoder.network.biases[-1].shape[-1]
        seen = dataclasses.replace(problem, observation=Box((-1.0,) * size, (1.0,) * size))
        kind = CategoricalActor if problem.discrete else DeterministicActor
        actor = kind(seen, self.hidden_sizes, key=key)
        learned = self._learned(encoding.encoder, actor)
        return EncodedBCState(encoding, actor, begin(self._optimiser, learned))

    def _learned(self, encoder: Encoder | FlowEncoder, actor):
        """What gradient steps change."""
        return (encoder, actor) if self.train_encoder else actor
