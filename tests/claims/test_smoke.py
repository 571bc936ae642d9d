"""Every claim runs at its smallest scale and comes to a verdict."""

import pytest

from headwater.evidence.record import Record, run_claim
from headwater.evidence.registry import all_claims


@pytest.mark.repeated_on_change(claim=True)
@pytest.mark.parametrize("name", all_claims())
def test_claim_at_smoke_scale(name):
    record = run_claim(all_claims()[name], "smoke", seed=0)
    assert record.outcome in ("holds", "fails", "undecided"), record.message
    assert record.criteria
    # As JSON: a number that is unknown equals nothing, not even itself.
    assert Record.from_json(record.to_json()).to_json() == record.to_json()
