"""A network that learns where actions lead, one entry of the observation beside the other."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import non_negative, sizes
from headwater.core.method import AbstractDynamics, AbstractMethod, Info
from headwater.core.records import Action, ModelPrediction, ModelStep, Transitions
from headwater.core.spaces import Spaces
from headwater.networks.mlp import MLP
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin, descend
from headwater.parts.logged_values import scale_of_rewards


class FactoredNetworks(eqx.Module):
    """One network for what is observed next, one for the reward, and one for the end."""

    following: MLP
    reward: MLP
    end: MLP

    def __init__(self, problem: Spaces, hidden_sizes: tuple[int, ...], *, key: PRNGKeyArray):
        inputs = problem.observation_size + problem.action_size
        keys = jax.random.split(key, 3)
        self.following = MLP(inputs, problem.observation_size, hidden_sizes, key=keys[0])
        self.reward = MLP(inputs, 1, hidden_sizes, key=keys[1])
        self.end = MLP(inputs, 1, hidden_sizes, key=keys[2])

    def __call__(
        self, observation: Float[Array, "*batch observation"], action: Action
    ) -> tuple[Float[Array, "*batch observation"], Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Log-odds or changes of the next entries, the reward, and the log-odds of an end."""
        if jnp.issubdtype(action.dtype, jnp.integer):
            actions = self.end.weights[0].shape[0] - observation.shape[-1]
            action = jax.nn.one_hot(action, actions)
        seen = jnp.concatenate([observation, action], axis=-1)
        return self.following(seen), self.reward(seen)[..., 0], self.end(seen)[..., 0]


class FactoredDynamicsState(eqx.Module):
    """The networks, moments of Adam, and units.

    **Arguments:** `bits`: which entries of observations are bits; `ended`: whether anything was
    terminal so far; if nothing was, nothing is.
    """

    networks: FactoredNetworks
    optimiser: optax.OptState
    normaliser: Normaliser
    bits: Bool[Array, " observation"]
    ended: Bool[Array, ""]


class FactoredDynamics(
    AbstractMethod[Spaces, Transitions, FactoredDynamicsState],
    AbstractDynamics[FactoredDynamicsState],
):
    r"""Learns a model of the process whose next entries are independent, given the step.

    Entries whose space is [0, 1] are bits, with log-odds $\ell_i(s, a)$; of the others, the mean
    change is learned. The loss is $\sum_i -\log p(s'_i \mid s, a) + \tfrac12 (\hat r - r)^2 -
    \log p(d \mid s, a)$, with normal distributions of variance one, in standard deviations of the
    log where there is one, for numbers. A step draws each bit, and whether anything follows, and
    takes the means of numbers and of the reward. Where each entry changes with a few others only,
    such a model is right in states of which nothing was seen but their parts.

    **Arguments:**

    - `learning_rate`: of Adam.
    - `hidden_sizes`: hidden layers.

    **Reference:** Young, Ramesh, Kirsch, Schmidhuber (2023), arXiv:2211.02222, the simple model.

    **Differences from the paper:** observations may hold bits and numbers side by side; a
    step draws bits by their probabilities, where the authors' code rounds log-odds; until something
    has ended, nothing does.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "young2023benefits",
        summary="learns where actions lead, each entry of the observation by itself",
    )

    learning_rate: float = non_negative(1e-3)
    hidden_sizes: tuple[int, ...] = sizes((200, 200, 200))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> FactoredDynamicsState:
        networks = FactoredNetworks(problem, self.hidden_sizes, key=key)
        space, statistics = problem.observation, problem.statistics
        bits = jnp.asarray((np.asarray(space.low) == 0.0) & (np.asarray(space.high) == 1.0))
        scale = 1.0 if statistics is None else scale_of_rewards(statistics, "deviation")
        units = Normaliser(problem, True, scale)
        # Bits stay as they are.
        plain = jnp.where(bits, 0.0, units.mean), jnp.where(bits, 1.0, units.std)
        units = eqx.tree_at(lambda n: (n.mean, n.std), units, plain)
        ended = False if statistics is None else statistics.terminal_share > 0.0
        return FactoredDynamicsState(
            networks=networks,
            optimiser=begin(optax.adam(self.learning_rate), networks),
            normaliser=units,
            bits=bits,
            ended=jnp.asarray(ended, bool),
        )

    def update(self, state: FactoredDynamicsState, data: Transitions, *, key: PRNGKeyArray):
        rows = state.normaliser.transitions(data)
        known = ~rows.terminal[:, None]
        # What stands behind a terminal step is not looked at.
        bit = jnp.where(known, jnp.clip(rows.next_observation, 0.0, 1.0), 0.0)
        change = jnp.where(known, rows.next_observation - rows.observation, 0.0)
        end = rows.terminal.astype(jnp.float32)

        def loss(networks: FactoredNetworks):
            following, reward, ends = networks(rows.observation, rows.action)
            odds = optax.sigmoid_binary_cross_entropy(following, bit)
            numbers = 0.5 * (following - change) ** 2
            entries = jnp.where(known, jnp.where(state.bits[None], odds, numbers), 0.0)
            earned = 0.5 * (reward - rows.reward) ** 2
            ending = optax.sigmoid_binary_cross_entropy(ends, end)
            total = jnp.mean(jnp.sum(entries, axis=-1) + earned + ending)
            return total, {"loss": total, "reward_error": 2.0 * jnp.mean(earned)}

        gradients, metrics = jax.grad(loss, has_aux=True)(state.networks)
        networks, optimiser = descend(
            optax.adam(self.learning_rate), gradients, state.optimiser, state.networks
        )
        ended = state.ended | jnp.any(data.terminal)
        learned = FactoredDynamicsState(networks, optimiser, state.normaliser, state.bits, ended)
        return learned, metrics

    def predict(
        self, state: FactoredDynamicsState, observation: Array, action: Array
    ) -> ModelPrediction:
        chance, number, reward, end = self._answer(state, observation, action)
        # A number's variance is not learned, and there is but one network.
        spread = jnp.sqrt(jnp.sum(jnp.where(state.bits, chance * (1.0 - chance), 0.0)))
        return ModelPrediction(
            next_observation=jnp.where(state.bits, chance, number),
            reward=reward,
            terminal=(end > 0.5) & state.ended,
            spread=spread,
            disagreement=jnp.zeros(()),
            beyond=jnp.zeros((), bool),
        )

    def step(
        self, state: FactoredDynamicsState, observation: Array, action: Array, *, key: PRNGKeyArray
    ) -> ModelStep:
        chance, number, reward, end = self._answer(state, observation, action)
        drawn = jax.random.uniform(key, (observation.shape[-1] + 1,))
        bit = (drawn[:-1] < chance).astype(jnp.float32)
        following = jnp.where(state.bits, bit, number)
        return ModelStep(following, reward, (drawn[-1] < end) & state.ended)

    def _answer(self, state: FactoredDynamicsState, observation: Array, action: Array):
        """Chances that entries are one, these as numbers, the reward, and the chance of an end."""
        units = state.normaliser
        following, reward, end = state.networks(units(observation), action)
        number = observation + following * units.std
        chance = jax.nn.sigmoid(following)
        return chance, number, units.in_units_of_reward(reward), jax.nn.sigmoid(end)
