"""Reward-constrained policy optimisation from a log."""

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
    AbstractSeveralRewards,
    ActorCriticParts,
    Info,
)
from headwater.core.records import AuxiliaryTransitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import choose
from headwater.ops.control.gradient_steps import begin, descend
from headwater.ops.control.regression import exponential_weight
from headwater.parts.logged_values import InitialLevel, RewardScale
from headwater.parts.several_rewards.critics import (
    Actor,
    SeveralCritics,
    advantages,
    begin_actor,
    begin_several_critics,
    fit_critics,
)


class OfflineRCPOState(eqx.Module):
    """The policy, critics of the priced reward and of each auxiliary one, and the prices."""

    actor: Actor
    optimiser: optax.OptState
    critics: SeveralCritics
    prices: Float[Array, " auxiliary"]
    step: Int[Array, ""]


class OfflineRCPO(
    AbstractMethod[Spaces, AuxiliaryTransitions, OfflineRCPOState],
    AbstractPolicy[OfflineRCPOState],
    AbstractLikelihood[OfflineRCPOState],
    AbstractActorCritic[OfflineRCPOState],
    AbstractSeveralRewards,
):
    r"""RCPO from a log: one critic of the main reward and the others at prices that move slowly.

    AWAC on $\tilde r = r + \sum_i \lambda_i r_i$, whose prices rise while the policy earns less of
    an auxiliary reward than the log does: $\lambda_i \leftarrow \max\{0, \lambda_i + \text{price
    rate} \cdot E_{(s,a)}[Q_i(s,a) - V_i(s)]\}$ over logged rows, with critics $Q_i$ of the policy
    itself. That expectation is how much more a step of the log brings, by the difference of
    performances (Kakade and Langford, 2002).

    **Arguments:**

    - `auxiliary_rewards`: names of the columns of the log that hold the other rewards.
    - `discount`: weight of the next step's value.
    - `advantage_temperature`: of the weights of logged actions, in units of value.
    - `max_weight`: bound on a row's weight in the policy loss.
    - `learning_rate`: of Adam, for actor and critics.
    - `multiplier_learning_rate`: of the prices, which count rewards in their deviations.
    - `polyak_rate`: Polyak rate of the target critics.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `reward_scale`: what the main reward is multiplied by: one over its standard deviation in the
      log, 1000 over the range of logged returns (`return_range`), or a number. The others are
      always divided by their deviation in what has been drawn so far.
    - `initial_level`: whether values of the main reward start at the level of the log or at 0;
      others start at 0.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Tessler, Mankowitz, Mannor (2019), arXiv:1805.11074.

    **Differences from the paper:** learns from a log, with AWAC's policy step; constraints are that
    no reward falls below the log's, and are judged by critics instead of fresh episodes.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "tessler2019reward",
        summary="one critic of all rewards, at prices that rise where one falls below the log's",
        parents=("RCPO", "AWAC"),
    )

    auxiliary_rewards: tuple[str, ...] = eqx.field(static=True, default=("like", "share"))
    discount: float = share(0.99)
    advantage_temperature: float = positive(1.0, infinite=True)
    max_weight: float = positive(100.0, infinite=True)
    learning_rate: float = non_negative(3e-4)
    multiplier_learning_rate: float = non_negative(0.01)
    polyak_rate: float = share(0.005)
    normalise_observations: bool = flag(True)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> OfflineRCPOState:
        critic_key, actor_key = jax.random.split(key)
        actor = begin_actor(problem, self.hidden_sizes, key=actor_key)
        return OfflineRCPOState(
            actor=actor,
            optimiser=begin(optax.adam(self.learning_rate), actor),
            critics=begin_several_critics(self, problem, key=critic_key),
            prices=jnp.zeros(len(self.auxiliary_rewards)),
            step=jnp.zeros((), jnp.int32),
        )

    def update(self, state: OfflineRCPOState, data: AuxiliaryTransitions, *, key: PRNGKeyArray):
        rewards = 1 + len(self.auxiliary_rewards)

        def policies(observation):
            one = state.actor(observation)
            return jax.tree.map(lambda x: jnp.broadcast_to(x[None], (rewards, *x.shape)), one)

        critics, data, metrics = fit_critics(
            self, state.critics, data, policies, key=key, prices=state.prices
        )
        observation, action = data.observation, data.action
        advantage = advantages(critics.networks, policies, observation, action, key=key)
        weight = exponential_weight(advantage[0], 1.0 / self.advantage_temperature, self.max_weight)

        def loss(actor: Actor) -> Float[Array, ""]:
            return -jnp.mean(weight * actor(observation).log_density(action))

        actor_loss, gradients = jax.value_and_grad(loss)(state.actor)
        actor, optimiser = descend(
            optax.adam(self.learning_rate), gradients, state.optimiser, state.actor
        )
        missing = jnp.mean(advantage[1:], axis=1)
        prices = jnp.maximum(state.prices + self.multiplier_learning_rate * missing, 0.0)
        state = OfflineRCPOState(actor, optimiser, critics, prices, state.step + 1)
        return state, {
            **metrics,
            "actor_loss": actor_loss,
            "price": jnp.mean(prices),
            "missing": jnp.max(missing),
            "weight": jnp.mean(weight),
        }

    def act(self, state: OfflineRCPOState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        observation = state.critics.normaliser(observation)
        return choose(state.actor, observation, key=key, explore=explore), ()

    def log_probability(self, state: OfflineRCPOState, observation: Array, action: Array) -> Array:
        return state.actor(state.critics.normaliser(observation)).log_density(action)

    def parts(self, state: OfflineRCPOState) -> ActorCriticParts:
        # Its critics count rewards at prices, which nobody goes on with.
        return ActorCriticParts(state.actor, state.critics.normaliser.unscaled())
