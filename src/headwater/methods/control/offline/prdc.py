"""Policy regularisation with dataset constraint."""

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
    AbstractWholeLog,
    ActorCriticParts,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import DeterministicActor, choose_near
from headwater.networks.control.critics import critics, raised
from headwater.ops.control.nearest import nearest_rows
from headwater.parts.deterministic_actor_critic import (
    DeterministicActorCritic,
    begin_deterministic,
    lowest_value,
    parts_of,
    step_held_to_actions,
)
from headwater.parts.logged_values import InitialLevel, RewardScale, begin_values


class PRDC(
    AbstractMethod[Spaces, Transitions, DeterministicActorCritic],
    AbstractPolicy[DeterministicActorCritic],
    AbstractValue[DeterministicActorCritic],
    AbstractActorCritic[DeterministicActorCritic],
    AbstractWholeLog,
):
    r"""PRDC: TD3+BC held to the action of the nearest logged pair, in any state. Continuous only.

    $y$ and $L_Q$ are those of TD3+BC. Every second update, with $\hat a$ the action of the pair
    that minimises $\beta^2 \|s - s'\|^2 + \|\pi(s) - a'\|^2$ over the whole log,
    $L_\pi = -\lambda E Q_1(s,\pi(s)) + E\,\mathrm{mean}_j(\pi_j(s) - \hat a_j)^2$ with
    $\lambda = \alpha / E|Q_1(s,\pi(s))|$; both it and $\hat a$ are held constant. For large β
    it is TD3+BC wherever no state was logged twice.

    The search is exact and runs where the networks do; it costs the product of rows of the log,
    rows of the batch and components. The source gives the log with each batch (`WithWholeLog`).

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `alpha`: α; larger trusts the critic more. The paper takes 2.5 for Hopper and Walker2d, 40 for
      HalfCheetah and 7.5 for AntMaze.
    - `state_weight`: β, what a distance between states counts beside one between actions, in
      states as the networks see them. The paper takes 2, and 7.5 for AntMaze.
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

    **Reference:** Ran, Li, Zhang, Zhang, Yu (2023), arXiv:2306.06569.

    **Differences from the paper:** all pairs are compared where the paper asks a tree of them, with
    the same answer; rewards are divided by their standard deviation and values start at the level
    of the log (see `parts/logged_values.py`); λ is bounded, as in TD3BC.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "ran2023policy",
        summary="TD3+BC whose actor is held to the nearest logged pair of state and action",
        parents=("TD3BC",),
    )

    discount: float = share(0.99)
    alpha: float = non_negative(2.5)
    state_weight: float = non_negative(2.0)
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
        problem.require_continuous("PRDC")
        actor_key, critic_key = jax.random.split(key)
        actor = DeterministicActor(problem, self.hidden_sizes, key=actor_key)
        twins = critics(problem, self.hidden_sizes, 2, key=critic_key)
        normaliser, level = begin_values(self, problem)
        return begin_deterministic(actor, raised(twins, level), normaliser)

    def update(self, state: DeterministicActorCritic, data: Transitions, *, key: PRNGKeyArray):
        log = data.whole_log
        if log is None:
            raise SpecificationError(
                "PRDC looks through the whole log in each update (whole_log), which this source "
                "does not give: wrap a replay in WithWholeLog, or use TD3BC"
            )
        data = state.normaliser.transitions(data)

        def beside(observation: Array, action: Array) -> Float[Array, "row component"]:
            return jnp.concatenate([self.state_weight * observation, action], axis=-1)

        def nearest(action: Float[Array, "batch action"]) -> Float[Array, "batch action"]:
            rows = beside(state.normaliser(log.observation), log.action)
            return log.action[nearest_rows(beside(data.observation, action), rows)]

        return step_held_to_actions(self, state, data, nearest, key=key)

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
