"""PROTO: soft actor-critic held near another policy."""

from typing import ClassVar

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
from headwater.parts.soft_actor_critic import (
    LayerNorm,
    NearPolicy,
    begin_near,
    begin_near_learned,
    check_target_members,
    improve_near,
    parts_of,
)


class PROTO(
    AbstractMethod[Spaces, Transitions, NearPolicy],
    AbstractPolicy[NearPolicy],
    AbstractValue[NearPolicy],
    AbstractLikelihood[NearPolicy],
    AbstractSeveralBatches,
    AbstractActorCritic[NearPolicy],
    AbstractWarmStart[Spaces, NearPolicy],
):
    r"""PROTO: soft actor-critic whose actor is held near a policy that follows it slowly.

    The critics learn as those of `SAC` do; then
    $L_\pi = E[\alpha\log\pi(a|s) - \min_i(Q_i(s,a) - Q_i(s,a_0))] + \lambda\,KL(\pi\|\pi_0)$
    with $a\sim\pi$ and $a_0\sim\pi_0$ by the same draw, and the anchor moves a share of the way to
    the actor, $\pi_0 \leftarrow (1-\rho)\pi_0 + \rho\pi$. At first $\pi_0$ is the policy that it
    begins with: the offline one, after a warm start. So the actor leaves the anchor where all
    critics say that this is better, whatever level of return they expect, and as far as λ lets it.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `kl_weight`: λ, in units of value per nat: of rewards as the normaliser scales them.
    - `anchor_rate`: ρ, the Polyak rate of the anchor; 0 leaves it where it began.
    - `initial_temperature`, `target_entropy`, `backup_entropy`: α at first, H̄, and the share of the
      entropy bonus that the critics see, as in `SAC`.
    - `actor_learning_rate`, `critic_learning_rate`, `temperature_learning_rate`: of Adam.
    - `polyak_rate`: Polyak rate of the target critics.
    - `num_critics`, `num_target_critics`: of critics, and of those in the target's minimum.
    - `num_critic_updates`: steps of the critics before one of the actor; the rows are shared out.
    - `actor_reduction`: whether the actor climbs the lowest of the critics' gains or their mean.
    - `layer_norm`: which networks normalise their hidden layers.
    - `normalise_observations`: standardise with the data's mean and deviation, where there is data.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Li, Hu, Xu, Liu, Zhan, Zhang (2023), arXiv:2305.15669.

    **Differences from the paper:** the critics do not see the divergence; λ stays as it is, since
    where it fell to 0 along a line our probes lost the policy when it was gone; the minimum is over
    gains, and not values; divergences of squashed or clipped normals are those of the normals.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "li2023proto",
        summary="soft actor-critic held near a policy that follows it slowly, to go online safely",
        parents=("SAC",),
    )

    discount: float = share(0.99)
    kl_weight: float = non_negative(1.0)
    anchor_rate: float = share(0.0)
    initial_temperature: float = positive(1.0)
    target_entropy: float | None = real(None)
    backup_entropy: float = non_negative(0.0)
    actor_learning_rate: float = non_negative(3e-4)
    critic_learning_rate: float = non_negative(3e-4)
    temperature_learning_rate: float = non_negative(3e-4)
    polyak_rate: float = share(0.005)
    num_critics: int = integer(2)
    num_target_critics: int = integer(2)
    num_critic_updates: int = integer(1)
    actor_reduction: Reduction = choice("min")
    layer_norm: LayerNorm = choice("none")
    normalise_observations: bool = flag(False)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def __check_init__(self):
        check_target_members("PROTO", self.num_critics, self.num_target_critics)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> NearPolicy:
        return begin_near(self, problem, key=key)

    def update(self, state: NearPolicy, data: Transitions, *, key: PRNGKeyArray):
        return improve_near(self, state, data, key=key)

    def act(self, state: NearPolicy, observation: Array, *, key: PRNGKeyArray, explore: bool):
        observation = state.soft.normaliser(observation)
        return choose(state.soft.actor, observation, key=key, explore=explore), ()

    def value(self, state: NearPolicy, observation: Array, action: Array) -> Array:
        q = state.soft.critics(state.soft.normaliser(observation), action)
        return state.soft.normaliser.in_units_of_reward(reduce_members(q, self.actor_reduction))

    def log_probability(self, state: NearPolicy, observation: Array, action: Array) -> Array:
        return state.soft.actor(state.soft.normaliser(observation)).log_density(action)

    def parts(self, state: NearPolicy) -> ActorCriticParts:
        return parts_of(state.soft)

    def warm_start(
        self, learned: Agent, problem: Spaces, *, key: PRNGKeyArray
    ) -> NearPolicy | None:
        return begin_near_learned(self, learned, problem, key=key)
