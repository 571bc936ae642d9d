"""PROTO whose anchor follows the actor in stages of acting that did not return less."""

from typing import ClassVar

import jax
import jax.numpy as jnp
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
from headwater.core.records import StagedTransitions
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


class StagedPROTO(
    AbstractMethod[Spaces, StagedTransitions, NearPolicy],
    AbstractPolicy[NearPolicy],
    AbstractValue[NearPolicy],
    AbstractLikelihood[NearPolicy],
    AbstractSeveralBatches,
    AbstractActorCritic[NearPolicy],
    AbstractWarmStart[Spaces, NearPolicy],
):
    r"""`PROTO` whose anchor goes to where the actor is after a stage of acting that has passed.

    An update is PROTO's; before it, $\pi_0 \leftarrow \pi$ if the batch says that a stage has
    passed, that is, that its episodes did not return less in the mean than those of the last that
    passed. So the actor is held near a policy under which returns did not fall, and what holds a
    poor policy, too, is let go step by step.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `kl_weight`: λ, in units of value per nat: of rewards as the normaliser scales them.
    - `anchor_rate`: the Polyak rate of the anchor between stages.
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

    **Differences from the paper:** those of `PROTO`, and the stages, which are ours: there the
    anchor follows by a Polyak average, whatever is returned.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "li2023proto",
        summary="PROTO whose anchor follows the actor after episodes that did not return less",
        parents=("PROTO",),
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
        check_target_members("StagedPROTO", self.num_critics, self.num_target_critics)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> NearPolicy:
        return begin_near(self, problem, key=key)

    def update(self, state: NearPolicy, data: StagedTransitions, *, key: PRNGKeyArray):
        passed = jnp.any(data.passed)
        anchor = jax.tree.map(
            lambda own, old: jnp.where(passed, own, old), state.soft.actor, state.anchor
        )
        state = NearPolicy(state.soft, anchor)
        state, metrics = improve_near(self, state, data.transitions, key=key)
        return state, {**metrics, "stages_passed": passed.astype(jnp.float32)}

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
