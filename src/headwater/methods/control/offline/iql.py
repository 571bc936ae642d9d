"""Implicit Q-learning."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import (
    choice,
    choice_or_positive,
    flag,
    non_negative,
    positive,
    probability,
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
from headwater.networks.control.critics import StateValue, critics, raised
from headwater.networks.mlp import Ensemble
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup, ensemble_error
from headwater.ops.control.gradient_steps import begin, cosine_decay, descend, polyak
from headwater.ops.control.regression import expectile_error, exponential_weight
from headwater.parts.logged_values import InitialLevel, RewardScale, begin_values


class IQLNetworks(eqx.Module):
    """What is trained."""

    actor: CategoricalActor | TanhGaussianActor | GaussianActor
    critics: Ensemble
    value: StateValue


class IQLState(eqx.Module):
    """Networks, targets, optimiser moments and the scales taken from the data."""

    networks: IQLNetworks
    target_critics: Ensemble
    optimiser: optax.OptState
    normaliser: Normaliser
    step: Int[Array, ""]


class IQL(
    AbstractMethod[Spaces, Transitions, IQLState],
    AbstractPolicy[IQLState],
    AbstractValue[IQLState],
    AbstractLikelihood[IQLState],
    AbstractActorCritic[IQLState],
):
    r"""Implicit Q-learning: never asks the critic about an action that was not logged.

    $L_V = E|\tau - 1(u<0)|u^2$ with $u = \min_i \bar Q_i(s,a) - V(s)$;
    $L_Q = \sum_i E(r + \gamma(1-d)V(s') - Q_i(s,a))^2 / 2$;
    $L_\pi = -E \min(e^{\beta u}, w_{max}) \log\pi(a|s)$. The three are descended together, each on
    its own parameters, with `V` and the advantage taken before the step.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `expectile`: τ; 0.5 is the mean of the logged actions' values, towards 1 their maximum.
    - `beta`: β; 0 is behavioural cloning, larger is greedier.
    - `max_weight`: bound on a row's weight in the policy loss.
    - `learning_rate`: of Adam, for all networks; the actor's falls to 0 along a cosine.
    - `actor_decay_updates`: length of that cosine; infinite for a constant rate. `None`: as long as
      the run, where `train` or a sweep knows it; elsewhere the rate is constant.
    - `polyak_rate`: Polyak rate of the target critics.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `reward_scale`: what rewards are multiplied by: one over their standard deviation in the log,
      1000 over the range of logged returns (`return_range`), or a number.
    - `initial_level`: whether values start at the level of the log or at 0.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Kostrikov, Nair, Levine (2021), arXiv:2110.06169.

    **Differences from the paper:** rewards are divided by their standard deviation (1000 over the
    range of returns in the paper, on locomotion) and values start at the level of the log, so that
    short episodes and rewards far from 0 are learned from (see `parts/logged_values.py`);
    observations are standardised, as in CORL; discrete actions are served by a softmax policy and
    one critic output per action.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "kostrikov2022iql",
        summary="expectile value regression and advantage-weighted cloning, in-sample",
        parents=("AWAC",),
    )

    discount: float = share(0.99)
    expectile: float = probability(0.7)
    beta: float = non_negative(3.0)
    max_weight: float = positive(100.0, infinite=True)
    learning_rate: float = non_negative(3e-4)
    actor_decay_updates: float | None = positive(None, infinite=True)
    polyak_rate: float = share(0.005)
    normalise_observations: bool = flag(True)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> IQLState:
        actor_key, critic_key, value_key = jax.random.split(key, 3)
        normaliser, level = begin_values(self, problem)
        networks = IQLNetworks(
            stochastic_actor(problem, self.hidden_sizes, key=actor_key, spread="shared"),
            raised(critics(problem, self.hidden_sizes, 2, key=critic_key), level),
            raised(StateValue(problem, self.hidden_sizes, key=value_key), level),
        )
        return IQLState(
            networks=networks,
            target_critics=networks.critics,
            optimiser=begin(optax.adam(self.learning_rate), networks),
            normaliser=normaliser,
            step=jnp.zeros((), jnp.int32),
        )

    def update(self, state: IQLState, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        before = state.networks
        target_value = jnp.min(state.target_critics(data.observation, data.action), axis=0)
        advantage = target_value - before.value(data.observation)
        target = backup(
            data.reward,
            self.discount,
            data.terminal,
            before.value(data.next_observation),
        )
        weight = exponential_weight(advantage, self.beta, self.max_weight)
        decay = jnp.inf if self.actor_decay_updates is None else self.actor_decay_updates
        pace = cosine_decay(state.step, decay)

        def loss(networks: IQLNetworks):
            difference = target_value - networks.value(data.observation)
            value_loss = jnp.mean(expectile_error(difference, self.expectile))
            prediction = networks.critics(data.observation, data.action)
            critic_loss = 0.5 * ensemble_error(prediction, target)
            log_density = networks.actor(data.observation).log_density(data.action)
            actor_loss = -jnp.mean(weight * log_density)
            return value_loss + critic_loss + actor_loss, {
                "value_loss": value_loss,
                "critic_loss": critic_loss,
                "actor_loss": actor_loss,
                "q": jnp.mean(prediction),
            }

        gradients, metrics = jax.grad(loss, has_aux=True)(before)
        networks, optimiser = descend(
            optax.adam(self.learning_rate), gradients, state.optimiser, before
        )
        # The cosine scales the actor's step, not its gradient: Adam would undo the latter.
        actor = polyak(before.actor, networks.actor, pace)
        networks = eqx.tree_at(lambda n: n.actor, networks, actor)
        state = IQLState(
            networks=networks,
            target_critics=polyak(state.target_critics, networks.critics, self.polyak_rate),
            optimiser=optimiser,
            normaliser=state.normaliser,
            step=state.step + 1,
        )
        return state, {**metrics, "advantage": jnp.mean(advantage)}

    def act(self, state: IQLState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        actor = state.networks.actor
        return choose(actor, state.normaliser(observation), key=key, explore=explore), ()

    def value(self, state: IQLState, observation: Array, action: Array) -> Array:
        q = state.networks.critics(state.normaliser(observation), action)
        return state.normaliser.in_units_of_reward(jnp.min(q, axis=0))

    def log_probability(self, state: IQLState, observation: Array, action: Array) -> Array:
        return state.networks.actor(state.normaliser(observation)).log_density(action)

    def parts(self, state: IQLState) -> ActorCriticParts:
        # Its critics rate the best logged actions, and not those of its actor.
        return ActorCriticParts(state.networks.actor, state.normaliser.unscaled())
