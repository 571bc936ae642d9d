"""Where each claim stands, from the records of its runs."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

from headwater.evidence.claim import SCALES, Claim
from headwater.evidence.record import Record, latest

Standing = Literal["holds", "fails", "undecided", "error", "not run"]

_WORST_FIRST: tuple[Standing, ...] = ("error", "fails", "undecided", "holds")


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """Where a claim stands: at the largest scale that it was run at, over the seeds there.

    **Arguments:** `claim`; `scale`: that scale, if any; `records`: the last of each seed there;
    `others`: the last of each seed at smaller scales.
    """

    claim: Claim
    scale: str | None
    records: tuple[Record, ...]
    others: tuple[Record, ...]

    @property
    def verdict(self) -> Standing:
        """What the worst seed says: `error`, then `fails`, then `undecided`, then `holds`."""
        found = {record.outcome for record in self.records}
        for outcome in _WORST_FIRST:
            if outcome in found:
                return outcome
        return "not run"

    def to_json(self) -> dict[str, Any]:
        """Everything but the records, as values that JSON can hold."""
        claim = self.claim
        return {
            "claim": claim.name,
            "statement": claim.statement,
            "methods": list(claim.methods),
            "paper": claim.paper,
            "where": claim.where,
            "scales": list(claim.scales),
            "learned": claim.learned,
            "verdict": self.verdict,
            "scale": self.scale,
            "seeds": {record.seed: record.outcome for record in self.records},
        }


def summarise(claims: Iterable[Claim], records: Iterable[Record]) -> list[Summary]:
    """A summary of each claim, in the order given."""
    last = latest(records).values()
    found = []
    for claim in claims:
        of_claim = sorted((r for r in last if r.claim == claim.name), key=lambda r: r.seed)
        scale = next((s for s in reversed(SCALES) if any(r.scale == s for r in of_claim)), None)
        at = tuple(r for r in of_claim if r.scale == scale)
        found.append(Summary(claim, scale, at, tuple(r for r in of_claim if r.scale != scale)))
    return found
