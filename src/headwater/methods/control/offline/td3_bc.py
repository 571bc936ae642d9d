"""TD3 with behavioural cloning."""

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
from headwater.parts.deterministic_actor_critic import (
    DeterministicActorCritic,
    begin_deterministic,
    lowest_value,
    parts_of,
    step_held_to_actions,
)
from headwater.parts.logged_values import InitialLevel, RewardScale, begin_values


class TD3BC(
    AbstractMethod[Spaces, Transitions, DeterministicActorCritic],
    AbstractPolicy[DeterministicActorCritic],
    AbstractValue[DeterministicActorCritic],
    AbstractActorCritic[DeterministicActorCritic],
):
    r"""TD3+BC: an actor that climbs the critic and is held to the logged actions. Continuous only.

    $y = r + \gamma(1-d)\min_i \bar Q_i(s', \bar\pi(s') + \epsilon)$ with
    $\epsilon = \mathrm{clip}(N(0,\sigma^2), \pm c)$; $L_Q = \sum_i E(y - Q_i(s,a))^2$. Every
    second update, $L_\pi = -\lambda E Q_1(s,\pi(s)) + E\,\mathrm{mean}_j(\pi_j(s) - a_j)^2$ with
    $\lambda = \alpha / E|Q_1(s,\pi(s))|$ held constant, and both targets move.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `alpha`: α; 0 is behavioural cloning, larger trusts the critic more.
    - `target_policy_noise`, `target_noise_clip`: σ and c of the noise on the target's action.
    - `learning_rate`: of Adam, for actor and critics.
    - `polyak_rate`: Polyak rate of the targets.
    - `exploration_noise`: deviation of the noise when acting to explore.
    - `policy_delay`: updates of the critics for each of the actor and the targets.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `reward_scale`: what rewards are multiplied by: one over their standard deviation in the log,
      1000 over the range of logged returns (`return_range`), or a number.
    - `initial_level`: whether values start at the level of the log or at 0.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Fujimoto, Gu (2021), arXiv:2106.06860.

    **Differences from the paper:** rewards are divided by their standard deviation and values start
    at the level of the log (see `parts/logged_values.py`); λ is bounded, so that values of zero
    do not divide by zero.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "fujimoto2021minimalist",
        summary="TD3 whose actor is also regressed on the logged actions",
        parents=("BC",),
    )

    discount: float = share(0.99)
    alpha: float = non_negative(2.5)
    target_policy_noise: float = non_negative(0.2)
    target_noise_clip: float = non_negative(0.5)
    learning_rate: float = non_negative(3e-4)
    polyak_rate: float = share(0.005)
    exploration_noise: float = non_negative(0.1)
    policy_delay: int = integer(2, static=False)
    normalise_observations: bool = flag(True)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> DeterministicActorCritic:
        problem.require_continuous("TD3BC")
        actor_key, critic_key = jax.random.split(key)
        actor = DeterministicActor(problem, self.hidden_sizes, key=actor_key)
        twins = critics(problem, self.hidden_sizes, 2, key=critic_key)
        normaliser, level = begin_values(self, problem)
        return begin_deterministic(actor, raised(twins, level), normaliser)

    def update(self, state: DeterministicActorCritic, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        return step_held_to_actions(self, state, data, lambda _: data.action, key=key)

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
