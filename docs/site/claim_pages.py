"""The pages of claims and papers, with verdicts from the records in `results/`."""

import functools
import importlib
from pathlib import Path

from links import ROOT, method_link, title_of
from tables import stacked, table

from headwater.core.papers import paper
from headwater.evidence.claim import Claim
from headwater.evidence.papers import coverage
from headwater.evidence.record import Record, read_records
from headwater.evidence.registry import claim_files
from headwater.evidence.summary import Summary, summarise


@functools.cache
def records() -> list[Record]:
    """The runs of claims in `results/`."""
    return read_records(ROOT / "results")[0]


@functools.cache
def summaries() -> dict[str, tuple[Summary, str]]:
    """Where each claim stands by its records in `results/`, and the file that holds it."""
    claims, files = [], {}
    for name in claim_files():
        module = importlib.import_module(f"headwater.claims.{name}")
        for claim in getattr(module, "CLAIMS", ()):
            claims.append(claim)
            files[claim.name] = f"/src/headwater/claims/{name.replace('.', '/')}.py"
    found = summarise(claims, records())
    return {
        s.claim.name: (s, files[s.claim.name]) for s in sorted(found, key=lambda s: s.claim.name)
    }


def claim_pages() -> dict[str, str]:
    """A page for each claim, and one of all of them."""
    pages = {f"claims/{name}.md": _claim_page(*found) for name, found in summaries().items()}
    verdicts = [summary.verdict for summary, _ in summaries().values()]
    counts = ", ".join(f"**{v}** {verdicts.count(v)}" for v in sorted(set(verdicts)))
    text = "# All claims\n\n[What a claim is, and how to run one](/docs/claims.md). "
    text += f"There are {len(verdicts)} ({counts}); "
    text += "`headwater claim report` draws them.\n"
    folders: dict[str, list[Summary]] = {}
    for summary, file in summaries().values():
        folders.setdefault(file.split("/claims/")[1].rpartition("/")[0], []).append(summary)
    for folder in sorted(folders):
        text += f"\n## {title_of(folder)}\n\n{_claim_table(folders[folder])}\n"
    return {**pages, "all_claims.md": text}


def claims_of(method: str) -> list[str]:
    """The section of a method's page with the claims about it, if there are any."""
    mine = [summary for summary, _ in summaries().values() if method in summary.claim.methods]
    return [f"\n## Claims\n\n{_claim_table(mine)}"] if mine else []


def _claim_table(found: list[Summary]) -> str:
    rows = [
        [f"[{s.claim.name}](/docs/claims/{s.claim.name}.md)<br>{s.claim.statement}", _verdict(s)]
        for s in found
    ]
    return table(["claim", "verdict"], rows)


def _mark(verdict: str) -> str:
    return f"**{verdict}**{{ .{verdict.replace(' ', '-')} }}"


def _verdict(summary: Summary) -> str:
    mark = _mark(summary.verdict)
    if summary.scale is None:
        return mark
    seeds = ", ".join(str(record.seed) for record in summary.records)
    return f"{mark}<br>{summary.scale} scale, seed{'s' if ',' in seeds else ''} {seeds}"


def _claim_page(summary: Summary, file: str) -> str:
    claim = summary.claim
    lines = [
        f"# {claim.name}",
        claim.statement,
        f"**Verdict:** {_verdict(summary).replace('<br>', ', ')}",
    ]
    lines += [f"**Learned:** {claim.learned}"] if claim.learned else []
    lines.append(
        f"- **Paper:** {citation(claim.paper)}\n"
        f"- **There:** {claim.where}\n"
        f"{_methods(claim)}"
        f"- **Source:** [{Path(file).name}]({file})"
    )
    for record in summary.records:
        rows = [[c.what, c.found, c.bound, _mark(c.verdict)] for c in record.criteria]
        shown = table(["number", "found", "must be", "verdict"], rows) if rows else record.message
        lines.append(f"## Found with seed {record.seed}\n\n{shown}")
        lines.append(
            f"{record.time[:10]}, {record.seconds:.0f} s, commit {(record.commit or 'unknown')[:9]}"
        )
    lines.append("## Try it")
    lines.append(f"```sh\nheadwater claim run {claim.name}\n```")
    return "\n\n".join(lines) + "\n"


def papers_page() -> str:
    """Every paper with its methods, analyses, claims and their verdicts."""
    rows = []
    for row in coverage(records()):
        claims = [
            f"[{s.claim.name}](/docs/claims/{s.claim.name}.md): {_mark(s.verdict)}"
            for s in row.claims
        ]
        named = [*map(method_link, row.methods), *(f"`{name}`" for name in row.analyses)]
        rows.append([citation(row.paper.key), ", ".join(named), "<br>".join(claims)])
    text = "---\nhide: [toc]\n---\n\n# Papers\n\n"
    text += f"{len(rows)} papers, what there is of each, and what [claims](/docs/claims.md) found. "
    text += "`headwater papers` prints the same.\n\n"
    return text + stacked(["paper", "methods and analyses", "claims and verdicts"], rows, "papers")


def citation(key: str) -> str:
    """A paper in one sentence, with a link to its text if that is on arXiv."""
    known = paper(key)
    link = f"[arXiv:{known.arxiv}](https://arxiv.org/abs/{known.arxiv})"
    return known.citation.replace(f"arXiv:{known.arxiv}", link) if known.arxiv else known.citation


def _methods(claim: Claim) -> str:
    """The line of methods, which a claim about an analysis has not."""
    named = ", ".join(map(method_link, claim.methods))
    return f"- **Methods:** {named}\n" if named else ""
