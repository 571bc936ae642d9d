"""Calibrated Q-learning."""

import dataclasses
from typing import ClassVar

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
    AbstractPolicy,
    AbstractReturnsToGo,
    AbstractValue,
    ActorCriticParts,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import choose
from headwater.ops.control.ensemble import Reduction, reduce_members
from headwater.parts.conservative import (
    ConservativeActorCritic,
    begin_conservative,
    improve_conservatively,
)
from headwater.parts.logged_values import InitialLevel, RewardScale
from headwater.parts.soft_actor_critic import (
    LayerNorm,
    check_target_members,
    improve_policy,
    parts_of,
    soft_target,
)


class CalQL(
    AbstractMethod[Spaces, Transitions, ConservativeActorCritic],
    AbstractPolicy[ConservativeActorCritic],
    AbstractValue[ConservativeActorCritic],
    AbstractLikelihood[ConservativeActorCritic],
    AbstractReturnsToGo,
    AbstractActorCritic[ConservativeActorCritic],
):
    r"""Cal-QL: CQL that lowers no value below the return which the log shows to be possible.

    $L_Q = \sum_i E(y - Q_i(s,a))^2 + w\,E[\log\sum_j e^{\tilde Q_i(s,a_j)}/p(a_j|s) - Q_i(s,a)]$
    with $\tilde Q_i(s,a_j) = \max(Q_i(s,a_j), R(s))$ for the policy's proposals and $Q_i(s,a_j)$
    for the uniform ones; $R$ is the logged discounted return to go (`return_to_go` of the data).
    Where it is missing or minus infinity, as in new experience, this is CQL. The rest is CQL's:
    $y = r + \gamma(1-d)(\min_{i\in M}\bar Q_i(s',a') - b\alpha\log\pi(a'|s'))$, then
    $L_\pi = E_{a\sim\pi}[\alpha\log\pi(a|s) - \min_i Q_i(s,a)]$ and
    $L_\alpha = \log\alpha\,(H(\pi) - \bar H)$.

    **Arguments:**

    - `discount`: weight of the next step's value; that of the returns to go should be the same.
    - `conservative_weight`: w, in units of value; 1 on Adroit.
    - `target_action_gap`: if given, w is multiplied by a factor that is learned so that the gap,
      the bracket above, comes down to this; the paper takes 0.8 on AntMaze.
    - `min_action_gap`: if given, gaps below it are not pushed down; CORL takes -200 on AntMaze.
    - `initial_temperature`: α at first, in units of reward per nat.
    - `target_entropy`: H̄ in nats; `None`: minus the number of components of the action.
    - `backup_entropy`: b, the share of the entropy bonus that the critics see.
    - `actor_learning_rate`, `critic_learning_rate`, `temperature_learning_rate`: of Adam.
    - `polyak_rate`: Polyak rate of the target critics.
    - `num_action_samples`: actions of each of the three origins.
    - `num_target_actions`: the next value is one action's if 1, else the largest among this many;
      10 on AntMaze.
    - `num_critics`: number of critics.
    - `num_target_critics`: how many of them, drawn for each step, take part in the target's
      minimum.
    - `actor_reduction`: whether the actor climbs the lowest of the critics or their mean.
    - `layer_norm`: which networks normalise their hidden layers.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `reward_scale`: what rewards are multiplied by: one over their standard deviation in the log,
      1000 over the range of logged returns (`return_range`), or a number.
    - `initial_level`: whether values start at the level of the log or at 0.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Nakamoto et al. (2023), arXiv:2303.05479.

    **Differences from the paper:** rewards are divided by their standard deviation and values start
    at the level of the log (see `parts/logged_values.py`); observations are standardised, as in
    CORL; actor and critics have equally many layers; the critics step before the actor; a
    terminal row has no next observation, so its second set of policy proposals comes from the
    first; networks start, and entropy enters the largest of several next values, as in `CQL`.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "nakamoto2023calql",
        summary="CQL whose values stay above the logged returns, ready for fine-tuning",
        parents=("CQL",),
    )

    discount: float = share(0.99)
    conservative_weight: float = non_negative(5.0)
    target_action_gap: float | None = real(None)
    min_action_gap: float | None = real(None)
    initial_temperature: float = positive(1.0)
    target_entropy: float | None = real(None)
    backup_entropy: float = non_negative(0.0)
    actor_learning_rate: float = non_negative(1e-4)
    critic_learning_rate: float = non_negative(3e-4)
    temperature_learning_rate: float = non_negative(1e-4)
    polyak_rate: float = share(0.005)
    num_action_samples: int = integer(10)
    num_target_actions: int = integer(1)
    num_critics: int = integer(2)
    num_target_critics: int = integer(2)
    actor_reduction: Reduction = choice("min")
    layer_norm: LayerNorm = choice("none")
    normalise_observations: bool = flag(True)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def __check_init__(self):
        check_target_members("CalQL", self.num_critics, self.num_target_critics)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> ConservativeActorCritic:
        problem.require_continuous("CalQL")
        return begin_conservative(self, problem, key=key)

    def update(self, state: ConservativeActorCritic, data: Transitions, *, key: PRNGKeyArray):
        data = state.soft.normaliser.transitions(data)
        critic_key, actor_key, proposal_key = jax.random.split(key, 3)
        target = soft_target(
            self,
            state.soft,
            data,
            members=self.num_target_critics,
            actions=self.num_target_actions,
            key=critic_key,
        )
        state, learned = improve_conservatively(
            self, state, data, target, return_to_go=data.return_to_go, key=proposal_key
        )
        soft, improved = improve_policy(
            self, state.soft, data.observation, reduction=self.actor_reduction, key=actor_key
        )
        return dataclasses.replace(state, soft=soft), {**learned, **improved}

    def act(
        self,
        state: ConservativeActorCritic,
        observation: Array,
        *,
        key: PRNGKeyArray,
        explore: bool,
    ):
        observation = state.soft.normaliser(observation)
        return choose(state.soft.actor, observation, key=key, explore=explore), ()

    def value(self, state: ConservativeActorCritic, observation: Array, action: Array) -> Array:
        q = state.soft.critics(state.soft.normaliser(observation), action)
        return state.soft.normaliser.in_units_of_reward(reduce_members(q, self.actor_reduction))

    def log_probability(
        self, state: ConservativeActorCritic, observation: Array, action: Array
    ) -> Array:
        return state.soft.actor(state.soft.normaliser(observation)).log_density(action)

    def parts(self, state: ConservativeActorCritic) -> ActorCriticParts:
        return parts_of(state.soft)
