"""Behaviour-regularised actor-critic, revisited."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import (
    choice,
    choice_or_positive,
    flag,
    integer,
    non_negative,
    share,
    sizes,
)
from headwater.core.method import (
    AbstractActorCritic,
    AbstractMethod,
    AbstractPolicy,
    AbstractValue,
    ActorCriticParts,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import DeterministicActor, choose_near
from headwater.networks.control.critics import critics, raised
from headwater.ops.control.bellman import backup
from headwater.ops.control.improvement import unit_scale
from headwater.parts.deterministic_actor_critic import (
    DeterministicActorCritic,
    begin_deterministic,
    improve_actor_when_due,
    lowest_value,
    parts_of,
    regress_critics,
    smoothed_next_action,
)
from headwater.parts.logged_values import InitialLevel, RewardScale, begin_values


class ReBRAC(
    AbstractMethod[Spaces, Transitions, DeterministicActorCritic],
    AbstractPolicy[DeterministicActorCritic],
    AbstractValue[DeterministicActorCritic],
    AbstractActorCritic[DeterministicActorCritic],
):
    r"""ReBRAC: TD3 with separate cloning penalties on actor and critic. Continuous only.

    $y = r + \gamma(1-d)[\min_i \bar Q_i(s', \tilde a) - \beta_c \|\tilde a - a'\|^2]$ with
    $\tilde a = \bar\pi(s') + \mathrm{clip}(N(0,\sigma^2), \pm c)$ and $a'$ the action logged in
    $s'$; $L_Q = \sum_i E(y - Q_i(s,a))^2$. Every second update,
    $L_\pi = E[\beta_a \|\pi(s) - a\|^2 - Q(s,\pi(s)) / E|Q(s,\pi(s))|]$ with $Q = \min_i Q_i$ and
    the denominator held constant, and both targets move. Critics have layer norms.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `actor_cloning_weight`, `critic_cloning_weight`: β_a and β_c. The paper tunes them for each
      dataset: β_a in 0.001 … 0.1 and β_c in 0 … 0.5 on locomotion; the defaults are those of Hopper
      medium.
    - `target_policy_noise`, `target_noise_clip`: σ and c of the noise on the target's action.
    - `learning_rate`: of Adam, for actor and critics; meant for batches of 1024.
    - `polyak_rate`: Polyak rate of the targets.
    - `exploration_noise`: deviation of the noise when acting to explore.
    - `policy_delay`: updates of the critics for each of the actor and the targets.
    - `layer_norm`: normalise the critics' hidden layers.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `reward_scale`: what rewards are multiplied by: one over their standard deviation in the log,
      1000 over the range of logged returns (`return_range`), or a number.
    - `initial_level`: whether values start at the level of the log or at 0.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Tarasov, Kurenkov, Nikulin, Kolesnikov (2023), arXiv:2305.09836.

    **Differences from the paper:** rewards are divided by their standard deviation and values start
    at the level of the log (see `parts/logged_values.py`); the critic's penalty is left out
    where an episode was cut, since no next action was logged there (the authors drop these
    rows). As in the authors' code, the target actor follows the actor from before the step.
    Layer norms add 1e-5 to the variance, as PyTorch's do; those of the authors' code, in Flax,
    add 1e-6.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "tarasov2023revisiting",
        summary="TD3+BC with decoupled penalties, deeper networks and layer norms",
        parents=("TD3BC",),
    )

    discount: float = share(0.99)
    actor_cloning_weight: float = non_negative(0.01)
    critic_cloning_weight: float = non_negative(0.01)
    target_policy_noise: float = non_negative(0.2)
    target_noise_clip: float = non_negative(0.5)
    learning_rate: float = non_negative(1e-3)
    polyak_rate: float = share(0.005)
    exploration_noise: float = non_negative(0.1)
    policy_delay: int = integer(2, static=False)
    layer_norm: bool = flag(True)
    normalise_observations: bool = flag(False)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> DeterministicActorCritic:
        problem.require_continuous("ReBRAC")
        actor_key, critic_key = jax.random.split(key)
        start = {"initialiser": "torch", "bias": 0.1}
        actor = DeterministicActor(
            problem, self.hidden_sizes, key=actor_key, last_scale=1e-3, **start
        )
        layer_norm = "after" if self.layer_norm else None
        twins = critics(
            problem,
            self.hidden_sizes,
            2,
            key=critic_key,
            last_scale=3e-3,
            layer_norm=layer_norm,
            **start,
        )
        normaliser, level = begin_values(self, problem)
        return begin_deterministic(actor, raised(twins, level), normaliser)

    def update(self, state: DeterministicActorCritic, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        target = self._target(state, data, key)
        state, learned = regress_critics(self, state, data, target)

        def loss(actor: DeterministicActor) -> Float[Array, ""]:
            action = actor(data.observation)
            gain = unit_scale(jnp.min(state.critics(data.observation, action), axis=0))
            distance = jnp.sum((action - data.action) ** 2, axis=-1)
            return jnp.mean(self.actor_cloning_weight * distance - gain)

        due = state.step % self.policy_delay == 0
        state, improved = improve_actor_when_due(self, state, loss, due=due, target_follows="old")
        return state, {**learned, **improved}

    def _target(self, state: DeterministicActorCritic, data: Transitions, key: PRNGKeyArray):
        if data.next_action is None:
            raise SpecificationError(
                "ReBRAC needs the action logged in the next state (next_action), which this source "
                "does not give: replay a dataset of whole episodes, or use TD3BC"
            )
        next_action, value = smoothed_next_action(self, state, data, key=key)
        distance = jnp.sum((next_action - data.next_action) ** 2, axis=-1)
        penalty = self.critic_cloning_weight * jnp.where(data.truncated, 0.0, distance)
        return backup(data.reward, self.discount, data.terminal, value - penalty)

    def act(
        self,
        state: DeterministicActorCritic,
        observation: Array,
        *,
        key: PRNGKeyArray,
        explore: bool,
    ):
        observation, noise = state.normaliser(observation), self.exploration_noise
        return choose_near(state.actor, observation, key=key, explore=explore, noise=noise), ()

    def value(self, state: DeterministicActorCritic, observation: Array, action: Array) -> Array:
        return lowest_value(state, observation, action)

    def parts(self, state: DeterministicActorCritic) -> ActorCriticParts:
        return parts_of(state)
