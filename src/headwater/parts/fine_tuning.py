"""Steps of training on a token network of which some parts may be frozen."""

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from headwater.core.method import Metrics
from headwater.core.tokens import AbstractAdapted, AbstractTokenNetwork

Decay = Literal["linear", "cosine"]
"""The curve along which a learning rate falls to zero."""


class TuningState(eqx.Module):
    """A network in training.

    **Arguments:** `network`; `frozen`: a copy of the first weights, where a reference is needed and
    the network cannot go back to it by itself; `optimiser`: moments of what is trained; `step`.
    """

    network: AbstractTokenNetwork
    frozen: AbstractTokenNetwork | None
    optimiser: optax.OptState
    step: Int[Array, ""]

    @property
    def reference(self) -> AbstractTokenNetwork:
        """The policy before training: adapters switched off, or else the copy."""
        if isinstance(self.network, AbstractAdapted):
            return self.network.without_adapters()
        assert self.frozen is not None, "begin_tuning was not asked for a reference"
        return self.frozen


class Schedule(eqx.Module):
    """How steps are made of gradients: AdamW behind a bound on the norm of all gradients.

    **Arguments:** `learning_rate`: after warming up; `warmup_updates`: it rises linearly so long;
    `decay_updates`: from then on it falls and is zero at this update, or never if that is infinite;
    `decay`: along a line or half a cosine; `weight_decay`: share of every trained
    number that is taken off at each step, times the rate; `max_gradient_norm`: bound on the norm.
    """

    learning_rate: float | Float[Array, ""]
    warmup_updates: float | Float[Array, ""]
    decay_updates: float | Float[Array, ""]
    weight_decay: float | Float[Array, ""]
    max_gradient_norm: float | Float[Array, ""]
    decay: Decay = eqx.field(static=True, default="linear")

    def optimiser(self, step: Int[Array, ""]) -> optax.GradientTransformation:
        """The optimiser of one step."""
        rise = jnp.minimum((step + 1) / jnp.maximum(self.warmup_updates, 1.0), 1.0)
        falling = jnp.maximum(self.decay_updates - self.warmup_updates, 1.0)
        done = jnp.clip((step - self.warmup_updates) / falling, 0.0, 1.0)
        fall = 1.0 - done if self.decay == "linear" else 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        return optax.chain(
            optax.clip_by_global_norm(self.max_gradient_norm),  # pyright: ignore[reportArgumentType]
            optax.adamw(self.learning_rate * rise * fall, weight_decay=self.weight_decay),
        )


@runtime_checkable
class Scheduled(Protocol):
    """A method with the settings of a `Schedule`."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup_updates(self) -> float: ...
    @property
    def decay_updates(self) -> float | None: ...
    @property
    def decay(self) -> Decay: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def max_gradient_norm(self) -> float: ...


def schedule_of(method: Scheduled) -> Schedule:
    """The schedule that a method's settings describe; where its end is left open, there is none."""
    return Schedule(
        method.learning_rate,
        method.warmup_updates,
        jnp.inf if method.decay_updates is None else method.decay_updates,
        method.weight_decay,
        method.max_gradient_norm,
        method.decay,
    )


def begin_tuning(
    network: AbstractTokenNetwork, schedule: Schedule, *, reference: bool
) -> TuningState:
    """The state before training. `reference`: whether the first policy has to be remembered."""
    trained = eqx.filter(network, network.trainable())
    step = jnp.zeros((), jnp.int32)
    copy = reference and not isinstance(network, AbstractAdapted)
    frozen = jax.tree.map(jnp.copy, network) if copy else None
    return TuningState(network, frozen, schedule.optimiser(step).init(trained), step)


def tune(
    state: TuningState,
    schedule: Schedule,
    loss: Callable[[AbstractTokenNetwork], tuple[Float[Array, ""], Metrics]],
) -> tuple[TuningState, Metrics]:
    """One step down the gradient of `loss`, whose metrics are returned with the gradient's norm."""
    trained, fixed = eqx.partition(state.network, state.network.trainable())

    def of(trained):
        return loss(eqx.combine(trained, fixed))

    gradients, metrics = jax.grad(of, has_aux=True)(trained)
    updates, optimiser = schedule.optimiser(state.step).update(gradients, state.optimiser, trained)
    network = eqx.combine(eqx.apply_updates(trained, updates), fixed)
    norm = optax.tree.norm(gradients)
    state = TuningState(network, state.frozen, optimiser, state.step + 1)
    return state, {**metrics, "gradient_norm": norm}
