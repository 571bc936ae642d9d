"""An ensemble of probabilistic networks that learns where actions lead."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, share, sizes
from headwater.core.method import AbstractDynamics, AbstractMethod, Info
from headwater.core.records import ModelPrediction, ModelStep, Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.dynamics import (
    DynamicsNetworks,
    DynamicsOutputs,
    log_disagreement,
    squared_errors_and_losses,
)
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin, descend
from headwater.ops.control.noise import held_out_or_drawn, normal, row_numbers
from headwater.parts.logged_values import scale_of_rewards

_RATE = 0.01
"""Share of the newest batch in what is known of held-out rows."""
_FLAGGED = 4.0
"""A question is beyond the data where the logarithm of what elites disagree by exceeds its mean on
held-out rows by so many of its standard deviations."""


class DynamicsState(eqx.Module):
    """Networks, moments of Adam, units, and what is known of held-out rows.

    **Arguments:** `error`: of each member, the mean squared error; `disagreement`: mean and mean
    square of the logarithm of what members disagree by; `batches`: with held-out rows so far;
    `may_end`: whether anything in the log was terminal, as far as is known.
    """

    networks: DynamicsNetworks
    optimiser: optax.OptState
    normaliser: Normaliser
    error: Float[Array, " member"]
    disagreement: Float[Array, " 2"]
    batches: Int[Array, ""]
    may_end: Bool[Array, ""]


class DynamicsEnsemble(
    AbstractMethod[Spaces, Transitions, DynamicsState], AbstractDynamics[DynamicsState]
):
    r"""Learns a model of the process: normal distributions over where an action leads.

    Each member has a mean $\mu$ and a variance $\sigma^2$ for the change of each standardised
    observation and for the reward, and minimises
    $E[(\mu - y)^2/\sigma^2 + \log\sigma^2] + b\,(\sum\log\sigma^2_{max} - \sum\log\sigma^2_{min})$
    with learned, soft bounds of the log-variance, on rows of its own: each counts as often as it
    would in a bootstrap sample. A share of the rows is held out from all; the members with the
    smallest squared error on them, the elites, predict, and a step is drawn from one of these.
    Where elites disagree far more than on held-out rows, a question is flagged as beyond the data.

    **Arguments:**

    - `num_members`, `num_elites`: networks, and how many of them predict.
    - `held_out_share`: of the rows, which no member learns from.
    - `bound_weight`: $b$.
    - `weight_decay`: of half the sum of all squared weights.
    - `learning_rate`: of Adam.
    - `hidden_sizes`: hidden layers of each member.

    **Reference:** Chua, Calandra, McAllister, Levine (2018), arXiv:1805.12114; with elites, Janner,
    Fu, Zhang, Levine (2019), arXiv:1906.08253.

    **Differences from the paper:** whether a row is held out, and how often it counts for a member,
    follows from the numbers in it, so that it is the same in every batch; one decay for all layers;
    training is as long as it was told to be, not stopped by the held-out error; what ends an
    episode is learned, where anything does, and not known beforehand; the flag is not theirs.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "chua2018deep",
        summary="learns where actions lead with an ensemble of probabilistic networks",
    )

    num_members: int = integer(7)
    num_elites: int = integer(5)
    held_out_share: float = share(0.2)
    bound_weight: float = non_negative(0.01)
    weight_decay: float = non_negative(5e-5)
    learning_rate: float = non_negative(1e-3)
    hidden_sizes: tuple[int, ...] = sizes((200, 200, 200, 200))

    def __check_init__(self):
        if self.num_elites > self.num_members:
            raise SpecificationError(
                f"DynamicsEnsemble: num_elites={self.num_elites} must be at most "
                f"num_members={self.num_members}"
            )

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> DynamicsState:
        networks = DynamicsNetworks(problem, self.num_members, self.hidden_sizes, key=key)
        statistics = problem.statistics
        scale = 1.0 if statistics is None else scale_of_rewards(statistics, "deviation")
        ends = jnp.ones((), bool) if statistics is None else statistics.terminal_share > 0.0
        return DynamicsState(
            networks=networks,
            optimiser=begin(optax.adam(self.learning_rate), networks),
            normaliser=Normaliser(problem, True, scale),
            error=jnp.zeros(self.num_members),
            disagreement=jnp.zeros(2),
            batches=jnp.zeros((), jnp.int32),
            may_end=jnp.asarray(ends),
        )

    def update(self, state: DynamicsState, data: Transitions, *, key: PRNGKeyArray):
        number = row_numbers(data.observation, data.action, data.reward)
        held_out, counts = held_out_or_drawn(number, self.held_out_share, self.num_members)
        data = state.normaliser.transitions(data)

        def loss(networks: DynamicsNetworks):
            found = networks(data.observation, data.action)
            error, losses = squared_errors_and_losses(found, data)
            rows = jnp.sum(counts * losses, axis=-1)
            total = jnp.sum(rows / jnp.maximum(jnp.sum(counts, axis=-1), 1.0))
            bounds, weights = networks.width_of_bounds, networks.squared_weights
            whole = total + self.bound_weight * bounds + 0.5 * self.weight_decay * weights
            return whole, (total, error, found.mean)

        gradients, (value, error, mean) = jax.grad(loss, has_aux=True)(state.networks)
        state = self._judged(state, held_out, jnp.mean(error, axis=-1), mean)
        networks, optimiser = descend(
            optax.adam(self.learning_rate), gradients, state.optimiser, state.networks
        )
        metrics = {"loss": value, "held_out_error": jnp.mean(state.error[self._elites(state)])}
        return dataclasses.replace(state, networks=networks, optimiser=optimiser), metrics

    def predict(self, state: DynamicsState, observation: Array, action: Array) -> ModelPrediction:
        found, unit = self._answers(state, observation, action)
        elites = found.mean[self._elites(state)]
        change = jnp.mean(elites, axis=0) * unit
        spread = jnp.exp(0.5 * found.log_variance) * unit[None]
        apart = (found.mean - jnp.mean(found.mean, axis=0, keepdims=True))[:, :-1] * unit[None, :-1]
        mean, square = state.disagreement
        deviation = jnp.sqrt(jnp.maximum(square - mean**2, 0.0))
        beyond = log_disagreement(elites) > mean + _FLAGGED * deviation
        end = jnp.mean(jax.nn.sigmoid(found.end[self._elites(state)]))
        return ModelPrediction(
            next_observation=observation + change[:-1],
            reward=change[-1],
            terminal=(end > 0.5) & state.may_end,
            spread=jnp.max(jnp.linalg.norm(spread, axis=-1)),
            disagreement=jnp.max(jnp.linalg.norm(apart, axis=-1)),
            beyond=beyond & (state.batches > 0),
        )

    def step(
        self, state: DynamicsState, observation: Array, action: Array, *, key: PRNGKeyArray
    ) -> ModelStep:
        choice_key, noise_key = jax.random.split(key)
        found, unit = self._answers(state, observation, action)
        chosen = self._elites(state)[jax.random.randint(choice_key, (), 0, self.num_elites)]
        noise = normal(noise_key, unit.shape)
        change = (found.mean[chosen] + jnp.exp(0.5 * found.log_variance[chosen]) * noise) * unit
        end = (found.end[chosen] > 0.0) & state.may_end
        return ModelStep(observation + change[:-1], change[-1], end)

    def _answers(
        self, state: DynamicsState, observation: Array, action: Array
    ) -> tuple[DynamicsOutputs, Float[Array, " predicted"]]:
        """What the members say of one question, and what their numbers are to be multiplied by."""
        unit = jnp.append(state.normaliser.std, 1.0 / state.normaliser.reward_scale)
        return state.networks(state.normaliser(observation), action), unit

    def _elites(self, state: DynamicsState) -> Int[Array, " elite"]:
        return jnp.argsort(state.error)[: self.num_elites]

    def _judged(
        self, state: DynamicsState, held_out: Array, error: Array, mean: Array
    ) -> DynamicsState:
        """With what the held-out rows of a batch show, as errors before it was learned from."""
        rows = jnp.sum(held_out)
        rate = jnp.where(rows > 0, jnp.maximum(_RATE, 1.0 / (state.batches + 1)), 0.0)

        def averaged(old, values):
            new = jnp.sum(jnp.where(held_out[None], values, 0.0), axis=-1) / jnp.maximum(rows, 1)
            return old + rate * (new - old)

        apart = log_disagreement(mean[self._elites(state)])
        return dataclasses.replace(
            state,
            error=averaged(state.error, error),
            disagreement=averaged(state.disagreement, jnp.stack([apart, apart**2])),
            batches=state.batches + (rows > 0),
        )
