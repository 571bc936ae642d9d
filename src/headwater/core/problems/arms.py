"""What a bandit method is told: how many arms there are, and what is known of them."""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError


class Arms(eqx.Module):
    """The problem of a bandit method.

    **Arguments:** `arms`: how many; `context_size`: numbers that describe a round (0: none);
    `feature_size`: numbers that describe each arm (0: none); `features`: of the arms, where they
    are the same in every round; `low`, `high`: what rewards lie between, infinite where that is not
    known.

    Raises `SpecificationError` for sizes or bounds that cannot be.
    """

    arms: int = eqx.field(static=True)
    context_size: int = eqx.field(static=True, default=0)
    feature_size: int = eqx.field(static=True, default=0)
    features: Float[Array, "arm feature"] | None = None
    low: float = eqx.field(static=True, default=0.0)
    high: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        if self.arms < 2:
            raise SpecificationError(f"arms = {self.arms}: there is nothing to choose from")
        if self.context_size < 0 or self.feature_size < 0:
            raise SpecificationError("sizes of contexts and of features must not be negative")
        if not self.low < self.high:
            raise SpecificationError(
                f"rewards between {self.low:g} and {self.high:g}: the first must be the smaller"
            )
        features = self.features
        if isinstance(features, np.ndarray) and features.shape != (self.arms, self.feature_size):
            raise SpecificationError(
                f"features have shape {features.shape}: {self.arms} arms with {self.feature_size} "
                "features each need one row for each arm"
            )

    @property
    def bounded(self) -> bool:
        """Whether it is known what rewards lie between."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def require_bounded(self, method: str) -> tuple[float, float]:
        """The lowest and the highest reward. Raises `SpecificationError` if they are not known."""
        if not self.bounded:
            raise SpecificationError(
                f"{method} needs to know what rewards lie between: give a bandit with a finite "
                "`low` and `high`"
            )
        return self.low, self.high

    def require_features(self, method: str) -> int:
        """How many features arms have. Raises `SpecificationError` if `method` needs some."""
        if not self.feature_size:
            raise SpecificationError(
                f"{method} chooses by features of the arms, and there are none"
            )
        return self.feature_size

    def require_no_context(self, method: str) -> None:
        """Raises `SpecificationError` if rounds differ, to which `method` is blind."""
        if self.context_size:
            raise SpecificationError(
                f"{method} takes all rounds for alike, but here each has a context: take a method "
                "such as LinUCB"
            )
