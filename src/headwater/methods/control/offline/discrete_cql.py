"""Conservative Q-learning for discrete actions."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, share, sizes
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


class DiscreteCQLState(eqx.Module):
    """The critic, its target, optimiser moments and the scale of observations from the data."""

    critic: Critic
    target: Critic
    optimiser: optax.OptState
    normaliser: Normaliser
    step: Int[Array, ""]


class DiscreteCQL(
    AbstractMethod[Spaces, Transitions, DiscreteCQLState],
    AbstractPolicy[DiscreteCQLState],
    AbstractValue[DiscreteCQLState],
    AbstractLikelihood[DiscreteCQLState],
):
    r"""CQL on double Q-learning: lowers the values of actions not logged. Discrete only.

    $y = r + \gamma(1-d)\bar Q(s', \arg\max_{a'} Q(s',a'))$ and
    $L_Q = E\,\mathrm{huber}(Q(s,a) - y) + \alpha E[\log\sum_b e^{Q(s,b)} - Q(s,a)]$. Every
    `target_period` updates $\bar Q \leftarrow \bar Q + \rho(Q - \bar Q)$.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `conservative_weight`: α, in units of value; 0 is deep Q-learning.
    - `learning_rate`: of Adam.
    - `target_rate`: ρ; 1 copies the critic, smaller averages (then with `target_period` 1).
    - `exploration`: probability of a uniformly random action when acting to explore.
    - `target_period`: updates between changes of the target.
    - `double`: let the critic choose the next action and the target judge it.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `widths`: hidden layers.

    **Reference:** Kumar, Zhou, Tucker, Levine (2020), arXiv:2006.04779.

    **Differences from the paper:** the value learned is a mean and not a set of quantiles, as in
    d3rlpy; network, optimiser and target period are those of Schweighofer et al. (2022,
    arXiv:2111.04714), who use α = 0.1 on classic control.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "kumar2020conservative",
        summary="deep Q-learning that pushes down the values of actions not logged",
        parents=("DQN",),
    )

    discount: float = share(0.99)
    conservative_weight: float = non_negative(1.0)
    learning_rate: float = non_negative(1e-4)
    target_rate: float = share(1.0)
    exploration: float = share(0.05)
    target_period: int = integer(100, static=False)
    double: bool = flag(True)
    normalise_observations: bool = flag(True)
    widths: tuple[int, ...] = sizes((256, 256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> DiscreteCQLState:
        problem.require_discrete("DiscreteCQL")
        critic = Critic(problem, self.widths, key=key)
        return DiscreteCQLState(
            critic=critic,
            target=critic,
            optimiser=begin(optax.adam(self.learning_rate), critic),
            normaliser=Normaliser(problem, self.normalise_observations),
            step=jnp.zeros((), jnp.int32),
        )

    def update(self, state: DiscreteCQLState, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        judging = state.target.values(data.next_observation)
        choosing = state.critic.values(data.next_observation) if self.double else judging
        next_value = double_value(choosing, judging)
        target = backup(data.reward, self.discount, data.terminal, next_value)

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

        gradients, metrics = jax.grad(loss, has_aux=True)(state.critic)
        critic, optimiser = descend(
            optax.adam(self.learning_rate), gradients, state.optimiser, state.critic
        )
        step = state.step + 1
        moved = jax.lax.cond(
            step % self.target_period == 0,
            lambda: polyak(state.target, critic, self.target_rate),
            lambda: state.target,
        )
        return DiscreteCQLState(critic, moved, optimiser, state.normaliser, step), metrics

    def act(self, state: DiscreteCQLState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        values = state.critic.values(state.normaliser(observation))
        if not explore:
            return greedy(values), ()
        return epsilon_greedy(values, self.exploration, key=key), ()

    def value(self, state: DiscreteCQLState, observation: Array, action: Array) -> Array:
        return state.critic(state.normaliser(observation), action)

    def log_probability(self, state: DiscreteCQLState, observation: Array, action: Array) -> Array:
        values = state.critic.values(state.normaliser(observation))
        return epsilon_greedy_log_probability(values, action, self.exploration)
