"""Rotary positions: by how much queries and keys are turned at each position of a text."""

import math
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class RotaryScaling(NamedTuple):
    """How rotary positions are stretched over a longer context than a model was first trained on.

    **Arguments:** `kind`: `"linear"` divides every frequency by `factor`; `"llama3"` divides low
    ones, leaves high ones, and goes over from one to the other between wavelengths of
    `original_context / low` and `original_context / high`; `"yarn"` does so between pairs that turn
    `low` and `high` times in the `original_context`, whole pairs if `rounded`; `"dynamic"` raises
    the base with the length of texts that are longer than the `original_context`; `"longrope"`
    divides the frequency of each pair by its number in `short`, or in `long` where a text is
    longer than the `original_context`; `magnitude`: what turned queries and keys are multiplied by.
    """

    kind: Literal["linear", "dynamic", "llama3", "yarn", "longrope"]
    factor: float
    low: float = 1.0
    high: float = 4.0
    original_context: int = 8192
    magnitude: float = 1.0
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()
    rounded: bool = True


Turn = tuple[Float[Array, "token one pair"], Float[Array, "token one pair"]]
"""Cosines and sines that pairs of numbers of each token's heads are turned by."""


def rotary_frequencies(
    base: float,
    width: int,
    scaling: RotaryScaling | None = None,
    length: int | Int[Array, " token"] = 0,
) -> Any:
    """Radians per position of each pair of numbers in a head, `[pair]` or `[token, pair]`.

    **Arguments:** `width`: numbers of a head that are turned; `length`: of the text, where it
    matters, or of that of each token.
    """
    share = np.arange(0, width, 2) / width
    frequency = base**-share
    if scaling is None:
        return frequency.astype(np.float32)
    slowed = frequency / scaling.factor
    if scaling.kind == "linear":
        return slowed.astype(np.float32)
    if scaling.kind in ("dynamic", "longrope"):
        lengths = jnp.asarray(length)[..., None]
        lengths = jnp.broadcast_to(lengths, (*lengths.shape[:-1], width // 2))
        of_pair = lambda numbers: jnp.broadcast_to(jnp.asarray(numbers, jnp.float32), lengths.shape)
        if scaling.kind == "dynamic":
            over = jnp.maximum(lengths / scaling.original_context, 1.0)
            stretched = scaling.factor * over - scaling.factor + 1.0
            # A single pair turns by one radian whatever the base, which is not stretched then.
            power = width / (width - 2) if width > 2 else 0.0
            return (base * stretched**power) ** of_pair(-share)
        short, long = (of_pair(frequency / np.asarray(x)) for x in (scaling.short, scaling.long))
        return jnp.where(lengths > scaling.original_context, long, short)
    if scaling.kind == "yarn":
        kept = _kept_by_yarn(base, width, scaling)
    else:
        turns = scaling.original_context * frequency / (2 * np.pi)
        kept = np.clip((turns - scaling.low) / (scaling.high - scaling.low), 0.0, 1.0)
    return (kept * frequency + (1 - kept) * slowed).astype(np.float32)


def _kept_by_yarn(base: float, width: int, scaling: RotaryScaling) -> np.ndarray:
    """The share of each pair's frequency that stays as it is (Peng et al., 2023)."""

    def pair_that_turns(times: float) -> float:
        """The number of the pair that turns so often in the original context."""
        wavelength = scaling.original_context / (times * 2 * math.pi)
        return width * math.log(wavelength) / (2 * math.log(base))

    first, last = pair_that_turns(scaling.high), pair_that_turns(scaling.low)
    if scaling.rounded:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    # As in transformers, where both fall together.
    last = last + 0.001 if first == last else last
    return 1.0 - np.clip((np.arange(width // 2) - first) / (last - first), 0.0, 1.0)


def rotary_turn(
    position: Int[Array, " token"], frequency: Any, scaling: RotaryScaling | None
) -> Turn:
    """The turn of every token at its position, with the scaling's magnitude."""
    angle = position[:, None, None] * jnp.asarray(frequency).reshape(-1, 1, frequency.shape[-1])
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    if scaling is None or scaling.magnitude == 1.0:
        return cosine, sine
    return scaling.magnitude * cosine, scaling.magnitude * sine


def turned(x: Float[Array, "*batch head head_width"], turn: Turn | None):
    """Queries or keys, turned: of the numbers that are, the first half is paired with the second.

    What a turn has no pair for stays as it is.
    """
    if turn is None:
        return x
    pairs = turn[0].shape[-1]
    cosine, sine = (jnp.broadcast_to(t, (*x.shape[:-1], pairs)) for t in turn)
    y = x.astype(jnp.float32)
    first, second, rest = y[..., :pairs], y[..., pairs : 2 * pairs], y[..., 2 * pairs :]
    parts = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate([*parts, *([rest] if rest.shape[-1] else [])], axis=-1).astype(x.dtype)
