"""Rewards of parts of responses: of stretches of one length, and of several judges together."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenReward


class SegmentPattern(AbstractTokenReward):
    """Rewards every stretch of tokens in which most are those of a pattern, and punishes others.

    **Arguments:** `pattern`: the tokens of the response that is right everywhere, whose length is
    a multiple of `size`, after a prompt of one token; `size`: tokens in a stretch; `worth`: the
    reward of a stretch with more right tokens than wrong ones, and what others cost. Raises
    `SpecificationError` if the pattern cannot be divided.
    """

    pattern: Int[Array, " token"]
    worth: float | Float[Array, ""] = 0.5
    size: int = eqx.field(static=True, default=3)

    def __check_init__(self):
        if self.size < 1 or self.pattern.shape[0] % self.size:
            raise SpecificationError(
                f"a pattern of {self.pattern.shape[0]} tokens cannot be divided into stretches of "
                f"{self.size}: take a divisor"
            )

    def __call__(self, data: Completions) -> Float[Array, "*batch position"]:
        tokens = jnp.asarray(data.tokens)
        right = tokens[..., 1:] == jnp.broadcast_to(self.pattern, tokens[..., 1:].shape)
        stretches = right.reshape(*right.shape[:-1], -1, self.size)
        most = 2 * jnp.sum(stretches, axis=-1) > self.size
        earned = jnp.where(most, self.worth, -self.worth)
        # At the last token of each stretch; the prompt is the first token.
        last = jnp.zeros(tokens.shape, jnp.float32)
        last = last.at[..., self.size :: self.size].set(earned)
        return jnp.where(jnp.asarray(data.response), last, 0.0)


class WeightedParts(AbstractTokenReward):
    """The weighted sum of what several judges say of parts of responses.

    **Arguments:** `judges`; `weights`: one for each. Raises `SpecificationError` if they are not as
    many, or none.
    """

    judges: tuple[AbstractTokenReward, ...]
    weights: Float[Array, " judge"]

    def __check_init__(self):
        if not self.judges or self.weights.shape != (len(self.judges),):
            raise SpecificationError(
                f"{len(self.judges)} judges need a weight each, not weights of shape "
                f"{list(self.weights.shape)}"
            )

    def __call__(self, data: Completions) -> Float[Array, "*batch position"]:
        return jnp.tensordot(self.weights, jnp.stack([judge(data) for judge in self.judges]), 1)
