"""Behavioural cloning."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, non_negative, sizes
from headwater.core.method import (
    AbstractActorCritic,
    AbstractLikelihood,
    AbstractLoss,
    AbstractMethod,
    AbstractPolicy,
    ActorCriticParts,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import (
    CategoricalActor,
    DeterministicActor,
    GaussianActor,
    TanhGaussianActor,
    choose,
    choose_near,
    stochastic_actor,
)
from headwater.networks.distributions import Normal
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin, descend


class BCState(eqx.Module):
    """The policy, optimiser moments and the scale of observations taken from the data."""

    actor: CategoricalActor | DeterministicActor | TanhGaussianActor | GaussianActor
    optimiser: optax.OptState
    normaliser: Normaliser
    step: Int[Array, ""]


class BC(
    AbstractMethod[Spaces, Transitions, BCState],
    AbstractPolicy[BCState],
    AbstractLikelihood[BCState],
    AbstractActorCritic[BCState],
    AbstractLoss[BCState, Transitions],
):
    r"""Behavioural cloning: predicts the logged action from the observation, nothing else.

    Continuous actions: $L_\pi = E\,\mathrm{mean}_j (\pi_j(s) - a_j)^2$ for a deterministic policy,
    or $L_\pi = -E \log\pi(a|s)$ for a squashed normal. Discrete actions: the same likelihood of a
    softmax, that is cross-entropy. Rewards and next observations are never read. Top-x% cloning is
    this method on the best episodes of a dataset.

    **Arguments:**

    - `learning_rate`: of Adam.
    - `exploration_noise`: deviation of the normal noise that a deterministic policy explores with;
      its log-probability is that of this normal. Unused by the others.
    - `stochastic`: for continuous actions, fit a squashed normal by maximum likelihood instead of
      one action by squared error.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `hidden_sizes`: hidden layers.

    **Reference:** Pomerleau (1988), ALVINN; defaults of CORL's BC.

    **Differences from the paper:** a general policy on vectors, with today's optimiser.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "pomerleau1988alvinn",
        summary="supervised learning of the logged actions",
        rewards=False,
    )

    learning_rate: float = non_negative(3e-4)
    exploration_noise: float = non_negative(0.1)
    stochastic: bool = flag(False)
    normalise_observations: bool = flag(True)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> BCState:
        if problem.discrete or self.stochastic:
            # A narrower spread would let one repeated action have all of the likelihood.
            actor = stochastic_actor(problem, self.hidden_sizes, key=key, log_std_range=(-5.0, 2.0))
        else:
            actor = DeterministicActor(problem, self.hidden_sizes, key=key)
        return BCState(
            actor=actor,
            optimiser=begin(optax.adam(self.learning_rate), actor),
            normaliser=Normaliser(problem, self.normalise_observations),
            step=jnp.zeros((), jnp.int32),
        )

    def update(self, state: BCState, data: Transitions, *, key: PRNGKeyArray):
        observation = state.normaliser(data.observation)

        def loss(actor) -> Float[Array, ""]:
            return jnp.mean(_losses(actor, observation, data.action))

        actor_loss, gradients = jax.value_and_grad(loss)(state.actor)
        actor, optimiser = descend(
            optax.adam(self.learning_rate), gradients, state.optimiser, state.actor
        )
        state = BCState(actor, optimiser, state.normaliser, state.step + 1)
        return state, {"actor_loss": actor_loss}

    def act(self, state: BCState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        actor, observation = state.actor, state.normaliser(observation)
        if isinstance(actor, DeterministicActor):
            noise = self.exploration_noise
            return choose_near(actor, observation, key=key, explore=explore, noise=noise), ()
        return choose(actor, observation, key=key, explore=explore), ()

    def log_probability(self, state: BCState, observation: Array, action: Array) -> Array:
        actor, observation = state.actor, state.normaliser(observation)
        if isinstance(actor, DeterministicActor):
            mean = actor(observation)
            log_std = jnp.broadcast_to(jnp.log(self.exploration_noise), mean.shape)
            return Normal(mean, log_std).log_density(action)
        return actor(observation).log_density(action)

    def losses(self, state: BCState, data: Transitions) -> Float[Array, "*batch"]:
        return _losses(state.actor, state.normaliser(data.observation), data.action)

    def possible_targets(self, state: BCState, data: Transitions, *, key: PRNGKeyArray):
        actor, observation = state.actor, state.normaliser(data.observation)
        if isinstance(actor, DeterministicActor):
            # The normal distribution whose log-likelihood is minus the squared error.
            mean = actor(observation)
            deviation = (mean.shape[-1] / 2.0) ** 0.5
            action = (mean + deviation * jax.random.normal(key, mean.shape))[None]
            probability = jnp.ones(action.shape[:-1])
        else:
            action, _, probability = actor(observation).expectation(key)
        rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(action), *x.shape)), data)
        return eqx.tree_at(lambda rows: rows.action, rows, action), probability

    def parts(self, state: BCState) -> ActorCriticParts:
        return ActorCriticParts(state.actor, state.normaliser)


def _losses(actor, observation: Array, action: Array) -> Float[Array, "*batch"]:
    if isinstance(actor, DeterministicActor):
        return jnp.mean((actor(observation) - action) ** 2, axis=-1)
    return -actor(observation).log_density(action)
