"""Papers, and what there is of each: methods, claims and their verdicts."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from headwater.analysis.registry import all_analyses
from headwater.core.catalogue import all_methods
from headwater.core.papers import Paper, all_papers
from headwater.evidence.record import Record
from headwater.evidence.registry import all_claims
from headwater.evidence.summary import Summary, summarise


class Coverage(NamedTuple):
    """What there is of a paper.

    **Arguments:** `paper`; `methods`: names in the catalogue; `analyses`: names of functions;
    `claims`: where each claim stands.
    """

    paper: Paper
    methods: tuple[str, ...]
    analyses: tuple[str, ...]
    claims: tuple[Summary, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything but the records of claims, as values that JSON can hold."""
        claims = {summary.claim.name: summary.verdict for summary in self.claims}
        named = {"methods": list(self.methods), "analyses": list(self.analyses)}
        return {**self.paper._asdict(), **named, "claims": claims}


def coverage(records: Iterable[Record] = ()) -> list[Coverage]:
    """What there is of every paper of `papers.bib`, by key.

    **Arguments:** `records`: of runs of claims; without them no claim has a verdict.
    """
    methods = {name: cls.info.paper for name, cls in all_methods().items()}
    analyses = all_analyses().values()
    summaries = summarise(all_claims().values(), records)
    return [
        Coverage(
            paper,
            tuple(name for name, of in methods.items() if of == key),
            tuple(analysis.name for analysis in analyses if analysis.paper == key),
            tuple(summary for summary in summaries if summary.claim.paper == key),
        )
        for key, paper in all_papers().items()
    ]
