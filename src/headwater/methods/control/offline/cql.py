"""Conservative Q-learning for continuous actions."""

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


class CQL(
    AbstractMethod[Spaces, Transitions, ConservativeActorCritic],
    AbstractPolicy[ConservativeActorCritic],
    AbstractValue[ConservativeActorCritic],
    AbstractLikelihood[ConservativeActorCritic],
    AbstractActorCritic[ConservativeActorCritic],
):
    r"""CQL: soft actor-critic whose critics are pushed down wherever no action was logged.

    $L_Q = \sum_i E(y - Q_i(s,a))^2 + w\,E[\log\sum_j e^{Q_i(s,a_j)}/p(a_j|s) - Q_i(s,a)]$, where
    the proposals $a_j$ are uniform, from $\pi(s)$ and from $\pi(s')$ in equal numbers and
    $y = r + \gamma(1-d)(\min_{i\in M}\bar Q_i(s',a') - b\alpha\log\pi(a'|s'))$, $a'\sim\pi$; then
    $L_\pi = E_{a\sim\pi}[\alpha\log\pi(a|s) - \min_i Q_i(s,a)]$ and
    $L_\alpha = \log\alpha\,(H(\pi) - \bar H)$. With w = 0 this is SAC. For discrete actions there
    is `DiscreteCQL`.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `conservative_weight`: w, in units of value; CORL takes 10 on locomotion, the paper 5.
    - `target_action_gap`: if given, w is multiplied by a factor that is learned so that the gap,
      the bracket above, comes down to this; CORL takes 0.8 on AntMaze.
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

    **Reference:** Kumar, Zhou, Tucker, Levine (2020), arXiv:2006.04779.

    **Differences from the paper:** rewards are divided by their standard deviation and values start
    at the level of the log (see `parts/logged_values.py`); as in CORL, observations are
    standardised, the critics have three layers, entropy is left out of the backup, and the
    actor learns at 3e-5; the critics step before the actor; a terminal row has no next
    observation, so its second set of policy proposals comes from the first. Unlike CORL: actor
    and critics start orthogonal with last layers uniform in ±0.001 (there, last layers start a
    hundredth as large as usual, and the actor's others as PyTorch's do); the offset of the
    log-deviation, -1, is not learned; and among several next actions the largest value is that
    with its share of the entropy (there, the entropy of the action with the largest bare value
    is subtracted, which is the same where b = 0).
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "kumar2020conservative",
        summary="soft actor-critic that pushes down the values of actions not logged",
        parents=("SAC",),
    )

    discount: float = share(0.99)
    conservative_weight: float = non_negative(10.0)
    target_action_gap: float | None = real(None)
    min_action_gap: float | None = real(None)
    initial_temperature: float = positive(1.0)
    target_entropy: float | None = real(None)
    backup_entropy: float = non_negative(0.0)
    actor_learning_rate: float = non_negative(3e-5)
    critic_learning_rate: float = non_negative(3e-4)
    temperature_learning_rate: float = non_negative(3e-5)
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
    hidden_sizes: tuple[int, ...] = sizes((256, 256, 256))

    def __check_init__(self):
        check_target_members("CQL", self.num_critics, self.num_target_critics)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> ConservativeActorCritic:
        problem.require_continuous("CQL")
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
            self, state, data, target, return_to_go=None, key=proposal_key
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
