"""Deep deterministic policy gradient."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, non_negative, share, sizes
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
from headwater.networks.control.critics import critics
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup
from headwater.parts.deterministic_actor_critic import (
    DeterministicActorCritic,
    UnsmoothedSettings,
    begin_deterministic,
    first_value_loss,
    improve_actor_when_due,
    lowest_value,
    parts_of,
    regress_critics,
    smoothed_next_action,
)


class DDPG(
    AbstractMethod[Spaces, Transitions, DeterministicActorCritic],
    AbstractPolicy[DeterministicActorCritic],
    AbstractValue[DeterministicActorCritic],
    AbstractActorCritic[DeterministicActorCritic],
):
    r"""DDPG: an actor that climbs the value of its action, as a critic learns it. Continuous only.

    $y = r + \gamma(1-d)\,\bar Q(s', \bar\pi(s'))$; $L_Q = E(y - Q(s,a))^2$; then
    $L_\pi = -E\,Q(s,\pi(s))$, and both targets move: all three in each update. `TD3` without its
    three changes (a second critic, a delayed actor, noise on the target's action).

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `actor_learning_rate`, `critic_learning_rate`: of Adam.
    - `polyak_rate`: Polyak rate of the targets.
    - `exploration_noise`: deviation of the noise when acting to explore.
    - `normalise_observations`: standardise with the data's mean and deviation, where there is data.
    - `hidden_sizes`: hidden layers of both networks.

    **Reference:** Lillicrap et al. (2016), arXiv:1509.02971.

    **Differences from the paper:** noise is normal and drawn anew in each step where the paper's
    drifts (an Ornstein–Uhlenbeck process); no batch norm and no decay of the critic's weights; the
    action joins the critic's first layer and not its second; the last layers begin as wide as the
    others.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "lillicrap2016continuous",
        summary="off-policy actor-critic with a deterministic actor that climbs one critic",
        parents=("DQN",),
    )

    discount: float = share(0.99)
    actor_learning_rate: float = non_negative(1e-4)
    critic_learning_rate: float = non_negative(1e-3)
    polyak_rate: float = share(0.001)
    exploration_noise: float = non_negative(0.1)
    normalise_observations: bool = flag(False)
    hidden_sizes: tuple[int, ...] = sizes((400, 300))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> DeterministicActorCritic:
        problem.require_continuous("DDPG")
        actor_key, critic_key = jax.random.split(key)
        actor = DeterministicActor(problem, self.hidden_sizes, key=actor_key)
        members = critics(problem, self.hidden_sizes, 1, key=critic_key)
        normaliser = Normaliser(problem, self.normalise_observations)
        return begin_deterministic(actor, members, normaliser)

    def update(self, state: DeterministicActorCritic, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        of_critic = UnsmoothedSettings(self.critic_learning_rate, self.polyak_rate)
        of_actor = UnsmoothedSettings(self.actor_learning_rate, self.polyak_rate)
        _, next_value = smoothed_next_action(of_critic, state, data, key=key)
        target = backup(data.reward, self.discount, data.terminal, next_value)
        state, learned = regress_critics(of_critic, state, data, target)
        loss, due = first_value_loss(state, data.observation), jnp.ones((), bool)
        state, improved = improve_actor_when_due(of_actor, state, loss, due=due)
        return state, {**learned, **improved}

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
