"""Twin delayed deep deterministic policy gradient."""

from typing import ClassVar

import jax
from jaxtyping import Array, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, share, sizes
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
    begin_deterministic,
    first_value_loss,
    improve_actor_when_due,
    lowest_value,
    parts_of,
    regress_critics,
    smoothed_next_action,
)


class TD3(
    AbstractMethod[Spaces, Transitions, DeterministicActorCritic],
    AbstractPolicy[DeterministicActorCritic],
    AbstractValue[DeterministicActorCritic],
    AbstractActorCritic[DeterministicActorCritic],
):
    r"""TD3: DDPG whose values are held down by a second critic, delay and noise. Continuous only.

    $y = r + \gamma(1-d)\min_i \bar Q_i(s', \bar\pi(s') + \epsilon)$ with
    $\epsilon = \mathrm{clip}(N(0,\sigma^2), \pm c)$; $L_Q = \sum_i E(y - Q_i(s,a))^2$. Every
    second update, $L_\pi = -E\,Q_1(s,\pi(s))$, and both targets move.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `target_policy_noise`, `target_noise_clip`: σ and c of the noise on the target's action.
    - `learning_rate`: of Adam, for actor and critics.
    - `polyak_rate`: Polyak rate of the targets.
    - `exploration_noise`: deviation of the noise when acting to explore.
    - `policy_delay`: updates of the critics for each of the actor and the targets.
    - `normalise_observations`: standardise with the data's mean and deviation, where there is data.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Fujimoto, van Hoof, Meger (2018), arXiv:1802.09477.

    **Differences from the paper:** the sizes and rates are those of the authors' later code (two
    layers of 256, 3e-4), where the paper has layers of 400 and 300 and 1e-3.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "fujimoto2018addressing",
        summary="DDPG that trusts the lower of two critics, for actions that are smeared out",
        parents=("DDPG",),
    )

    discount: float = share(0.99)
    target_policy_noise: float = non_negative(0.2)
    target_noise_clip: float = non_negative(0.5)
    learning_rate: float = non_negative(3e-4)
    polyak_rate: float = share(0.005)
    exploration_noise: float = non_negative(0.1)
    policy_delay: int = integer(2, static=False)
    normalise_observations: bool = flag(False)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> DeterministicActorCritic:
        problem.require_continuous("TD3")
        actor_key, critic_key = jax.random.split(key)
        actor = DeterministicActor(problem, self.hidden_sizes, key=actor_key)
        members = critics(problem, self.hidden_sizes, 2, key=critic_key)
        normaliser = Normaliser(problem, self.normalise_observations)
        return begin_deterministic(actor, members, normaliser)

    def update(self, state: DeterministicActorCritic, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        _, next_value = smoothed_next_action(self, state, data, key=key)
        target = backup(data.reward, self.discount, data.terminal, next_value)
        state, learned = regress_critics(self, state, data, target)
        loss = first_value_loss(state, data.observation)
        due = (state.step + 1) % self.policy_delay == 0
        state, improved = improve_actor_when_due(self, state, loss, due=due)
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
