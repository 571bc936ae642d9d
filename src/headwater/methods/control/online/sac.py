"""Soft actor-critic."""

from typing import ClassVar, Literal

import jax
from jaxtyping import Array, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, positive, real, share, sizes
from headwater.core.method import (
    AbstractActorCritic,
    AbstractLikelihood,
    AbstractMethod,
    AbstractPolicy,
    AbstractSeveralBatches,
    AbstractValue,
    AbstractWarmStart,
    ActorCriticParts,
    Agent,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import choose
from headwater.ops.control.ensemble import Reduction, reduce_members
from headwater.ops.control.pieces import step_on_pieces
from headwater.parts.soft_actor_critic import (
    LayerNorm,
    SoftActorCritic,
    begin_from,
    begin_soft,
    check_target_members,
    improve_policy,
    parts_of,
    regress_critics,
    soft_target,
)


class SAC(
    AbstractMethod[Spaces, Transitions, SoftActorCritic],
    AbstractPolicy[SoftActorCritic],
    AbstractValue[SoftActorCritic],
    AbstractLikelihood[SoftActorCritic],
    AbstractSeveralBatches,
    AbstractActorCritic[SoftActorCritic],
    AbstractWarmStart[Spaces, SoftActorCritic],
):
    r"""Soft actor-critic: seeks reward and randomness at once, from any experience.

    $y = r + \gamma(1-d) E_{a'\sim\pi}[\min_{i\in M} \bar Q_i(s',a') - b\alpha\log\pi(a'|s')]$ with
    $M$ a random set of target critics; $L_Q = \sum_i E(y - Q_i(s,a))^2$, for each of the
    `num_critic_updates` equal pieces of the batch in turn; then
    $L_\pi = E_{a\sim\pi}[\alpha\log\pi(a|s) - Q(s,a)]$ with the lowest (or the mean) of the
    critics, and $L_\alpha = \log\alpha\,(H(\pi) - \bar H)$. Expectations over the policy are one
    sample for continuous actions and exact for discrete ones.

    WSRL's online stage is `SAC(members=10, num_target_critics=2, layer_norm="both",
    num_critic_updates=4, backup_entropy=0.0, actor_learning_rate=1e-4,
    temperature_learning_rate=1e-4)` on batches of 1,024 rows.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `initial_temperature`: α at first, in units of reward per nat.
    - `target_entropy`: H̄ in nats; `None`: minus the number of components of a continuous action,
      or half of log|A| for |A| discrete ones.
    - `backup_entropy`: b, the share of the entropy bonus that the critics see.
    - `actor_learning_rate`, `critic_learning_rate`, `temperature_learning_rate`: of Adam; a
      temperature with rate 0 stays as it is.
    - `polyak_rate`: Polyak rate of the target critics.
    - `num_critics`: number of critics.
    - `num_target_critics`: how many of them, drawn for each step, take part in the target's
      minimum.
    - `num_target_actions`: the next value is an expectation over the policy if 1, else the largest
      among this many sampled actions (WSRL's setting on AntMaze).
    - `num_critic_updates`: steps of the critics before one of the actor; the rows are shared out.
    - `actor_reduction`: whether the actor climbs the lowest of the critics or their mean.
    - `actor_rows`: whether it does so on all rows or on those of the last critic step.
    - `layer_norm`: which networks normalise their hidden layers.
    - `normalise_observations`: standardise with the data's mean and deviation, where there is data.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Haarnoja et al. (2018), arXiv:1812.05905.

    **Differences from the paper:** the temperature's loss is linear in log α, as in the authors'
    code; discrete actions are served by a softmax policy and one critic output per action; a random
    set of critics is drawn without replacement, as in REDQ and unlike WSRL.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "haarnoja2018applications",
        summary="off-policy actor-critic that is paid for randomness, with automatic temperature",
        parents=("Actor-critic",),
    )

    discount: float = share(0.99)
    initial_temperature: float = positive(1.0)
    target_entropy: float | None = real(None)
    backup_entropy: float = non_negative(1.0)
    actor_learning_rate: float = non_negative(3e-4)
    critic_learning_rate: float = non_negative(3e-4)
    temperature_learning_rate: float = non_negative(3e-4)
    polyak_rate: float = share(0.005)
    num_critics: int = integer(2)
    num_target_critics: int = integer(2)
    num_target_actions: int = integer(1)
    num_critic_updates: int = integer(1)
    actor_reduction: Reduction = choice("min")
    actor_rows: Literal["all", "last"] = choice("all")
    layer_norm: LayerNorm = choice("none")
    normalise_observations: bool = flag(False)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def __check_init__(self):
        check_target_members("SAC", self.num_critics, self.num_target_critics)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> SoftActorCritic:
        return begin_soft(self, problem, key=key)

    def update(self, state: SoftActorCritic, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        critic_key, actor_key = jax.random.split(key)
        state, learned, last = step_on_pieces(
            self._learn_values, state, data, self.num_critic_updates, key=critic_key
        )
        observation = (data if self.actor_rows == "all" else last).observation
        state, improved = improve_policy(
            self, state, observation, reduction=self.actor_reduction, key=actor_key
        )
        return state, {**learned, **improved}

    def act(self, state: SoftActorCritic, observation: Array, *, key: PRNGKeyArray, explore: bool):
        return choose(state.actor, state.normaliser(observation), key=key, explore=explore), ()

    def value(self, state: SoftActorCritic, observation: Array, action: Array) -> Array:
        q = state.critics(state.normaliser(observation), action)
        return state.normaliser.in_units_of_reward(reduce_members(q, self.actor_reduction))

    def log_probability(self, state: SoftActorCritic, observation: Array, action: Array) -> Array:
        return state.actor(state.normaliser(observation)).log_density(action)

    def parts(self, state: SoftActorCritic) -> ActorCriticParts:
        return parts_of(state)

    def warm_start(
        self, learned: Agent, problem: Spaces, *, key: PRNGKeyArray
    ) -> SoftActorCritic | None:
        if not isinstance(learned.method, AbstractActorCritic):
            return None
        fresh = self.init(problem, key=key)
        return begin_from(learned.method.parts(learned.state), fresh, self.initial_temperature)

    def _learn_values(self, state: SoftActorCritic, data: Transitions, key: PRNGKeyArray):
        target = soft_target(
            self,
            state,
            data,
            members=self.num_target_critics,
            actions=self.num_target_actions,
            key=key,
        )
        return regress_critics(self, state, data, target)
