"""Advantage-weighted actor-critic."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import (
    choice,
    choice_or_positive,
    flag,
    non_negative,
    positive,
    share,
    sizes,
)
from headwater.core.method import (
    AbstractActorCritic,
    AbstractLikelihood,
    AbstractMethod,
    AbstractPolicy,
    AbstractValue,
    ActorCriticParts,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import (
    CategoricalActor,
    GaussianActor,
    TanhGaussianActor,
    choose,
    stochastic_actor,
)
from headwater.networks.control.critics import candidate_values, critics, raised
from headwater.networks.mlp import Ensemble
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup, ensemble_error
from headwater.ops.control.gradient_steps import begin, descend, polyak
from headwater.ops.control.regression import exponential_weight
from headwater.parts.logged_values import (
    InitialLevel,
    RewardScale,
    begin_values,
    parts_in_units_of_reward,
)

Actor = CategoricalActor | TanhGaussianActor | GaussianActor


class AWACState(eqx.Module):
    """Networks, targets, optimiser moments and the scale of observations taken from the data."""

    actor: Actor
    critics: Ensemble
    target_critics: Ensemble
    actor_optimiser: optax.OptState
    critic_optimiser: optax.OptState
    normaliser: Normaliser
    step: Int[Array, ""]


class AWAC(
    AbstractMethod[Spaces, Transitions, AWACState],
    AbstractPolicy[AWACState],
    AbstractValue[AWACState],
    AbstractLikelihood[AWACState],
    AbstractActorCritic[AWACState],
):
    r"""AWAC: clones the logged actions in proportion to how much better than the policy they are.

    $y = r + \gamma(1-d) V_{\bar Q}(s')$ with $V_Q(s) = E_{a\sim\pi(s)} \min_i Q_i(s,a)$;
    $L_Q = \sum_i E(y - Q_i(s,a))^2$; then, with the new critics,
    $L_\pi = -E \min(e^{A/\lambda}, w_{max}) \log\pi(a|s)$ with
    $A = \min_i Q_i(s,a) - V_Q(s)$. The expectation over the policy is one sample for continuous
    actions and exact for discrete ones.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `advantage_temperature`: λ, in units of value; infinite is behavioural cloning, smaller is
      greedier. CORL uses 1/3 on locomotion.
    - `max_weight`: bound on a row's weight in the policy loss.
    - `learning_rate`: of Adam, for actor and critics.
    - `polyak_rate`: Polyak rate of the target critics.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `reward_scale`: what rewards are multiplied by: one over their standard deviation in the log,
      1000 over the range of logged returns (`return_range`), or a number.
    - `initial_level`: whether values start at the level of the log or at 0.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Nair, Gupta, Dalal, Levine (2020), arXiv:2006.09359.

    **Differences from the paper:** rewards are divided by their deviation and values start at the
    level of the log (`parts/logged_values.py`); weights are bounded and not divided by their sum,
    networks have three layers, the policy has no weight decay, and observations are standardised,
    as in CORL; discrete actions have a softmax policy and one critic output each.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "nair2020awac",
        summary="actor-critic whose actor clones actions weighted by their advantage",
        parents=("BC",),
    )

    discount: float = share(0.99)
    advantage_temperature: float = positive(1.0, infinite=True)
    max_weight: float = positive(100.0, infinite=True)
    learning_rate: float = non_negative(3e-4)
    polyak_rate: float = share(0.005)
    normalise_observations: bool = flag(True)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> AWACState:
        actor_key, critic_key = jax.random.split(key)
        actor = stochastic_actor(
            problem, self.hidden_sizes, key=actor_key, spread="shared", squash_mean=False
        )
        normaliser, level = begin_values(self, problem)
        twins = raised(critics(problem, self.hidden_sizes, 2, key=critic_key), level)
        optimiser = optax.adam(self.learning_rate)
        return AWACState(
            actor=actor,
            critics=twins,
            target_critics=twins,
            actor_optimiser=begin(optimiser, actor),
            critic_optimiser=begin(optimiser, twins),
            normaliser=normaliser,
            step=jnp.zeros((), jnp.int32),
        )

    def update(self, state: AWACState, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        next_key, policy_key = jax.random.split(key)
        optimiser = optax.adam(self.learning_rate)
        following, targets = data.next_observation, state.target_critics
        next_value = _policy_value(state.actor, targets, following, key=next_key)
        target = backup(data.reward, self.discount, data.terminal, next_value)

        def critic_loss(twins: Ensemble):
            prediction = twins(data.observation, data.action)
            return ensemble_error(prediction, target), jnp.mean(prediction)

        (value_loss, q), gradients = jax.value_and_grad(critic_loss, has_aux=True)(state.critics)
        twins, critic_optimiser = descend(
            optimiser, gradients, state.critic_optimiser, state.critics
        )
        logged_value = jnp.min(twins(data.observation, data.action), axis=0)
        own_value = _policy_value(state.actor, twins, data.observation, key=policy_key)
        advantage = logged_value - own_value
        weight = exponential_weight(advantage, 1.0 / self.advantage_temperature, self.max_weight)

        def actor_loss(actor: Actor) -> Float[Array, ""]:
            return -jnp.mean(weight * actor(data.observation).log_density(data.action))

        loss, gradients = jax.value_and_grad(actor_loss)(state.actor)
        actor, actor_optimiser = descend(optimiser, gradients, state.actor_optimiser, state.actor)
        state = AWACState(
            actor=actor,
            critics=twins,
            target_critics=polyak(state.target_critics, twins, self.polyak_rate),
            actor_optimiser=actor_optimiser,
            critic_optimiser=critic_optimiser,
            normaliser=state.normaliser,
            step=state.step + 1,
        )
        return state, {
            "critic_loss": value_loss,
            "actor_loss": loss,
            "q": q,
            "advantage": jnp.mean(advantage),
            "weight": jnp.mean(weight),
        }

    def act(self, state: AWACState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        return choose(state.actor, state.normaliser(observation), key=key, explore=explore), ()

    def value(self, state: AWACState, observation: Array, action: Array) -> Array:
        q = jnp.min(state.critics(state.normaliser(observation), action), axis=0)
        return state.normaliser.in_units_of_reward(q)

    def log_probability(self, state: AWACState, observation: Array, action: Array) -> Array:
        return state.actor(state.normaliser(observation)).log_density(action)

    def parts(self, state: AWACState) -> ActorCriticParts:
        twins, targets = state.critics, state.target_critics
        return parts_in_units_of_reward(state.actor, state.normaliser, twins, targets)


def _policy_value(actor: Actor, twins: Ensemble, observation: Array, *, key: PRNGKeyArray):
    actions, _, weight = actor(observation).expectation(key)
    q = jnp.min(candidate_values(twins, observation, actions), axis=0)
    return jnp.sum(weight * q, axis=0)
