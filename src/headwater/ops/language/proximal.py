"""Proximal policy optimisation on texts: rewards of tokens, advantages, values, minibatches."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import Metrics

State = TypeVar("State")
Rows = TypeVar("Rows")


def last_tokens(response: Bool[Array, "*batch position"]) -> Bool[Array, "*batch position"]:
    """True at the last token of each response."""
    return response & ~_later(response)


def texts(response: Bool[Array, "*batch position"]) -> Bool[Array, "*batch position"]:
    """True on every token up to the end of the response, but the first, which follows nothing."""
    whole = response | _later(response)
    return whole.at[..., 0].set(False)


def _later(response):
    """Where a token of the response is still to come."""
    from_here = jnp.flip(jnp.cumsum(jnp.flip(response, -1), axis=-1), -1)
    return from_here - response > 0


def generalised_advantage(
    reward: Float[Array, "*batch position"],
    value: Float[Array, "*batch position"],
    mask: Bool[Array, "*batch position"],
    discount: float | Float[Array, ""],
    trace_decay: float | Float[Array, ""],
) -> Float[Array, "*batch position"]:
    """Generalised advantage estimates of the tokens where `mask`, unbroken in each row, is true.

    **Arguments:** `reward`: on choosing each token; `value`: before choosing it; `trace_decay`: λ.
    """
    value = jnp.where(mask, value, 0.0)
    after = jnp.concatenate([value[..., 1:], jnp.zeros_like(value[..., :1])], axis=-1)
    surprise = jnp.where(mask, reward + discount * after - value, 0.0)

    def backwards(following, now):
        surprise, inside = now
        total = jnp.where(inside, surprise + discount * trace_decay * following, 0.0)
        return total, total

    moved = jnp.moveaxis(surprise, -1, 0), jnp.moveaxis(mask, -1, 0)
    _, found = jax.lax.scan(backwards, jnp.zeros_like(surprise[..., 0]), moved, reverse=True)
    return jnp.moveaxis(found, 0, -1)


def clipped_value_loss(
    value: Float[Array, "*batch"],
    old: Float[Array, "*batch"],
    target: Float[Array, "*batch"],
    clip_range: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
    """Half the squared error, or that of the value held within `clip_range` of the old, if more."""
    bounded = jnp.clip(value, old - clip_range, old + clip_range)
    return 0.5 * jnp.maximum((value - target) ** 2, (bounded - target) ** 2)


def minibatch_epochs(
    step: Callable[[State, Any], tuple[State, Metrics]],
    state: State,
    rows: Any,
    *,
    epochs: int,
    minibatches: int,
    key: PRNGKeyArray,
) -> tuple[State, Metrics]:
    """Goes `epochs` times through `rows`, in `minibatches` parts drawn anew each time.

    **Returns:** the last state and the mean metrics, but the first `sampler_gap`. Raises
    `SpecificationError` if the rows cannot be divided.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    if count % minibatches:
        raise SpecificationError(f"{count} texts cannot be divided into {minibatches} minibatches")

    def parts(key):
        if minibatches == 1:
            return jax.tree.map(lambda x: x[None], rows)
        order = jax.random.permutation(key, count).reshape(minibatches, -1)
        return jax.tree.map(lambda x: x[order], rows)

    def epoch(state, key):
        return jax.lax.scan(step, state, parts(key))

    state, metrics = jax.lax.scan(epoch, state, jax.random.split(key, epochs))
    first = {"sampler_gap": metrics["sampler_gap"][0, 0]} if "sampler_gap" in metrics else {}
    return state, {**jax.tree.map(jnp.mean, metrics), **first}
