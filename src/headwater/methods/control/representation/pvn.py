"""Proto-value networks: features that predict the values of many random rewards."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, share, sizes
from headwater.core.method import AbstractEncoding, AbstractMethod, Info
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.encoders import Encoder, Encoding
from headwater.networks.mlp import MLP, Ensemble
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin, descend, polyak


class ValueHeads(eqx.Module):
    """Features of an observation, and on them the value of each action under each reward.

    **Arguments:** `encoder`; `heads`: linear, with an output for each reward and action.
    """

    encoder: Encoder
    heads: MLP

    def __call__(self, observation: Float[Array, "*batch observation"], rewards: int) -> Array:
        """The values, `[*batch, reward, action]`."""
        found = self.heads(self.encoder(observation))
        return found.reshape(*found.shape[:-1], rewards, -1)


class Indicators(eqx.Module):
    """Random sets of observations: where a random network exceeds a threshold of its own.

    **Arguments:** `networks`: random and never changed, each with several outputs; `biases`: less
    the threshold, of each set.
    """

    networks: Ensemble
    biases: Float[Array, " reward"]

    def __call__(self, observation: Float[Array, "batch observation"]) -> Array:
        """How far each observation is within each set, `[batch, reward]`: negative outside."""
        found = jnp.moveaxis(self.networks(observation), 0, -2)
        found = found.reshape(observation.shape[0], -1)
        return found + jnp.broadcast_to(self.biases, found.shape)


class PVNState(eqx.Module):
    """The values and what lags behind them, the random sets, moments, the scale of observations."""

    values: ValueHeads
    target: ValueHeads
    indicators: Indicators
    optimiser: optax.OptState
    bias_optimiser: optax.OptState
    normaliser: Normaliser
    step: Int[Array, ""]


class PVN(
    AbstractMethod[Spaces, Transitions, PVNState],
    AbstractEncoding[PVNState],
):
    r"""Learns features of observations by predicting the values of many random rewards.

    Reward $k$ is 1 in a random set and 0 outside: $r_k(s) = 1[o_k(s) + b_k > 0]$, with a random
    network $o_k$ that never changes and a threshold that quantile regression moves until the set
    holds a share $q$ of the observations. The values of the uniformly random policy,
    $y_k = r_k(s) + \gamma (1-d)\,\mathrm{mean}_{a'} \bar Q_k(s', a')$ and
    $L = \frac12 E\,\mathrm{mean}_k (Q_k(s,a) - y_k)^2$, are linear in features $\phi(s)$, which is
    all that is kept: values of any reward are nearly linear in them. Sets of many observations are
    random projections of the successor measure, and tell more of it than sets of one. No reward of
    the log is read. `EncodedDQN` then learns a task on the frozen features. Discrete only.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `num_rewards`: how many random rewards there are.
    - `rewards_per_network`: outputs of one random network; it has to divide `num_rewards`.
    - `reward_share`: $q$, the share of observations in each set.
    - `threshold_updates`: in which thresholds move; then they stay.
    - `embedding_size`: components of $\phi$.
    - `learning_rate`: of Adam, for values and thresholds.
    - `polyak_rate`: the target moves this share of the way in each update.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `hidden_sizes`: hidden layers of the encoder and of each random network.

    **Reference:** Farebrother et al. (2023), arXiv:2304.12567.

    **Differences from the paper:** perceptrons on vectors instead of convolutions on images, whose
    features are standardised together and squashed; random networks without a last rectifier, which
    would leave ties at zero that no threshold divides. Values are learned from the first update on,
    not after a warm-up, and thresholds stay after `threshold_updates`: where observations are few,
    the one at the threshold would go in and out of the set for ever. Adam with its usual constants
    and a larger rate than for hundreds of millions of frames (6.25e-5).
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "farebrother2023protovalue",
        summary="features of observations that predict the values of many random rewards",
        parents=("InverseDynamicsPretraining",),
        rewards=False,
    )

    discount: float = share(0.99)
    num_rewards: int = integer(100)
    rewards_per_network: int = integer(10)
    reward_share: float = share(0.01)
    threshold_updates: int = integer(1_000, static=False)
    embedding_size: int = integer(64)
    learning_rate: float = non_negative(1e-3)
    polyak_rate: float = share(0.01)
    normalise_observations: bool = flag(True)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> PVNState:
        problem.require_discrete("PVN")
        networks, left = divmod(self.num_rewards, self.rewards_per_network)
        if left:
            raise SpecificationError(
                f"rewards_per_network = {self.rewards_per_network} does not divide num_rewards = "
                f"{self.num_rewards}: every random network has as many outputs"
            )
        encoder_key, heads_key, indicators_key = jax.random.split(key, 3)
        seen, kept = problem.observation_size, self.embedding_size
        values = ValueHeads(
            Encoder(seen, kept, self.hidden_sizes, key=encoder_key),
            MLP(kept, self.num_rewards * problem.action_size, (), key=heads_key),
        )
        build = lambda key: MLP(seen, self.rewards_per_network, self.hidden_sizes, key=key)
        biases = jnp.zeros(self.num_rewards)
        return PVNState(
            values=values,
            target=values,
            indicators=Indicators(Ensemble(build, networks, key=indicators_key), biases),
            optimiser=begin(self._optimiser, values),
            bias_optimiser=begin(self._optimiser, biases),
            normaliser=Normaliser(problem, self.normalise_observations),
            step=jnp.zeros((), jnp.int32),
        )

    def update(self, state: PVNState, data: Transitions, *, key: PRNGKeyArray):
        observation = state.normaliser(data.observation)
        within = state.indicators(observation)
        reward = (within > 0.0).astype(jnp.float32)
        target = jax.lax.stop_gradient(self._targets(state, data, reward))

        def loss(values: ValueHeads) -> Float[Array, ""]:
            found = values(observation, self.num_rewards)
            chosen = jnp.take_along_axis(found, data.action[:, None, None], -1)[..., 0]
            return 0.5 * jnp.mean((chosen - target) ** 2)

        value, gradients = jax.value_and_grad(loss)(state.values)
        values, optimiser = descend(self._optimiser, gradients, state.optimiser, state.values)
        # The subgradient of E u((1 - q) - 1[u < 0]), u = o + b: at rest where a share q is within.
        slope = jnp.mean((1.0 - self.reward_share) - (within < 0.0), axis=0)
        biases, bias_optimiser = descend(
            self._optimiser, slope, state.bias_optimiser, state.indicators.biases
        )
        moving = state.step < self.threshold_updates
        biases, bias_optimiser = jax.tree.map(
            lambda new, old: jnp.where(moving, new, old),
            (biases, bias_optimiser),
            (state.indicators.biases, state.bias_optimiser),
        )
        state = PVNState(
            values=values,
            target=polyak(state.target, values, self.polyak_rate),
            indicators=Indicators(state.indicators.networks, biases),
            optimiser=optimiser,
            bias_optimiser=bias_optimiser,
            normaliser=state.normaliser,
            step=state.step + 1,
        )
        return state, {"loss": value, "reward_share": jnp.mean(reward)}

    def encoding(self, state: PVNState) -> Encoding:
        return Encoding(state.values.encoder, state.normaliser)

    def _targets(
        self, state: PVNState, data: Transitions, reward: Float[Array, "row reward"]
    ) -> Float[Array, "row reward"]:
        over = jnp.broadcast_to(data.terminal[:, None], data.observation.shape)
        # Nothing follows a terminal row, and what stands there may be no number.
        following = state.normaliser(jnp.where(over, data.observation, data.next_observation))
        ahead = jnp.mean(state.target(following, self.num_rewards), axis=-1)
        onward = jnp.where(data.terminal, 0.0, self.discount)
        return reward + jnp.broadcast_to(onward[:, None], ahead.shape) * ahead

    @property
    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)
