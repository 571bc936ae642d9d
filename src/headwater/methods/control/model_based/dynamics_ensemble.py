"""An ensemble of probabilistic networks that learns where actions lead."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, share, sizes
from headwater.core.method import AbstractDynamics, AbstractMethod, Info
from headwater.core.records import Action, ModelPrediction, ModelStep, Transitions
from headwater.core.spaces import Spaces
from headwater.networks.mlp import MLP, Ensemble
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin, descend
from headwater.ops.control.noise import normal
from headwater.parts.logged_values import scale_of_rewards

_FURTHEST = 10.0
"""Standardised observations are cut off there, as the authors of RAVL do."""
_LOG_VARIANCE = (-10.0, 0.5)
"""Bounds of the log-variance at first."""
_RATE = 0.01
"""Share of the newest batch in what is known of held-out rows."""
_FLAGGED = 4.0
"""A question is beyond the data where the logarithm of what elites disagree by exceeds its mean on
held-out rows by so many of its standard deviations."""
_TINY = 1e-8
_POISSON = (0.36788, 0.73576, 0.91970, 0.98101, 0.99634, 0.99941)
"""How probable it is that a row is drawn at most 0, 1, … times by as many draws as there are."""


class Networks(eqx.Module):
    """The members, and the bounds of the log-variance, which are learned as well."""

    members: Ensemble
    lowest: Float[Array, " predicted"]
    highest: Float[Array, " predicted"]


class DynamicsState(eqx.Module):
    """Networks, moments of Adam, units, and what is known of held-out rows.

    **Arguments:** `error`: of each member, the mean squared error; `disagreement`: mean and mean
    square of the logarithm of what members disagree by; `batches`: with held-out rows so far;
    `may_end`: whether anything in the log was terminal, as far as is known.
    """

    networks: Networks
    optimiser: optax.OptState
    normaliser: Normaliser
    error: Float[Array, " member"]
    disagreement: Float[Array, " 2"]
    batches: Int[Array, ""]
    may_end: Bool[Array, ""]


class Outputs(eqx.Module):
    """What every member says: changes and reward in standardised units, and log-odds of an end."""

    mean: Float[Array, "member *batch predicted"]
    log_variance: Float[Array, "member *batch predicted"]
    end: Float[Array, "member *batch"]


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
        predicted = problem.observation_size + 1
        inputs = problem.observation_size + problem.action_size

        def member(key: PRNGKeyArray) -> MLP:
            return MLP(
                inputs,
                2 * predicted + 1,
                self.hidden_sizes,
                key=key,
                activation="silu",
                initialiser="lecun",
            )

        lowest, highest = (jnp.full(predicted, bound, jnp.float32) for bound in _LOG_VARIANCE)
        networks = Networks(Ensemble(member, self.num_members, key=key), lowest, highest)
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
        held_out, counts = self._shares(data)
        data = state.normaliser.transitions(data)
        # What stands behind a terminal step is not looked at.
        known = ~data.terminal[:, None]
        change = jnp.where(known, data.next_observation - data.observation, 0.0)
        target = jnp.concatenate([change, data.reward[:, None]], axis=-1)[None]
        read = jnp.concatenate([jnp.broadcast_to(known, change.shape), jnp.ones_like(known)], -1)
        read, terminal = read[None], data.terminal[None].astype(jnp.float32)

        def loss(networks: Networks):
            found = _outputs(networks, data.observation, data.action)
            error = read * (found.mean - target) ** 2
            likely = jnp.mean(
                error * jnp.exp(-found.log_variance) + read * found.log_variance, axis=-1
            )
            terminals = jnp.broadcast_to(terminal, found.end.shape)
            ends = optax.sigmoid_binary_cross_entropy(found.end, terminals)
            rows = jnp.sum(counts * (likely + ends), axis=-1)
            total = jnp.sum(rows / jnp.maximum(jnp.sum(counts, axis=-1), 1.0))
            bounds = jnp.sum(networks.highest) - jnp.sum(networks.lowest)
            weights = [w for w in jax.tree.leaves(networks.members) if w.ndim == 3]
            decay = 0.5 * sum(jnp.sum(w**2) for w in weights)
            whole = total + self.bound_weight * bounds + self.weight_decay * decay
            return whole, (total, error, found.mean)

        gradients, (value, error, mean) = jax.grad(loss, has_aux=True)(state.networks)
        state = self._judged(state, held_out, jnp.mean(error, axis=-1), mean)
        networks, optimiser = descend(
            optax.adam(self.learning_rate), gradients, state.optimiser, state.networks
        )
        state = dataclasses.replace(state, networks=networks, optimiser=optimiser)
        held_out_error = jnp.mean(state.error[self._elites(state)])
        return state, {"loss": value, "held_out_error": held_out_error}

    def predict(self, state: DynamicsState, observation: Array, action: Array) -> ModelPrediction:
        found, unit = self._answers(state, observation, action)
        elites = found.mean[self._elites(state)]
        expected = jnp.mean(elites, axis=0)
        change = expected * unit
        spread = jnp.exp(0.5 * found.log_variance) * unit[None]
        apart = (found.mean - jnp.mean(found.mean, axis=0, keepdims=True))[:, :-1] * unit[None, :-1]
        mean, square = state.disagreement
        deviation = jnp.sqrt(jnp.maximum(square - mean**2, 0.0))
        beyond = _log_disagreement(elites) > mean + _FLAGGED * deviation
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
    ) -> tuple[Outputs, Float[Array, " predicted"]]:
        """What the members say of one question, and what their numbers are to be multiplied by."""
        unit = jnp.append(state.normaliser.std, 1.0 / state.normaliser.reward_scale)
        return _outputs(state.networks, state.normaliser(observation), action), unit

    def _elites(self, state: DynamicsState) -> Int[Array, " elite"]:
        return jnp.argsort(state.error)[: self.num_elites]

    def _shares(
        self, data: Transitions
    ) -> tuple[Bool[Array, " batch"], Float[Array, "member batch"]]:
        """Which rows are held out, and how often each of the others counts for each member."""
        own = _number_of(data)
        held_out = _uniform(own, 0) < self.held_out_share
        drawn = jax.vmap(lambda member: _uniform(own, member))(1 + jnp.arange(self.num_members))
        counts = sum((drawn > bound).astype(jnp.float32) for bound in _POISSON)
        return held_out, jnp.where(jnp.broadcast_to(held_out, drawn.shape), 0.0, counts)

    def _judged(
        self, state: DynamicsState, held_out: Array, error: Array, mean: Array
    ) -> DynamicsState:
        """With what the held-out rows of a batch show, as errors before it was learned from."""
        rows = jnp.sum(held_out)
        rate = jnp.where(rows > 0, jnp.maximum(_RATE, 1.0 / (state.batches + 1)), 0.0)

        def averaged(old, values):
            new = jnp.sum(jnp.where(held_out[None], values, 0.0), axis=-1) / jnp.maximum(rows, 1)
            return old + rate * (new - old)

        apart = _log_disagreement(mean[self._elites(state)])
        return dataclasses.replace(
            state,
            error=averaged(state.error, error),
            disagreement=averaged(state.disagreement, jnp.stack([apart, apart**2])),
            batches=state.batches + (rows > 0),
        )


def _outputs(networks: Networks, observation: Array, action: Action) -> Outputs:
    """**Arguments:** `observation`: standardised."""
    seen = jnp.clip(observation, -_FURTHEST, _FURTHEST)
    if jnp.issubdtype(action.dtype, jnp.integer):
        members = jax.tree.leaves(networks.members)[0]
        action = jax.nn.one_hot(action, members.shape[1] - observation.shape[-1])
    found = networks.members(jnp.concatenate([seen, action], axis=-1))
    mean, raw = jnp.split(found[..., :-1], 2, axis=-1)
    low, high = (jnp.broadcast_to(b, raw.shape) for b in (networks.lowest, networks.highest))
    bounded = high - jax.nn.softplus(high - raw)
    return Outputs(mean, low + jax.nn.softplus(bounded - low), found[..., -1])


def _log_disagreement(mean: Float[Array, "elite *batch predicted"]) -> Float[Array, "*batch"]:
    """The logarithm of how far elites are apart, in standardised units."""
    variance = jnp.mean(jnp.var(mean, axis=0), axis=-1)
    return 0.5 * jnp.log(variance + _TINY)


def _number_of(data: Transitions) -> UInt32[Array, " batch"]:
    """A number that follows from what stands in a row, and looks random."""
    columns = (data.observation, data.action, data.reward)
    flat = [jnp.asarray(c, jnp.float32).reshape(data.reward.shape[0], -1) for c in columns]
    bits = jax.lax.bitcast_convert_type(jnp.concatenate(flat, axis=-1), jnp.uint32)
    place = jnp.uint32(0x9E3779B1) * jnp.arange(1, bits.shape[-1] + 1, dtype=jnp.uint32)
    return jnp.sum(_mixed(bits ^ jnp.broadcast_to(place, bits.shape)), axis=-1, dtype=jnp.uint32)


def _uniform(number: Array, stream: Array | int) -> Float[Array, " batch"]:
    """Numbers in [0, 1) that follow from `number`, others in each `stream`."""
    mixed = _mixed(number + jnp.uint32(0x85EBCA77) * jnp.asarray(stream, jnp.uint32))
    return (mixed >> 8).astype(jnp.float32) / 2**24


def _mixed(bits: Array) -> Array:
    """The final mix of MurmurHash3: each bit of the input turns about half of the output."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
