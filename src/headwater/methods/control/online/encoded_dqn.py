"""Linear deep Q-learning on features that were learned before."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
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
    AbstractEncoding,
    AbstractLikelihood,
    AbstractMethod,
    AbstractPolicy,
    AbstractValue,
    AbstractWarmStart,
    Agent,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Spaces
from headwater.networks.control.critics import Critic, raised
from headwater.networks.control.encoders import Encoder, Encoding
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.exploration import falling_exploration
from headwater.ops.control.gradient_steps import begin
from headwater.ops.control.regression import huber
from headwater.parts.deep_q_network import (
    DeepQNetwork,
    act_epsilon_greedily,
    deep_q_target,
    epsilon_greedy_likelihood,
    improve_deep_q,
)
from headwater.parts.logged_values import InitialLevel, RewardScale, begin_values


class EncodedDQNState(eqx.Module):
    """The features, which stay as they are, and the values that are linear in them."""

    encoding: Encoding
    values: DeepQNetwork


class EncodedDQN(
    AbstractMethod[Spaces, Transitions, EncodedDQNState],
    AbstractPolicy[EncodedDQNState],
    AbstractValue[EncodedDQNState],
    AbstractLikelihood[EncodedDQNState],
    AbstractWarmStart[Spaces, EncodedDQNState],
):
    r"""Deep Q-learning with values linear in features $\phi(s)$ that another method learned.

    $Q(s,a) = w_a \cdot \phi(s) + b_a$, learned as `DQN` does, while $\phi$ stays as it is. With
    features in which values are nearly linear, few interactions with the reward are enough. `PVN`
    and `InverseDynamicsPretraining` learn features; without one before it, they are random.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `embedding_size`: components of $\phi$ where none was learned before.
    - `learning_rate`: of Adam.
    - `polyak_rate`: ρ; 1 copies the critic, smaller averages (then with `target_update_interval`
      1).
    - `initial_exploration_rate`, `final_exploration_rate`: ε before the first update and in the
      end.
    - `exploration_decay_updates`: updates over which ε falls.
    - `target_update_interval`: updates between changes of the target.
    - `double_q`: let the critic choose the next action and the target judge it.
    - `normalise_observations`: where no features were learned before: standardise with the data's
      mean and deviation, where there is data.
    - `reward_scale`: what rewards are multiplied by: one over their standard deviation in the log,
      1000 over the range of logged returns (`return_range`), or a number.
    - `initial_level`: whether values start at the level of the log or at 0.
    - `hidden_sizes`: hidden layers of features that were not learned before.

    **Reference:** Farebrother et al. (2023), arXiv:2304.12567; van Hasselt, Guez, Silver (2016),
    arXiv:1509.06461.

    **Differences from the paper:** targets of one step, not of five; optimiser and schedules are
    those of `DQN`. Exploration falls as from nothing: features know no reward.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "farebrother2023protovalue",
        summary="Q-learning linear in features that another method learned",
        parents=("DQN", "PVN"),
    )

    discount: float = share(0.99)
    embedding_size: int = integer(64)
    learning_rate: float = non_negative(1e-3)
    polyak_rate: float = share(1.0)
    initial_exploration_rate: float = share(1.0)
    final_exploration_rate: float = share(0.01)
    exploration_decay_updates: float = positive(1000.0)
    target_update_interval: int = integer(100, static=False)
    double_q: bool = flag(True)
    normalise_observations: bool = flag(False)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> EncodedDQNState:
        problem.require_discrete("EncodedDQN")
        encoder_key, key = jax.random.split(key)
        encoder = Encoder(
            problem.observation_size, self.embedding_size, self.hidden_sizes, key=encoder_key
        )
        encoding = Encoding(encoder, Normaliser(problem, self.normalise_observations))
        return self._begin(encoding, problem, key)

    def warm_start(
        self, learned: Agent, problem: Spaces, *, key: PRNGKeyArray
    ) -> EncodedDQNState | None:
        if not isinstance(learned.method, AbstractEncoding) or not problem.discrete:
            return None
        return self._begin(learned.method.encoding(learned.state), problem, key)

    def update(self, state: EncodedDQNState, data: Transitions, *, key: PRNGKeyArray):
        data = dataclasses.replace(
            data,
            observation=state.encoding(data.observation),
            next_observation=state.encoding(data.next_observation),
        )
        data = state.values.normaliser.transitions(data)
        target = deep_q_target(self, state.values, data)

        def loss(critic: Critic):
            prediction = critic(data.observation, data.action)
            error = jnp.mean(huber(prediction - target))
            return error, {"critic_loss": error, "q": jnp.mean(prediction)}

        values, metrics = improve_deep_q(self, state.values, loss)
        metrics = {**metrics, "exploration": self._epsilon(values)}
        return EncodedDQNState(state.encoding, values), metrics

    def act(self, state: EncodedDQNState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        features, epsilon = state.encoding(observation), self._epsilon(state.values)
        return act_epsilon_greedily(state.values, features, epsilon, key=key, explore=explore), ()

    def value(self, state: EncodedDQNState, observation: Array, action: Array) -> Array:
        q = state.values.critic(state.encoding(observation), action)
        return state.values.normaliser.in_units_of_reward(q)

    def log_probability(self, state: EncodedDQNState, observation: Array, action: Array) -> Array:
        features, epsilon = state.encoding(observation), self._epsilon(state.values)
        return epsilon_greedy_likelihood(state.values, features, action, epsilon)

    def _begin(self, encoding: Encoding, problem: Spaces, key: PRNGKeyArray) -> EncodedDQNState:
        size = encoding.encoder.network.biases[-1].shape[-1]
        seen = dataclasses.replace(problem, observation=Box((-1.0,) * size, (1.0,) * size))
        of_log, level = begin_values(self, problem)
        critic = raised(Critic(seen, (), key=key), level)
        values = DeepQNetwork(
            critic=critic,
            target=critic,
            optimiser=begin(optax.adam(self.learning_rate), critic),
            # Features are standardised already; rewards are counted as the log says.
            normaliser=Normaliser(seen, False, of_log.reward_scale),
            step=jnp.zeros((), jnp.int32),
        )
        return EncodedDQNState(encoding, values)

    def _epsilon(self, state: DeepQNetwork) -> Float[Array, ""]:
        rates = self.initial_exploration_rate, self.final_exploration_rate
        return falling_exploration(state.step, *rates, self.exploration_decay_updates)
