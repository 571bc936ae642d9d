"""SAC-N: soft actor-critic with an ensemble of critics."""

from typing import ClassVar

import jax
import jax.numpy as jnp
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
    AbstractPolicy,
    AbstractValue,
    ActorCriticParts,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import choose
from headwater.parts.logged_values import InitialLevel, RewardScale
from headwater.parts.soft_actor_critic import (
    LayerNorm,
    SoftActorCritic,
    begin_soft,
    improve_temperature_first,
    parts_of,
    regress_critics,
    soft_target,
)


class SACN(
    AbstractMethod[Spaces, Transitions, SoftActorCritic],
    AbstractPolicy[SoftActorCritic],
    AbstractValue[SoftActorCritic],
    AbstractLikelihood[SoftActorCritic],
    AbstractActorCritic[SoftActorCritic],
):
    r"""SAC-N: soft actor-critic whose pessimism is the minimum over many critics.

    In turn, each with what the one before has changed:
    $L_\alpha = \log\alpha\,(H(\pi) - \bar H)$;
    $L_\pi = E_{a\sim\pi}[\alpha\log\pi(a|s) - \min_i Q_i(s,a)]$; $L_Q = \sum_i E(y - Q_i(s,a))^2$
    with $y = r + \gamma(1-d)(\min_i \bar Q_i(s',a') - b\alpha\log\pi(a'|s'))$, $a'\sim\pi$.
    Discrete actions are averaged over exactly instead of sampled.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `initial_temperature`: α at first, in units of reward per nat.
    - `target_entropy`: H̄ in nats; `None`: minus the number of components of a continuous action,
      or half of log|A| for |A| discrete ones.
    - `backup_entropy`: b, the share of the entropy bonus that the critics see.
    - `actor_learning_rate`, `critic_learning_rate`, `temperature_learning_rate`: of Adam.
    - `polyak_rate`: Polyak rate of the target critics.
    - `num_critics`: number of critics; the paper takes 10 on HalfCheetah, 20 on Walker2d and 200
      to 500 on Hopper.
    - `layer_norm`: which networks normalise their hidden layers.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `reward_scale`: what rewards are multiplied by: one over their standard deviation in the log,
      1000 over the range of logged returns (`return_range`), or a number.
    - `initial_level`: whether values start at the level of the log or at 0.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** An, Moon, Kim, Song (2021), arXiv:2110.01548.

    **Differences from the paper:** rewards are divided by their standard deviation and values start
    at the level of the log (see `parts/logged_values.py`); discrete actions are served by a
    softmax policy and one critic output per action.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "an2021uncertainty",
        summary="soft actor-critic made pessimistic by the minimum over many critics",
        parents=("SAC",),
    )

    discount: float = share(0.99)
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

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> SoftActorCritic:
        return begin_soft(
            self,
            problem,
            key=key,
            actor_start={"log_std_range": (-5.0, 2.0), "last_scale": 1e-3, "bias": 0.1},
            critic_start={"last_scale": 3e-3, "bias": 0.1},
        )

    def update(self, state: SoftActorCritic, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        temperature_key, actor_key, critic_key = jax.random.split(key, 3)
        state, improved = improve_temperature_first(
            self,
            state,
            data.observation,
            reduction="min",
            temperature_key=temperature_key,
            actor_key=actor_key,
        )
        target = soft_target(self, state, data, members=self.num_critics, key=critic_key)
        state, learned = regress_critics(self, state, data, target)
        return state, {**learned, **improved}

    def act(self, state: SoftActorCritic, observation: Array, *, key: PRNGKeyArray, explore: bool):
        return choose(state.actor, state.normaliser(observation), key=key, explore=explore), ()

    def value(self, state: SoftActorCritic, observation: Array, action: Array) -> Array:
        q = jnp.min(state.critics(state.normaliser(observation), action), axis=0)
        return state.normaliser.in_units_of_reward(q)

    def log_probability(self, state: SoftActorCritic, observation: Array, action: Array) -> Array:
        return state.actor(state.normaliser(observation)).log_density(action)

    def parts(self, state: SoftActorCritic) -> ActorCriticParts:
        return parts_of(state)
