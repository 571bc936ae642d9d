"""Inverse dynamics: which action was taken between what was observed before and after it."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, sizes
from headwater.core.method import AbstractHistory, AbstractLabeller, AbstractMethod, Info
from headwater.core.records import ActionWindows
from headwater.core.spaces import Box, Spaces
from headwater.networks.control.actors import (
    CategoricalActor,
    GaussianActor,
    TanhGaussianActor,
    stochastic_actor,
)
from headwater.networks.distributions import Categorical, TanhNormal
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin, descend

TOLERANCE = 0.1
"""How near, in canonical units, each component of a label has to be to the action to be right."""
_SMALLEST = 1e-6
"""Added to the size of differences, so that observations that never change stay finite."""


class InverseDynamicsState(eqx.Module):
    """The network, optimiser moments, the scale of observations and that of their changes.

    `mean_square`: of what standardised observations change by in a step, over all batches so far.
    """

    network: CategoricalActor | TanhGaussianActor | GaussianActor
    optimiser: optax.OptState
    normaliser: Normaliser
    mean_square: Float[Array, " observation"]
    step: Int[Array, ""]


class InverseDynamics(
    AbstractMethod[Spaces, ActionWindows, InverseDynamicsState],
    AbstractLabeller[InverseDynamicsState, ActionWindows],
    AbstractHistory,
):
    r"""Infers logged actions from what was observed before and after: step one of SS-ORL and VPT.

    $L = -E \log p(a_t \mid s_{t-k}, \dots, s_t, \dots, s_{t+m})$ over the rows whose action is
    known, with a squashed normal for continuous actions and a softmax for discrete ones. The label
    of a row without action is the mode; its confidence is the probability of that action, or for
    continuous ones that every component lies within 0.1 (of [-1, 1]) of it. With the labels any
    offline method learns from all rows. Where the observation hides a velocity, only $k \ge 1$ can
    tell it; where an action shows late, only $m \ge 2$.

    **Arguments:**

    - `history`: $k$, earlier observations that are looked at.
    - `future`: $m$, later ones; with 0 it guesses what will be done from what was seen.
    - `learning_rate`: of Adam.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `hidden_sizes`: hidden layers.

    **Reference:** Zheng, Henaff, Amos, Grover (2023), arXiv:2210.06518; for later observations
    Baker et al. (2022), arXiv:2206.11795.

    **Differences from the paper:** the network sees $s_t$ and the differences of observations that
    follow each other, in units of their own size, since an action shows in small ones; it is one
    network for mean and spread, without dropout, and smaller; an episode that is younger than the
    window repeats its first observation, one that ends in it its last; nothing is held out to stop
    early.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "zheng2023semi",
        summary="infers actions that a log lacks from the observations around them",
        parents=("BC",),
        rewards=False,
    )

    history: int = integer(1, low=0)
    future: int = integer(1, low=0)
    learning_rate: float = non_negative(3e-4)
    normalise_observations: bool = flag(True)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def __check_init__(self):
        if self.history == self.future == 0:
            raise SpecificationError(
                "InverseDynamics with history = 0 and future = 0 sees no change: take at least one"
            )

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> InverseDynamicsState:
        windows = (self.history + 1 + self.future) * problem.observation_size
        seen = Box((-jnp.inf,) * windows, (jnp.inf,) * windows)
        # A narrower spread would let one repeated action have all of the likelihood.
        network = stochastic_actor(
            dataclasses.replace(problem, observation=seen),
            self.hidden_sizes,
            key=key,
            log_std_range=(-5.0, 2.0),
        )
        return InverseDynamicsState(
            network=network,
            optimiser=begin(optax.adam(self.learning_rate), network),
            normaliser=Normaliser(problem, self.normalise_observations),
            mean_square=jnp.zeros(problem.observation_size),
            step=jnp.zeros((), jnp.int32),
        )

    def update(self, state: InverseDynamicsState, data: ActionWindows, *, key: PRNGKeyArray):
        changes = self._differences(state.normaliser, data)
        square = jnp.mean(changes**2, axis=(0, 1))
        mean_square = state.mean_square + (square - state.mean_square) / (state.step + 1)
        state = dataclasses.replace(state, mean_square=mean_square)
        inputs = self._inputs(state, data)

        def loss(network) -> Float[Array, ""]:
            return -jnp.mean(network(inputs).log_density(data.action))

        value, gradients = jax.value_and_grad(loss)(state.network)
        network, optimiser = descend(
            optax.adam(self.learning_rate), gradients, state.optimiser, state.network
        )
        state = InverseDynamicsState(
            network, optimiser, state.normaliser, mean_square, state.step + 1
        )
        return state, {"loss": value}

    def label(self, state: InverseDynamicsState, data: ActionWindows):
        found = state.network(self._inputs(state, data))
        label = found.mode()
        if isinstance(found, Categorical):
            return label, jnp.exp(found.log_density(label))
        assert isinstance(found, TanhNormal)
        # Squashing keeps the order: the label is within the tolerance where what is squashed is.
        low, high = jnp.arctanh(jnp.clip(label - TOLERANCE, -1.0)), label + TOLERANCE
        high = jnp.arctanh(jnp.clip(high, max=1.0))
        below, above = (
            jax.scipy.stats.norm.cdf((edge - found.mean) * jnp.exp(-found.log_std))
            for edge in (low, high)
        )
        return label, jnp.prod(above - below, axis=-1)

    def _inputs(
        self, state: InverseDynamicsState, data: ActionWindows
    ) -> Float[Array, "*batch input"]:
        """The observation of the action, and by what each changes to the next."""
        changes = self._differences(state.normaliser, data)
        size = jnp.sqrt(state.mean_square) + _SMALLEST
        changes = changes / jnp.broadcast_to(size, changes.shape)
        now = state.normaliser(data.observations[..., self.history, :])
        flat = changes.reshape(*now.shape[:-1], changes.shape[-2] * changes.shape[-1])
        return jnp.concatenate([now, flat], axis=-1)

    def _differences(
        self, normaliser: Normaliser, data: ActionWindows
    ) -> Float[Array, "*batch step observation"]:
        positions = data.observations.shape[-2]
        needed = self.history + 1 + self.future
        if positions != needed:
            raise SpecificationError(
                f"InverseDynamics with history = {self.history} and future = {self.future} looks "
                f"at {needed} observations for each action, but these windows have {positions}"
            )
        return jnp.diff(normaliser(data.observations), axis=-2)
