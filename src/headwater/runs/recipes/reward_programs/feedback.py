"""What a proposer of rewards is told of those that were tried."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class Attempt(NamedTuple):
    """A reward that was tried.

    **Arguments:** `text`: the program; `terms`: the mean of each of its terms over the steps of the
    policies that were trained with it; `features`: the mean of each feature over the same steps,
    those that the program does not speak of included.
    """

    text: str
    terms: Mapping[str, float]
    features: Mapping[str, float]


class Round(NamedTuple):
    """Rewards that were tried together.

    **Arguments:** `attempts`; `best`, `worst`: what the judge said of them; `champion`: whom the
    judge preferred among the best of this round and of those before.
    """

    attempts: tuple[Attempt, ...]
    best: Attempt
    worst: Attempt
    champion: Attempt


@runtime_checkable
class Proposer(Protocol):
    """Writes rewards, from what came of those before."""

    def propose(self, rounds: Sequence[Round], count: int) -> list[str]:
        """`count` programs, to be tried next. **Arguments:** `rounds`: so far, the first first."""
        ...
