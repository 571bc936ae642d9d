"""Reach-aware value learning: rollouts in a model, and values that many critics keep low."""

import dataclasses
from typing import Any, ClassVar

import jax
from jaxtyping import Array, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import (
    choice,
    choice_or_positive,
    flag,
    integer,
    non_negative,
    positive,
    real,
    share,
    sizes,
)
from headwater.core.method import (
    AbstractActorCritic,
    AbstractLikelihood,
    AbstractMethod,
    AbstractModelBased,
    AbstractPolicy,
    AbstractValue,
    ActorCriticParts,
    Info,
)
from headwater.core.records import ModelStep, Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import choose
from headwater.ops.control.ensemble import reduce_members
from headwater.parts.diverse_critics import begin_diverse, diverse_step
from headwater.parts.logged_values import InitialLevel, RewardScale
from headwater.parts.model_based import (
    WithModel,
    begin_with_model,
    dynamics_method,
    dynamics_of,
    learned,
)
from headwater.parts.soft_actor_critic import LayerNorm, parts_of


class RAVL(
    AbstractMethod[Spaces, Transitions, WithModel],
    AbstractModelBased[WithModel],
    AbstractPolicy[WithModel],
    AbstractValue[WithModel],
    AbstractLikelihood[WithModel],
    AbstractActorCritic[WithModel],
):
    r"""RAVL: EDAC on short rollouts of its own policy in a learned model.

    Rollouts begin at logged states and are cut after a few steps. States that are reached by the
    last step alone, the edge of reach, stand in targets and are never updated; with few critics
    their values grow without bound. Here the minimum over many critics, kept diverse, is low where
    nothing was ever updated. No reward is penalised for the model's uncertainty.

    $L_Q = \sum_i E(y - Q_i(s,a))^2 + \eta\,E\frac1{N-1}\sum_{i\ne j}\cos(g_i, g_j)$ with
    $g_i = \nabla_a Q_i(s,a)$ and
    $y = r + \gamma(1-d)(\min_i \bar Q_i(s',a') - b\alpha\log\pi(a'|s'))$, as in EDAC, whose
    order of steps it keeps.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `diversity_weight`: η.
    - `initial_temperature`: α at first, in units of reward per nat.
    - `target_entropy`: H̄ in nats; `None`: minus the number of components of the action.
    - `backup_entropy`: b, the share of the entropy bonus that the critics see.
    - `actor_learning_rate`, `critic_learning_rate`, `temperature_learning_rate`: of Adam.
    - `polyak_rate`: Polyak rate of the target critics.
    - `num_critics`: number of critics.
    - `layer_norm`: which networks normalise their hidden layers.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `reward_scale`: what rewards are multiplied by: one over their standard deviation in the log,
      1000 over the range of logged returns (`return_range`), or a number.
    - `initial_level`: whether values start at the level of the log or at 0.
    - `hidden_sizes`: hidden layers of actor and critics.
    - `model_updates`: in which the model is learned, before anything else.
    - `rollout_steps`: after which a rollout is cut.
    - `rollouts`: that begin for each update.
    - `imagined_per_logged`: rows of rollouts in a batch for each logged one.
    - `dynamics`: the method that learns the model.

    **Reference:** Sims, Lu, Foerster, Teh (2024), arXiv:2402.12527.

    **Differences from the paper:** as those of EDAC and of the method that learns the model; what
    ends an episode is learned, and not known beforehand.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "sims2024edge",
        summary="EDAC on rollouts in a learned model, whose edge many critics keep low",
        parents=("EDAC", "DynamicsEnsemble"),
    )

    discount: float = share(0.99)
    diversity_weight: float = non_negative(1.0)
    initial_temperature: float = positive(1.0)
    target_entropy: float | None = real(None)
    backup_entropy: float = non_negative(1.0)
    actor_learning_rate: float = non_negative(3e-4)
    critic_learning_rate: float = non_negative(3e-4)
    temperature_learning_rate: float = non_negative(3e-4)
    polyak_rate: float = share(0.005)
    num_critics: int = integer(10)
    layer_norm: LayerNorm = choice("none")
    normalise_observations: bool = flag(False)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256, 256))
    model_updates: int = integer(20_000)
    rollout_steps: int = integer(5)
    rollouts: int = integer(50)
    imagined_per_logged: int = integer(19)
    dynamics: AbstractMethod = dynamics_method()

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> WithModel:
        learner_key, model_key = jax.random.split(key)
        learner = begin_diverse(self, problem, key=learner_key)
        return begin_with_model(self, problem, learner, key=model_key)

    def update(self, state: WithModel, data: Transitions, *, key: PRNGKeyArray):
        learner, metrics = diverse_step(self, state.learner, data, key=key)
        return learned(self, state, learner, metrics, data)

    def with_model(self, state: WithModel, model: Any) -> WithModel:
        return dataclasses.replace(state, model=model)

    def imagine(
        self, state: WithModel, observation: Array, action: Array, *, key: PRNGKeyArray
    ) -> ModelStep:
        return dynamics_of(self).step(state.model, observation, action, key=key)

    def act(self, state: WithModel, observation: Array, *, key: PRNGKeyArray, explore: bool):
        own = state.learner
        return choose(own.actor, own.normaliser(observation), key=key, explore=explore), ()

    def value(self, state: WithModel, observation: Array, action: Array) -> Array:
        own = state.learner
        q = reduce_members(own.critics(own.normaliser(observation), action), "min")
        return own.normaliser.in_units_of_reward(q)

    def log_probability(self, state: WithModel, observation: Array, action: Array) -> Array:
        own = state.learner
        return own.actor(own.normaliser(observation)).log_density(action)

    def parts(self, state: WithModel) -> ActorCriticParts:
        return parts_of(state.learner)
