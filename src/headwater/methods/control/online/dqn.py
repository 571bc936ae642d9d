"""Deep Q-network."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import (
    choice,
    choice_or_positive,
    flag,
    integer,
    non_negative,
    positive,
    share,
    sizes,
)
from headwater.core.method import (
    AbstractLikelihood,
    AbstractMethod,
    AbstractPolicy,
    AbstractValue,
    AbstractWarmStart,
    Agent,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.critics import Critic
from headwater.ops.control.exploration import falling_exploration
from headwater.ops.control.regression import huber
from headwater.parts.deep_q_network import (
    DeepQNetwork,
    act_epsilon_greedily,
    begin_deep_q,
    deep_q_target,
    epsilon_greedy_likelihood,
    improve_deep_q,
)
from headwater.parts.logged_values import InitialLevel, RewardScale


class DQN(
    AbstractMethod[Spaces, Transitions, DeepQNetwork],
    AbstractPolicy[DeepQNetwork],
    AbstractValue[DeepQNetwork],
    AbstractLikelihood[DeepQNetwork],
    AbstractWarmStart[Spaces, DeepQNetwork],
):
    r"""Deep Q-learning with double targets. Discrete only.

    $y = r + \gamma(1-d)\bar Q(s', \arg\max_{a'} Q(s',a'))$ and
    $L_Q = E\,\mathrm{huber}(Q(s,a) - y)$. Every `target_update_interval` updates
    $\bar Q \leftarrow \bar Q + \rho(Q - \bar Q)$. Explores by taking a uniformly random action with
    a probability ε that falls linearly with the number of updates.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `learning_rate`: of Adam.
    - `polyak_rate`: ρ; 1 copies the critic, smaller averages (then with `target_update_interval`
      1).
    - `initial_exploration_rate`, `final_exploration_rate`: ε before the first update and in the
      end.
    - `exploration_decay_updates`: updates over which ε falls.
    - `target_update_interval`: updates between changes of the target.
    - `double_q`: let the critic choose the next action and the target judge it; the target does
      both if not, as in the first DQN.
    - `normalise_observations`: standardise with the data's mean and deviation, where there is data.
    - `reward_scale`: what rewards are multiplied by: one over their standard deviation in the log,
      1000 over the range of logged returns (`return_range`), or a number.
    - `initial_level`: whether values start at the level of the log or at 0.
    - `hidden_sizes`: hidden layers.

    **Reference:** van Hasselt, Guez, Silver (2016), arXiv:1509.06461; Mnih et al. (2015).

    **Differences from the paper:** fed from a log, rewards are divided by their standard deviation
    and values start at the level of the log (see `parts/logged_values.py`); observations are
    vectors, so the network is fully connected, and optimiser and schedules are those of
    Schweighofer et al. (2022, arXiv:2111.04714) for such tasks: Adam, a target copied every 100
    updates, ε from 1 to 0.01 within 1,000 updates.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "vanhasselt2016deep",
        summary="Q-learning with a network, a slow target and ε-greedy exploration",
    )

    discount: float = share(0.99)
    learning_rate: float = non_negative(1e-4)
    polyak_rate: float = share(1.0)
    initial_exploration_rate: float = share(1.0)
    final_exploration_rate: float = share(0.01)
    exploration_decay_updates: float = positive(1000.0)
    target_update_interval: int = integer(100, static=False)
    double_q: bool = flag(True)
    normalise_observations: bool = flag(False)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> DeepQNetwork:
        problem.require_discrete("DQN")
        return begin_deep_q(self, problem, key=key)

    def update(self, state: DeepQNetwork, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        target = deep_q_target(self, state, data)

        def loss(critic: Critic):
            prediction = critic(data.observation, data.action)
            error = jnp.mean(huber(prediction - target))
            return error, {"critic_loss": error, "q": jnp.mean(prediction)}

        state, metrics = improve_deep_q(self, state, loss)
        return state, {**metrics, "exploration": self._epsilon(state)}

    def act(self, state: DeepQNetwork, observation: Array, *, key: PRNGKeyArray, explore: bool):
        epsilon = self._epsilon(state)
        return act_epsilon_greedily(state, observation, epsilon, key=key, explore=explore), ()

    def value(self, state: DeepQNetwork, observation: Array, action: Array) -> Array:
        q = state.critic(state.normaliser(observation), action)
        return state.normaliser.in_units_of_reward(q)

    def log_probability(self, state: DeepQNetwork, observation: Array, action: Array) -> Array:
        return epsilon_greedy_likelihood(state, observation, action, self._epsilon(state))

    def warm_start(
        self, learned: Agent, problem: Spaces, *, key: PRNGKeyArray
    ) -> DeepQNetwork | None:
        state = learned.state
        if not isinstance(state, DeepQNetwork):
            return None
        # What was learned is not to be thrown over by random actions: exploration is over.
        step = jnp.maximum(state.step, jnp.asarray(1_000_000, state.step.dtype))
        return dataclasses.replace(state, step=step)

    def _epsilon(self, state: DeepQNetwork) -> Float[Array, ""]:
        rates = self.initial_exploration_rate, self.final_exploration_rate
        return falling_exploration(state.step, *rates, self.exploration_decay_updates)
