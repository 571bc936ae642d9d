"""Ensemble-diversified actor-critic."""

from typing import ClassVar

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
from headwater.parts.diverse_critics import begin_diverse, diverse_step
from headwater.parts.logged_values import InitialLevel, RewardScale
from headwater.parts.soft_actor_critic import LayerNorm, SoftActorCritic, parts_of


class EDAC(
    AbstractMethod[Spaces, Transitions, SoftActorCritic],
    AbstractPolicy[SoftActorCritic],
    AbstractValue[SoftActorCritic],
    AbstractLikelihood[SoftActorCritic],
    AbstractActorCritic[SoftActorCritic],
):
    r"""EDAC: SAC-N whose critics are kept from agreeing by making their slopes differ.

    In turn, each with what the one before has changed:
    $L_\alpha = \log\alpha\,(H(\pi) - \bar H)$;
    $L_\pi = E_{a\sim\pi}[\alpha\log\pi(a|s) - \min_i Q_i(s,a)]$;
    $L_Q = \sum_i E(y - Q_i(s,a))^2 + \eta\,E\frac1{N-1}\sum_{i\ne j}\cos(g_i, g_j)$ with
    $g_i = \nabla_a Q_i(s,a)$ at the logged actions and
    $y = r + \gamma(1-d)(\min_i \bar Q_i(s',a') - b\alpha\log\pi(a'|s'))$, $a'\sim\pi$.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `diversity_weight`: η; 0 is SAC-N. The paper takes 1 on random, medium and replay data and up
      to 5 on mixtures with experts.
    - `initial_temperature`: α at first, in units of reward per nat.
    - `target_entropy`: H̄ in nats; `None`: minus the number of components of the action.
    - `backup_entropy`: b, the share of the entropy bonus that the critics see.
    - `actor_learning_rate`, `critic_learning_rate`, `temperature_learning_rate`: of Adam.
    - `polyak_rate`: Polyak rate of the target critics.
    - `num_critics`: number of critics; the paper takes 10, and 50 on Hopper.
    - `layer_norm`: which networks normalise their hidden layers.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `reward_scale`: what rewards are multiplied by: one over their standard deviation in the log,
      1000 over the range of logged returns (`return_range`), or a number.
    - `initial_level`: whether values start at the level of the log or at 0.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** An, Moon, Kim, Song (2021), arXiv:2110.01548.

    **Differences from the paper:** rewards are divided by their standard deviation and values start
    at the level of the log (see `parts/logged_values.py`); a slope of length zero counts as
    orthogonal to all others, so that its gradient stays finite.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "an2021uncertainty",
        summary="SAC-N with fewer critics, kept diverse by penalising parallel slopes",
        parents=("SACN",),
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

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> SoftActorCritic:
        return begin_diverse(self, problem, key=key)

    def update(self, state: SoftActorCritic, data: Transitions, *, key: PRNGKeyArray):
        return diverse_step(self, state, data, key=key)

    def act(self, state: SoftActorCritic, observation: Array, *, key: PRNGKeyArray, explore: bool):
        return choose(state.actor, state.normaliser(observation), key=key, explore=explore), ()

    def value(self, state: SoftActorCritic, observation: Array, action: Array) -> Array:
        q = jnp.min(state.critics(state.normaliser(observation), action), axis=0)
        return state.normaliser.in_units_of_reward(q)

    def log_probability(self, state: SoftActorCritic, observation: Array, action: Array) -> Array:
        return state.actor(state.normaliser(observation)).log_density(action)

    def parts(self, state: SoftActorCritic) -> ActorCriticParts:
        return parts_of(state)
