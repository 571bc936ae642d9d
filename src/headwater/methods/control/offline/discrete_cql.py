"""Conservative Q-learning for discrete actions."""

from typing import ClassVar

import jax
import jax.numpy as jnp
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
    AbstractLikelihood,
    AbstractMethod,
    AbstractPolicy,
    AbstractValue,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.critics import Critic
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


class DiscreteCQL(
    AbstractMethod[Spaces, Transitions, DeepQNetwork],
    AbstractPolicy[DeepQNetwork],
    AbstractValue[DeepQNetwork],
    AbstractLikelihood[DeepQNetwork],
):
    r"""CQL on double Q-learning: lowers the values of actions not logged. Discrete only.

    $y = r + \gamma(1-d)\bar Q(s', \arg\max_{a'} Q(s',a'))$ and
    $L_Q = E\,\mathrm{huber}(Q(s,a) - y) + \alpha E[\log\sum_b e^{Q(s,b)} - Q(s,a)]$. Every
    `target_update_interval` updates $\bar Q \leftarrow \bar Q + \rho(Q - \bar Q)$.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `conservative_weight`: α, in units of value, which are standard deviations of a logged reward
      unless `reward_scale` says otherwise; 0 is deep Q-learning. With 1 it hardly rises above
      noisy logs of one-step episodes.
    - `learning_rate`: of Adam.
    - `polyak_rate`: ρ; 1 copies the critic, smaller averages (then with `target_update_interval`
      1).
    - `exploration_rate`: probability of a uniformly random action when acting to explore.
    - `target_update_interval`: updates between changes of the target.
    - `double_q`: let the critic choose the next action and the target judge it.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `reward_scale`: what rewards are multiplied by: one over their standard deviation in the log,
      1000 over the range of logged returns (`return_range`), or a number.
    - `initial_level`: whether values start at the level of the log or at 0.
    - `hidden_sizes`: hidden layers.

    **Reference:** Kumar, Zhou, Tucker, Levine (2020), arXiv:2006.04779.

    **Differences from the paper:** rewards are divided by their standard deviation and values start
    at the level of the log (see `parts/logged_values.py`); the value learned is a mean and not
    a set of quantiles, as in d3rlpy; network, optimiser and target period are those of
    Schweighofer et al. (2022, arXiv:2111.04714), who use α = 0.1 on classic control.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "kumar2020conservative",
        summary="deep Q-learning that pushes down the values of actions not logged",
        parents=("DQN",),
    )

    discount: float = share(0.99)
    conservative_weight: float = non_negative(0.1)
    learning_rate: float = non_negative(1e-4)
    polyak_rate: float = share(1.0)
    exploration_rate: float = share(0.05)
    target_update_interval: int = integer(100, static=False)
    double_q: bool = flag(True)
    normalise_observations: bool = flag(True)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> DeepQNetwork:
        problem.require_discrete("DiscreteCQL")
        return begin_deep_q(self, problem, key=key)

    def update(self, state: DeepQNetwork, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        target = deep_q_target(self, state, data)

        def loss(critic: Critic):
            values = critic.values(data.observation)
            prediction = jnp.take_along_axis(values, data.action[..., None], axis=-1)[..., 0]
            critic_loss = jnp.mean(huber(prediction - target))
            gap = jnp.mean(jax.nn.logsumexp(values, axis=-1) - prediction)
            return critic_loss + self.conservative_weight * gap, {
                "critic_loss": critic_loss,
                "conservative_gap": gap,
                "q": jnp.mean(prediction),
            }

        return improve_deep_q(self, state, loss)

    def act(self, state: DeepQNetwork, observation: Array, *, key: PRNGKeyArray, explore: bool):
        epsilon = self.exploration_rate
        return act_epsilon_greedily(state, observation, epsilon, key=key, explore=explore), ()

    def value(self, state: DeepQNetwork, observation: Array, action: Array) -> Array:
        q = state.critic(state.normaliser(observation), action)
        return state.normaliser.in_units_of_reward(q)

    def log_probability(self, state: DeepQNetwork, observation: Array, action: Array) -> Array:
        return epsilon_greedy_likelihood(state, observation, action, self.exploration_rate)
