"""What scores of choices are good for: as probabilities, and as an order of preference."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from headwater.analysis.registry import analysis

_PAPER = "huang2023utility"
_SHARPEST, _STEPS = 12.0, 60


class DecisionQuality(NamedTuple):
    """Of scores, on rows with known labels.

    **Arguments:** `loss`: minus the log-probability of the label, in nats; `best_accuracy`: how
    often the highest score is the label's; `sampling_accuracy`: how often a draw would be.
    """

    loss: Float[Array, ""]
    best_accuracy: Float[Array, ""]
    sampling_accuracy: Float[Array, ""]


@analysis(paper=_PAPER)
def decision_quality(
    logits: Float[Array, "row choice"],
    labels: Int[Array, " row"],
    temperature: float | Float[Array, ""] = 1.0,
) -> DecisionQuality:
    """How good decisions by scores are, and the scores as log-probabilities at a temperature."""
    logs = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32) / temperature)
    own = jnp.take_along_axis(logs, jnp.asarray(labels)[:, None], axis=-1)[:, 0]
    best = jnp.argmax(logs, axis=-1) == labels
    return DecisionQuality(-jnp.mean(own), jnp.mean(best), jnp.mean(jnp.exp(own)))


@analysis(paper=_PAPER)
def best_temperature(
    logits: Float[Array, "row choice"], labels: Int[Array, " row"]
) -> Float[Array, ""]:
    """The temperature at which the scores give the labels the highest likelihood.

    It changes no order of choices. The loss is convex in one over the temperature, and its slope is
    bisected, between temperatures of e^-12 and e^12.
    """
    logits = jnp.asarray(logits, jnp.float32)
    own = jnp.mean(jnp.take_along_axis(logits, jnp.asarray(labels)[:, None], axis=-1))

    def slope(sharpness):
        chances = jax.nn.softmax(logits * sharpness)
        return jnp.mean(jnp.sum(chances * logits, axis=-1)) - own

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        rising = slope(jnp.exp(middle)) > 0.0
        return jnp.where(rising, low, middle), jnp.where(rising, middle, high)

    ends = (jnp.asarray(-_SHARPEST), jnp.asarray(_SHARPEST))
    low, high = jax.lax.fori_loop(0, _STEPS, halve, ends)
    return jnp.exp(-0.5 * (low + high))
