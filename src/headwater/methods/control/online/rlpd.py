"""Reinforcement learning with prior data."""

from typing import ClassVar

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
    ActorCriticParts,
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
    begin_soft,
    check_target_members,
    improve_policy,
    parts_of,
    regress_critics,
    soft_target,
)


class RLPD(
    AbstractMethod[Spaces, Transitions, SoftActorCritic],
    AbstractPolicy[SoftActorCritic],
    AbstractValue[SoftActorCritic],
    AbstractLikelihood[SoftActorCritic],
    AbstractSeveralBatches,
    AbstractActorCritic[SoftActorCritic],
):
    r"""RLPD: soft actor-critic made to learn fast from logs and new experience in equal parts.

    For each of the `num_critic_updates` equal pieces of the batch in turn
    $y = r + \gamma(1-d)(\min_{i\in M}\bar Q_i(s',a') - b\alpha\log\pi(a'|s'))$, $a'\sim\pi$, with
    $M$ a random set of target critics, and $L_Q = \sum_i E(y - Q_i(s,a))^2$; then once, on the last
    piece, $L_\pi = E_{a\sim\pi}[\alpha\log\pi(a|s) - \frac1N\sum_i Q_i(s,a)]$ and
    $L_\alpha = \log\alpha\,(H(\pi) - \bar H)$.

    The critics' layer norm keeps values of unseen actions bounded, which is what makes it safe to
    mix logs in. Feed it from `Mixed`, half of whose rows are logged and half collected; its batch
    is cut into pieces that each hold both halves. The paper draws 20 × 256 rows per step.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `initial_temperature`: α at first, in units of reward per nat.
    - `target_entropy`: H̄ in nats; `None`: minus half the number of components of a continuous
      action, or half of log|A| for |A| discrete ones.
    - `backup_entropy`: b, the share of the entropy bonus that the critics see; the paper takes 0 on
      sparse rewards.
    - `actor_learning_rate`, `critic_learning_rate`, `temperature_learning_rate`: of Adam.
    - `polyak_rate`: Polyak rate of the target critics.
    - `num_critics`: number of critics.
    - `num_target_critics`: how many of them, drawn for each step, take part in the target's
      minimum; the paper takes 1 on AntMaze.
    - `num_critic_updates`: steps of the critics before one of the actor; the rows are shared out.
    - `actor_reduction`: whether the actor climbs the lowest of the critics or their mean.
    - `layer_norm`: which networks normalise their hidden layers.
    - `normalise_observations`: standardise with the data's mean and deviation, where there is data.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Ball, Smith, Kostrikov, Levine (2023), arXiv:2302.02948.

    **Differences from the paper:** the critics' loss is the sum and not the mean over members,
    which Adam makes the same; the temperature's loss is linear in log α; discrete actions are
    served by a softmax policy and one critic output per action. Layer norms add 1e-5 to the
    variance; those of the authors' code, in Flax, add 1e-6.
    """

    feed: ClassVar[Feed] = Feed.BOTH
    info: ClassVar[Info] = Info(
        "ball2023efficient",
        summary="high-ratio soft actor-critic with a layer-norm ensemble, half of its data logged",
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
    num_target_critics: int = integer(2)
    num_critic_updates: int = integer(20)
    actor_reduction: Reduction = choice("mean")
    layer_norm: LayerNorm = choice("critics")
    normalise_observations: bool = flag(False)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def __check_init__(self):
        check_target_members("RLPD", self.num_critics, self.num_target_critics)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> SoftActorCritic:
        return begin_soft(self, problem, key=key)

    def update(self, state: SoftActorCritic, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        critic_key, actor_key = jax.random.split(key)

        def learn_values(state: SoftActorCritic, piece: Transitions, key: PRNGKeyArray):
            target = soft_target(self, state, piece, members=self.num_target_critics, key=key)
            return regress_critics(self, state, piece, target)

        state, learned, last = step_on_pieces(
            learn_values, state, data, self.num_critic_updates, key=critic_key
        )
        state, improved = improve_policy(
            self,
            state,
            last.observation,
            reduction=self.actor_reduction,
            entropy_per_component=-0.5,
            key=actor_key,
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
