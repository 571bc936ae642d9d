"""An experiment of a campaign."""

from typing import Literal, NamedTuple


class Trial(NamedTuple):
    """One experiment.

    **Arguments:** `number`: to tell its value by; `point`: its quantities by name; `status`;
    `value`: what came out of it, `None` as long as that is not known, or if it failed; `metrics`:
    what the method said of its state when it was asked; `fidelity`: 0 is the cheapest.
    """

    number: int
    point: dict[str, float]
    status: Literal["asked", "told", "failed"] = "asked"
    value: float | None = None
    metrics: dict[str, float] = {}  # noqa: RUF012 (never written to)
    fidelity: int = 0
