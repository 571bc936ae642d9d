"""Model-based offline policy optimisation: rollouts in a model, less what it is unsure of."""

import dataclasses
from typing import Any, ClassVar, Literal

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
from headwater.parts.logged_values import InitialLevel, RewardScale
from headwater.parts.model_based import (
    WithModel,
    begin_with_model,
    dynamics_method,
    dynamics_of,
    learned,
)
from headwater.parts.soft_actor_critic import (
    LayerNorm,
    begin_soft,
    improve_policy,
    parts_of,
    regress_critics,
    soft_target,
)


class MOPO(
    AbstractMethod[Spaces, Transitions, WithModel],
    AbstractModelBased[WithModel],
    AbstractPolicy[WithModel],
    AbstractValue[WithModel],
    AbstractLikelihood[WithModel],
    AbstractActorCritic[WithModel],
):
    r"""MOPO: soft actor-critic on short rollouts in a learned model, paid less where it is unsure.

    A step of a rollout from $s$ by $a$ brings $\tilde r = r - \lambda u(s, a)$. The uncertainty $u$
    is the largest norm, over the members of the ensemble, of the standard deviations that they
    predict (`spread`), or the largest distance of a member's next observation from the mean
    (`disagreement`); both are in units of observations and rewards. With λ = 0 this is MBPO from a
    log, which has nothing against values that grow at states where rollouts end.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `penalty_weight`: λ; the paper takes 0.5 to 5.
    - `uncertainty`: which of the two.
    - `initial_temperature`: α at first, in units of reward per nat.
    - `target_entropy`: H̄ in nats; `None`: minus the number of components of a continuous action,
      or half of log|A| for |A| discrete ones.
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

    **Reference:** Yu, Thomas, Yu, Ermon, Zou, Levine, Finn, Ma (2020), arXiv:2005.13239.

    **Differences from the paper:** rewards are divided by their standard deviation and values start
    at the level of the log (see `parts/logged_values.py`); the order of steps is that of SAC here;
    what ends an episode is learned, and not known beforehand; the model differs as its own page
    says.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "yu2020mopo",
        summary="soft actor-critic on rollouts in a learned model, paid less where it is unsure",
        parents=("SAC", "DynamicsEnsemble"),
    )

    discount: float = share(0.99)
    penalty_weight: float = non_negative(1.0)
    uncertainty: Literal["spread", "disagreement"] = choice("spread")
    initial_temperature: float = positive(1.0)
    target_entropy: float | None = real(None)
    backup_entropy: float = non_negative(1.0)
    actor_learning_rate: float = non_negative(3e-4)
    critic_learning_rate: float = non_negative(3e-4)
    temperature_learning_rate: float = non_negative(3e-4)
    polyak_rate: float = share(0.005)
    num_critics: int = integer(2)
    layer_norm: LayerNorm = choice("none")
    normalise_observations: bool = flag(False)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256))
    model_updates: int = integer(20_000)
    rollout_steps: int = integer(5)
    rollouts: int = integer(50)
    imagined_per_logged: int = integer(19)
    dynamics: AbstractMethod = dynamics_method()

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> WithModel:
        learner_key, model_key = jax.random.split(key)
        learner = begin_soft(self, problem, key=learner_key)
        return begin_with_model(self, problem, learner, key=model_key)

    def update(self, state: WithModel, data: Transitions, *, key: PRNGKeyArray):
        own = state.learner
        rows = own.normaliser.transitions(data)
        critic_key, actor_key = jax.random.split(key)
        target = soft_target(self, own, rows, members=self.num_critics, key=critic_key)
        own, metrics = regress_critics(self, own, rows, target)
        own, improved = improve_policy(self, own, rows.observation, reduction="min", key=actor_key)
        return learned(self, state, own, {**metrics, **improved}, data)

    def with_model(self, state: WithModel, model: Any) -> WithModel:
        return dataclasses.replace(state, model=model)

    def imagine(
        self, state: WithModel, observation: Array, action: Array, *, key: PRNGKeyArray
    ) -> ModelStep:
        dynamics = dynamics_of(self)
        found = dynamics.step(state.model, observation, action, key=key)
        # Both calls ask the same networks the same, which is compiled once.
        expected = dynamics.predict(state.model, observation, action)
        unsure = expected.spread if self.uncertainty == "spread" else expected.disagreement
        return found._replace(reward=found.reward - self.penalty_weight * unsure)

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
