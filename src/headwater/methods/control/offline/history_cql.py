"""Conservative Q-learning on histories of observations, whose codes a bisimulation loss shapes."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, choice_or_positive, integer, non_negative, share, sizes
from headwater.core.method import (
    AbstractLikelihood,
    AbstractMethod,
    AbstractPolicy,
    AbstractValue,
    Info,
)
from headwater.core.problems.history import Frames, frames_of
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.histories import (
    CodeModel,
    Expected,
    HistoryCritic,
    HistoryEncoder,
)
from headwater.networks.mlp import MLP
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup, double_value
from headwater.ops.control.exploration import epsilon_greedy, epsilon_greedy_log_probability, greedy
from headwater.ops.control.gradient_steps import begin, descend, polyak
from headwater.ops.control.regression import huber
from headwater.parts.logged_values import InitialLevel, RewardScale, begin_values

_TINY = 1e-12


class HistoryCQLState(eqx.Module):
    """The critic with its encoder and model, its target, moments, and the scale of frames."""

    critic: HistoryCritic
    target: HistoryCritic
    optimiser: optax.OptState
    normaliser: Normaliser


class HistoryCQL(
    AbstractMethod[Spaces, Transitions, HistoryCQLState],
    AbstractPolicy[HistoryCQLState],
    AbstractValue[HistoryCQLState],
    AbstractLikelihood[HistoryCQLState],
):
    r"""Discrete CQL on the code $z = \phi(h)$ of a history, with a bisimulation loss for the code.

    A recurrent network reads the frames (see `with_history` and `WithHistory`; of an observation
    without a history it reads that one). To the loss of discrete CQL comes $\lambda J$, with
    $J = E(\lVert z - z'\rVert - |\hat r - \hat r'| - \gamma W_2(\hat P, \hat P'))^2$ over pairs of
    rows: histories with which the same happens get the same code, so that what was learned after
    one is known after the other. $\hat r(z, a)$ and $\hat P(\cdot | z, a)$ are learned
    beside, from codes that they do not change.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `conservative_weight`: α; 0 is deep Q-learning.
    - `bisimulation_weight`: λ; 0 is discrete CQL with a recurrent network.
    - `learning_rate`: of Adam.
    - `polyak_rate`: of the target, after each update.
    - `exploration_rate`: probability of a uniformly random action when acting to explore.
    - `reward_scale`, `initial_level`: units of values, and where they start, as of `DiscreteCQL`.
    - `code_size`: width of the code.
    - `hidden_sizes`: hidden layers of the values and of the model.

    **Reference:** Hong, Dragan, Levine (2024), arXiv:2310.20663.

    **Differences from the paper:** it leaves open λ, the distance of the predictions and whether it
    is discounted; here that is the 2-Wasserstein distance of normal distributions, discounted, as
    in bisimulation for control. Pairs of which one row is terminal and the other not are left out.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "hong2024histories",
        summary="discrete CQL with a recurrent network, whose codes of histories are alike where "
        "what follows is",
        parents=("DiscreteCQL",),
    )

    discount: float = share(0.99)
    conservative_weight: float = non_negative(0.5)
    bisimulation_weight: float = non_negative(0.5)
    learning_rate: float = non_negative(1e-3)
    polyak_rate: float = share(0.005)
    exploration_rate: float = share(0.05)
    reward_scale: RewardScale | float = choice_or_positive("deviation")
    initial_level: InitialLevel = choice("logged")
    code_size: int = integer(32)
    hidden_sizes: tuple[int, ...] = sizes((64,))

    # `begin_values` asks for it: frames are standardised in any case, each like the last.
    @property
    def normalise_observations(self) -> bool:
        return True

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> HistoryCQLState:
        problem.require_discrete("HistoryCQL")
        encoder_key, head_key, model_key = jax.random.split(key, 3)
        held = frames_of(problem)
        frames = Frames(1, problem.observation_size) if held is None else held
        normaliser, level = begin_values(self, problem)
        if held is not None:
            normaliser = _alike_for_frames(normaliser, held)
        head = MLP(self.code_size, problem.action_size, self.hidden_sizes, key=head_key)
        critic = HistoryCritic(
            HistoryEncoder(frames, self.code_size, held is not None, key=encoder_key),
            eqx.tree_at(lambda h: h.biases[-1], head, head.biases[-1] + level),
            CodeModel(self.code_size, problem.action_size, self.hidden_sizes, key=model_key),
        )
        optimiser = begin(optax.adam(self.learning_rate), critic)
        return HistoryCQLState(critic, critic, optimiser, normaliser)

    def update(self, state: HistoryCQLState, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        following = state.target.encoder(data.next_observation)
        # Whatever stands behind a terminal row must not even be multiplied by zero.
        onto = jnp.where(data.terminal[:, None], 0.0, following)
        judging = state.target.head(following)
        onward = double_value(state.critic.values(data.next_observation), judging)
        target = backup(data.reward, self.discount, data.terminal, onward)

        def loss(critic: HistoryCritic):
            code = critic.encoder(data.observation)
            values = critic.head(code)
            prediction = jnp.take_along_axis(values, data.action[..., None], axis=-1)[..., 0]
            critic_loss = jnp.mean(huber(prediction - target))
            gap = jnp.mean(jax.nn.logsumexp(values, axis=-1) - prediction)
            expected = critic.model(jax.lax.stop_gradient(code), data.action)
            error = (expected.reward - data.reward) ** 2
            surprise = jnp.where(data.terminal, 0.0, expected.surprise(onto))
            model_loss = jnp.mean(error + surprise)
            alike = bisimulation_loss(
                code, jax.lax.stop_gradient(expected), data.terminal, self.discount
            )
            total = critic_loss + self.conservative_weight * gap + model_loss
            return total + self.bisimulation_weight * alike, {
                "critic_loss": critic_loss,
                "conservative_gap": gap,
                "model_loss": model_loss,
                "bisimulation_loss": alike,
                "q": jnp.mean(prediction),
            }

        gradients, metrics = jax.grad(loss, has_aux=True)(state.critic)
        critic, optimiser = descend(
            optax.adam(self.learning_rate), gradients, state.optimiser, state.critic
        )
        lagging = polyak(state.target, critic, self.polyak_rate)
        return HistoryCQLState(critic, lagging, optimiser, state.normaliser), metrics

    def act(self, state: HistoryCQLState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        values = state.critic.values(state.normaliser(observation))
        epsilon = self.exploration_rate
        return (epsilon_greedy(values, epsilon, key=key) if explore else greedy(values)), ()

    def value(self, state: HistoryCQLState, observation: Array, action: Array) -> Array:
        values = state.critic.values(state.normaliser(observation))
        chosen = jnp.take_along_axis(values, action[..., None], axis=-1)[..., 0]
        return state.normaliser.in_units_of_reward(chosen)

    def log_probability(self, state: HistoryCQLState, observation: Array, action: Array) -> Array:
        values = state.critic.values(state.normaliser(observation))
        return epsilon_greedy_log_probability(values, action, self.exploration_rate)


def bisimulation_loss(
    code: Float[Array, "batch code"],
    expected: Expected,
    terminal: Bool[Array, " batch"],
    discount: float | Float[Array, ""],
) -> Float[Array, ""]:
    """How far distances of codes are from those of what follows, squared, over pairs of rows."""
    apart = lambda x: jnp.sum((x[:, None] - x[None, :]) ** 2, axis=-1)
    # The square root has no derivative at 0, where a row meets itself or another like it.
    codes = jnp.sqrt(apart(code) + _TINY)
    rewards = jnp.abs(expected.reward[:, None] - expected.reward[None, :])
    onward = jnp.sqrt(apart(expected.mean) + apart(expected.deviation))
    both = ~terminal[:, None] & ~terminal[None, :]
    known = terminal[:, None] == terminal[None, :]
    wanted = rewards + discount * jnp.where(both, onward, 0.0)
    return jnp.sum(known * (codes - wanted) ** 2) / jnp.sum(known)


def _alike_for_frames(normaliser: Normaliser, frames: Frames) -> Normaliser:
    """The scale of the last frame for all, and none for the number that says that there is one."""
    mean, std = (x.reshape(*frames)[-1] for x in (normaliser.mean, normaliser.std))
    scale = (mean.at[-1].set(0.0), std.at[-1].set(1.0))
    tiled = tuple(jnp.tile(last, frames.length) for last in scale)
    return eqx.tree_at(lambda n: (n.mean, n.std), normaliser, tiled)
