"""Learning from one's own texts: advantages, clipped ratios, and several epochs on one batch."""

from collections.abc import Callable
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from headwater.core.errors import SpecificationError
from headwater.core.fields import check_choice
from headwater.core.method import Metrics
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork
from headwater.ops.language.tokens import token_log_probabilities

State = TypeVar("State")
Scale = Literal["group", "batch", "none"]
"""What advantages are divided by: the deviation of the rewards of each prompt, or of all."""

_SMALL = 1e-4


def rewards_of(data: Completions, method: str, *, groups: bool = False) -> Float[Array, "*batch"]:
    """The rewards of a batch.

    Raises `SpecificationError` if there are none, or if `groups` are asked for and responses do not
    come in groups `[prompt, sample]` of two or more.
    """
    if data.reward is None:
        raise SpecificationError(
            f"{method} learns from rewards, and these texts have none: give their source a reward"
        )
    reward = jnp.asarray(data.reward, jnp.float32)
    if groups and (reward.ndim < 2 or reward.shape[-1] < 2):
        raise SpecificationError(
            f"{method} compares responses to the same prompt, [prompt, sample]: rewards of shape "
            f"{list(reward.shape)} do not have two or more for each"
        )
    return reward


def leave_one_out(reward: Float[Array, "*batch sample"]) -> Float[Array, "*batch sample"]:
    """Reward less the mean reward of the other responses to the same prompt."""
    samples = reward.shape[-1]
    others = (jnp.sum(reward, axis=-1, keepdims=True) - reward) / (samples - 1)
    return reward - others


def group_advantage(
    reward: Float[Array, "*batch sample"], scale: Scale
) -> Float[Array, "*batch sample"]:
    """Reward less the mean over responses to the same prompt, over a deviation (of n - 1)."""
    check_choice(scale, Scale, "scale")
    centred = reward - jnp.mean(reward, axis=-1, keepdims=True)
    if scale == "none":
        return centred
    axis = -1 if scale == "group" else None
    return centred / (jnp.std(reward, axis=axis, keepdims=True, ddof=1) + _SMALL)


def whitened(
    values: Float[Array, "*batch"], mask: Bool[Array, "*batch"], *, centred: bool = True
) -> Float[Array, "*batch"]:
    """Of unit variance where `mask` is true, and there of mean zero if `centred`."""
    count = jnp.maximum(jnp.sum(mask), 1)
    mean = jnp.sum(jnp.where(mask, values, 0.0)) / count
    variance = jnp.sum(jnp.where(mask, (values - mean) ** 2, 0.0)) / jnp.maximum(count - 1, 1)
    scaled = (values - mean) * jax.lax.rsqrt(variance + 1e-8)
    return jnp.where(mask, scaled if centred else scaled + mean, 0.0)


def clipped_loss(
    log_ratio: Float[Array, "*batch"],
    advantage: Float[Array, "*batch"],
    below: float | Float[Array, ""],
    above: float | Float[Array, ""],
) -> tuple[Float[Array, "*batch"], Bool[Array, "*batch"]]:
    """PPO's loss: minus ratio times advantage, with nothing gained outside [1 - below, 1 + above].

    **Returns:** the loss, and where the bound was active.
    """
    ratio = jnp.exp(log_ratio)
    bounded = jnp.clip(ratio, 1.0 - below, 1.0 + above)
    loss = -jnp.minimum(ratio * advantage, bounded * advantage)
    return loss, bounded * advantage < ratio * advantage


def sampling_log_probabilities(
    network: AbstractTokenNetwork, data: Completions, temperature: float | Float[Array, ""]
) -> Float[Array, "*batch position"]:
    """Of each token when it was drawn: as the sampler said, else as the network says now."""
    if data.log_probability is not None:
        return jnp.where(jnp.asarray(data.response), jnp.asarray(data.log_probability), 0.0)
    return token_log_probabilities(network, data, temperature)


def sampler_gap(
    own: Float[Array, "*batch position"], sampled: Float[Array, "*batch position"], response: Array
) -> Float[Array, ""]:
    """Mean distance of the trainer's log-probabilities from the sampler's.

    Zero, but for rounding, in the first epoch on fresh texts.
    """
    distance = jnp.where(response, jnp.abs(own - sampled), 0.0)
    return jnp.sum(distance) / jnp.maximum(jnp.sum(response), 1)


def epochs(
    step: Callable[[State], tuple[State, Metrics]], state: State, count: int
) -> tuple[State, Metrics]:
    """Takes `count` steps on the same batch.

    **Returns:** the last state and the mean metrics, but the first `sampler_gap`.
    """

    def one(state, _):
        return step(state)

    state, metrics = jax.lax.scan(one, state, None, length=count)
    first = {"sampler_gap": metrics["sampler_gap"][0]} if "sampler_gap" in metrics else {}
    return state, {**jax.tree.map(jnp.mean, metrics), **first}
