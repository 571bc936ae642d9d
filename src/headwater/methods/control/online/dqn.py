"""Deep Q-network."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, positive, share, sizes
from headwater.core.method import (
    AbstractLikelihood,
    AbstractMethod,
    AbstractPolicy,
    AbstractValue,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.critics import Critic
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup, double_value
from headwater.ops.control.descend import begin, descend, polyak
from headwater.ops.control.exploration import epsilon_greedy, epsilon_greedy_log_probability, greedy
from headwater.ops.control.regression import huber


class DQNState(eqx.Module):
    """The critic, its target, optimiser moments and the scale of observations, if it is known."""

    critic: Critic
    target: Critic
    optimiser: optax.OptState
    normaliser: Normaliser
    step: Int[Array, ""]


class DQN(
    AbstractMethod[Spaces, Transitions, DQNState],
    AbstractPolicy[DQNState],
    AbstractValue[DQNState],
    AbstractLikelihood[DQNState],
):
    r"""Deep Q-learning with double targets. Discrete only.

    $y = r + \gamma(1-d)\bar Q(s', \arg\max_{a'} Q(s',a'))$ and
    $L_Q = E\,\mathrm{huber}(Q(s,a) - y)$. Every `target_period` updates
    $\bar Q \leftarrow \bar Q + \rho(Q - \bar Q)$. Explores by taking a uniformly random action with
    a probability ε that falls linearly with the number of updates.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `learning_rate`: of Adam.
    - `target_rate`: ρ; 1 copies the critic, smaller averages (then with `target_period` 1).
    - `initial_exploration`, `final_exploration`: ε before the first update and in the end.
    - `exploration_updates`: updates over which ε falls.
    - `target_period`: updates between changes of the target.
    - `double`: let the critic choose the next action and the target judge it; the target does both
      if not, as in the first DQN.
    - `normalise_observations`: standardise with the data's mean and deviation, where there is data.
    - `widths`: hidden layers.

    **Reference:** van Hasselt, Guez, Silver (2016), arXiv:1509.06461; Mnih et al. (2015).

    **Differences from the paper:** observations are vectors, so the network is fully connected, and
    optimiser and schedules are those of Schweighofer et al. (2022, arXiv:2111.04714) for such
    tasks: Adam, a target copied every 100 updates, ε from 1 to 0.01 within 1,000 updates.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "vanhasselt2016deep",
        summary="Q-learning with a network, a slow target and ε-greedy exploration",
    )

    discount: float = share(0.99)
    learning_rate: float = non_negative(1e-4)
    target_rate: float = share(1.0)
    initial_exploration: float = share(1.0)
    final_exploration: float = share(0.01)
    exploration_updates: float = positive(1000.0)
    target_period: int = integer(100, static=False)
    double: bool = flag(True)
    normalise_observations: bool = flag(False)
    widths: tuple[int, ...] = sizes((256, 256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> DQNState:
        problem.require_discrete("DQN")
        critic = Critic(problem, self.widths, key=key)
        return DQNState(
            critic=critic,
            target=critic,
            optimiser=begin(optax.adam(self.learning_rate), critic),
            normaliser=Normaliser(problem, self.normalise_observations),
            step=jnp.zeros((), jnp.int32),
        )

    def update(self, state: DQNState, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        judging = state.target.values(data.next_observation)
        choosing = state.critic.values(data.next_observation) if self.double else judging
        next_value = double_value(choosing, judging)
        target = backup(data.reward, self.discount, data.terminal, next_value)

        def loss(critic: Critic):
            prediction = critic(data.observation, data.action)
            return jnp.mean(huber(prediction - target)), jnp.mean(prediction)

        (critic_loss, q), gradients = jax.value_and_grad(loss, has_aux=True)(state.critic)
        critic, optimiser = descend(
            optax.adam(self.learning_rate), gradients, state.optimiser, state.critic
        )
        step = state.step + 1
        moved = jax.lax.cond(
            step % self.target_period == 0,
            lambda: polyak(state.target, critic, self.target_rate),
            lambda: state.target,
        )
        state = DQNState(critic, moved, optimiser, state.normaliser, step)
        return state, {"critic_loss": critic_loss, "q": q, "exploration": self._epsilon(state)}

    def act(self, state: DQNState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        values = state.critic.values(state.normaliser(observation))
        if not explore:
            return greedy(values), ()
        return epsilon_greedy(values, self._epsilon(state), key=key), ()

    def value(self, state: DQNState, observation: Array, action: Array) -> Array:
        return state.critic(state.normaliser(observation), action)

    def log_probability(self, state: DQNState, observation: Array, action: Array) -> Array:
        values = state.critic.values(state.normaliser(observation))
        return epsilon_greedy_log_probability(values, action, self._epsilon(state))

    def _epsilon(self, state: DQNState) -> Float[Array, ""]:
        progress = jnp.minimum(state.step / self.exploration_updates, 1.0)
        change = self.final_exploration - self.initial_exploration
        return self.initial_exploration + progress * change
