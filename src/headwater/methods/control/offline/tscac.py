"""Two-stage constrained actor-critic."""

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
    integer,
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
    AbstractValue,
    ActorCriticParts,
    Info,
)
from headwater.core.records import AuxiliaryTransitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import choose
from headwater.networks.mlp import Ensemble
from headwater.ops.control.gradient_steps import begin, descend
from headwater.ops.control.regression import exponential_weight
from headwater.parts.logged_values import InitialLevel, RewardScale
from headwater.parts.several_rewards.critics import (
    Actor,
    SeveralCritics,
    advantages,
    begin_actor,
    begin_several_critics,
    each_policy,
    fit_critics,
    log_densities,
    together,
)


class TSCACActors(eqx.Module):
    """The policy, those of the auxiliary rewards `[auxiliary]`, and what the log's may be."""

    main: Actor
    auxiliary: Ensemble
    logged: Actor


class TSCACState(eqx.Module):
    """Policies and critics with their moments, and the scales taken from the data."""

    actors: TSCACActors
    optimiser: optax.OptState
    critics: SeveralCritics
    step: Int[Array, ""]


class TSCAC(
    AbstractMethod[Spaces, AuxiliaryTransitions, TSCACState],
    AbstractPolicy[TSCACState],
    AbstractValue[TSCACState],
    AbstractLikelihood[TSCACState],
    AbstractActorCritic[TSCACState],
    AbstractSeveralRewards,
):
    r"""TSCAC: seeks the main reward near policies that seek each of the others.

    Every reward $r_i$ has a critic of its own, $L_{Q_i} = E(r_i + \gamma(1-d) V_i(s') -
    Q_i(s,a))^2$ with $V_i(s) = E_{a\sim\pi_i} \bar Q_i(s,a)$, and $A_i = Q_i - V_i$. Stage one
    learns a policy for each of the k auxiliary rewards, $L_{\pi_i} = -E \min(e^{A_i/\tau}, w_{max})
    \log\pi_i(a|s)$. Stage two maximises $E A_1$ within a distance in KL of each of these; with one
    multiplier λ for all, that is solved by $\pi^* \propto \prod_i \pi_i^{1/k} e^{A_1/(k\lambda)}$,
    to which the policy is fitted on logged actions:
    $L_\pi = -E \min\big(\prod_i (\pi_i/\beta)^{1/k}\, e^{A_1/(k\lambda)}, w_{max}\big)
    \log\pi(a|s)$, where $\beta$ is cloned from the log.

    **Arguments:**

    - `auxiliary_rewards`: names of the columns of the log that hold the other rewards.
    - `discount`: weight of the next step's value.
    - `auxiliary_temperature`: τ, in deviations of the logged reward that it is about.
    - `constraint_multiplier`: λ; large ones leave the mean of the auxiliary policies.
    - `max_weight`: bound on a row's weight.
    - `stage_one_updates`: updates before the main policy learns; 0: both stages side by side.
    - `learning_rate`: of Adam, for actors and critics.
    - `polyak_rate`: Polyak rate of the target critics.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `reward_scale`: of the main reward: one over its deviation in the log, 1000 over the range of
      logged returns (`return_range`), or a number; others are divided by their deviation so far.
    - `initial_level`: whether its values start at the level of the log or at 0; others start at 0.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Cai et al. (2023), arXiv:2302.01680.

    **Differences from the paper:** stage one is AWAC's, where the paper weights an actor-critic's
    gradient by a ratio of probabilities; all multipliers are one number; the log's policy is
    cloned. With such a stage one and no discount this is AWAC on a weighted sum of the rewards.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "cai2023two",
        summary="seeks one reward near policies that each seek another",
        parents=("AWAC",),
    )

    auxiliary_rewards: tuple[str, ...] = eqx.field(static=True, default=("like", "share"))
    discount: float = share(0.99)
    auxiliary_temperature: float = positive(1.0, infinite=True)
    constraint_multiplier: float = positive(0.5, infinite=True)
    max_weight: float = positive(100.0, infinite=True)
    stage_one_updates: int = integer(0, low=0, static=False)
    learning_rate: float = non_negative(3e-4)
    polyak_rate: float = share(0.005)
    normalise_observations: bool = flag(True)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> TSCACState:
        critic_key, main_key, logged_key, auxiliary_key = jax.random.split(key, 4)
        critics = begin_several_critics(self, problem, key=critic_key)
        build = lambda key: begin_actor(problem, self.hidden_sizes, key=key)
        actors = TSCACActors(
            main=build(main_key),
            auxiliary=Ensemble(build, len(self.auxiliary_rewards), key=auxiliary_key),
            logged=build(logged_key),
        )
        return TSCACState(
            actors=actors,
            optimiser=begin(optax.adam(self.learning_rate), actors),
            critics=critics,
            step=jnp.zeros((), jnp.int32),
        )

    def update(self, state: TSCACState, data: AuxiliaryTransitions, *, key: PRNGKeyArray):
        before = state.actors
        policies = lambda observation: together(
            before.main(observation), each_policy(before.auxiliary, observation)
        )
        critics, data, metrics = fit_critics(self, state.critics, data, policies, key=key)
        observation, action = data.observation, data.action
        advantage = advantages(critics.networks, policies, observation, action, key=key)
        main, auxiliary = advantage[0], advantage[1:]
        chosen_by = log_densities(before.auxiliary, observation, action)
        ratio = jnp.mean(chosen_by, axis=0) - before.logged(observation).log_density(action)
        total = len(self.auxiliary_rewards) * self.constraint_multiplier
        weight = exponential_weight(ratio + main / total, 1.0, self.max_weight)
        toward = exponential_weight(auxiliary, 1.0 / self.auxiliary_temperature, self.max_weight)
        begun = state.step >= self.stage_one_updates

        def loss(actors: TSCACActors):
            main_loss = -jnp.mean(weight * actors.main(observation).log_density(action))
            likelihood = log_densities(actors.auxiliary, observation, action)
            auxiliary_loss = -jnp.sum(jnp.mean(toward * likelihood, axis=1))
            logged_loss = -jnp.mean(actors.logged(observation).log_density(action))
            return main_loss + auxiliary_loss + logged_loss, {
                "actor_loss": main_loss,
                "auxiliary_loss": auxiliary_loss,
                "behaviour_loss": logged_loss,
            }

        gradients, losses = jax.grad(loss, has_aux=True)(before)
        actors, optimiser = descend(
            optax.adam(self.learning_rate), gradients, state.optimiser, before
        )
        held = jax.tree.map(lambda new, old: jnp.where(begun, new, old), actors.main, before.main)
        actors = eqx.tree_at(lambda a: a.main, actors, held)
        state = TSCACState(actors, optimiser, critics, state.step + 1)
        return state, {
            **metrics,
            **losses,
            "advantage": jnp.mean(main),
            "weight": jnp.mean(weight),
        }

    def act(self, state: TSCACState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        observation = state.critics.normaliser(observation)
        return choose(state.actors.main, observation, key=key, explore=explore), ()

    def value(self, state: TSCACState, observation: Array, action: Array) -> Array:
        return state.critics.main_value(observation, action)

    def log_probability(self, state: TSCACState, observation: Array, action: Array) -> Array:
        return state.actors.main(state.critics.normaliser(observation)).log_density(action)

    def parts(self, state: TSCACState) -> ActorCriticParts:
        # Its one critic of the main reward is no ensemble that another method would take over.
        return ActorCriticParts(state.actors.main, state.critics.normaliser.unscaled())
