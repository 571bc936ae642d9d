"""Every claim runs at its smallest scale and comes to a verdict."""

import functools
from pathlib import Path

import pytest

from headwater.evidence.claim import Claim
from headwater.evidence.record import Record, read_records, run_claim, source_of
from headwater.evidence.registry import all_claims
from headwater.runs.directory import surroundings

RESULTS = Path(__file__).parents[2] / "results"


@functools.cache
def made_here() -> dict[str, list[Record]]:
    """Small runs that came to a verdict with the versions that are installed, by their claims."""
    records, _ = read_records(RESULTS)
    found: dict[str, list[Record]] = {}
    versions = surroundings()["versions"]
    for record in records:
        kept = record.scale == "small" and record.outcome != "error"
        if kept and record.made_with["versions"] == versions:
            found.setdefault(record.claim, []).append(record)
    return found


def was_run_larger(claim: Claim) -> bool:
    """Whether a small run of the very code that would run now is recorded.

    It shows all that a smoke run would show, so that what these runs cost grows with what has
    changed and not with the number of claims. `make evidence` runs them all.
    """
    kept = made_here().get(claim.name, [])
    return bool(kept) and source_of(claim, "small") in {record.source for record in kept}


def runs_at_smoke_scale(claim: Claim) -> None:
    record = run_claim(claim, "smoke", seed=0)
    assert record.outcome in ("holds", "fails", "undecided"), record.message
    assert record.criteria
    # As JSON: a number that is unknown equals nothing, not even itself.
    assert Record.from_json(record.to_json()).to_json() == record.to_json()


@pytest.mark.parametrize("name", all_claims())
def test_claim_at_smoke_scale(name):
    claim = all_claims()[name]
    if was_run_larger(claim):
        pytest.skip("a small run of this very code is recorded in results/")
    runs_at_smoke_scale(claim)


@pytest.mark.evidence
@pytest.mark.parametrize("name", all_claims())
def test_every_claim_at_smoke_scale(name):
    runs_at_smoke_scale(all_claims()[name])


def test_a_record_stands_for_its_very_code_only(monkeypatch):
    """Else a claim whose code has changed would not be run at all."""
    name, kept = next(iter(made_here().items()), (None, []))
    if name is None:
        pytest.skip("no record was made with the versions that are installed")
    claim = all_claims()[name]
    monkeypatch.setattr(f"{__name__}.source_of", lambda claim, scale: kept[0].source)
    assert was_run_larger(claim)
    monkeypatch.setattr(f"{__name__}.source_of", lambda claim, scale: "0" * 16)
    assert not was_run_larger(claim)
