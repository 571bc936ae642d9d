"""A classifier of successes that learns beside a policy, and the actor-critic that it rewards."""

from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.spaces import Spaces
from headwater.networks.mlp import MLP
from headwater.ops.control.gradient_steps import begin, descend
from headwater.parts.soft_actor_critic import SoftActorCritic, SoftSettings, begin_soft

Number = float | Float[Array, ""]


class Judged(eqx.Module):
    """An actor-critic, and the classifier that says what is a success, with its moments."""

    soft: SoftActorCritic
    classifier: MLP
    classifier_optimiser: optax.OptState

    def success(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch"]:
        """How likely it takes what is seen for a success."""
        return jax.nn.sigmoid(self.classifier(self.soft.normaliser(observation))[..., 0])


class JudgedSettings(SoftSettings, Protocol):
    """The hyper-parameters that the steps below read from a method."""

    @property
    def classifier_learning_rate(self) -> Number: ...
    @property
    def label_smoothing(self) -> Number: ...


def begin_judged(settings: JudgedSettings, problem: Spaces, *, key: PRNGKeyArray) -> Judged:
    """The state before any data."""
    soft_key, classifier_key = jax.random.split(key)
    classifier = MLP(
        problem.observation_size,
        1,
        settings.hidden_sizes,
        key=classifier_key,
        layer_norm=None if settings.layer_norm == "none" else "before",
    )
    soft = begin_soft(settings, problem, key=soft_key)
    return Judged(soft, classifier, begin(optax.adam(0.0), classifier))


def improve_classifier(
    settings: JudgedSettings,
    state: Judged,
    observation: Float[Array, "row observation"],
    success: Bool[Array, " row"],
    failure: Bool[Array, " row"],
) -> tuple[Judged, Float[Array, ""]]:
    """One step down the logistic loss, a mean over successes plus one over failures.

    **Arguments:** `observation`: standardised; `success`, `failure`: which rows are known, or
    taken, to be one; a row that is neither is not looked at.

    **Returns:** the state and the loss.
    """

    def loss(classifier: MLP):
        label = jnp.where(success, 1.0 - settings.label_smoothing, settings.label_smoothing)
        each = optax.sigmoid_binary_cross_entropy(classifier(observation)[..., 0], label)
        return _mean_where(each, success) + _mean_where(each, failure)

    value, gradients = jax.value_and_grad(loss)(state.classifier)
    classifier, moments = descend(
        optax.adam(settings.classifier_learning_rate),
        gradients,
        state.classifier_optimiser,
        state.classifier,
    )
    return Judged(state.soft, classifier, moments), value


def _mean_where(each: Float[Array, " row"], chosen: Bool[Array, " row"]) -> Float[Array, ""]:
    """The mean over the chosen rows, and zero where there is none."""
    return jnp.sum(jnp.where(chosen, each, 0.0)) / jnp.maximum(jnp.sum(chosen), 1)
