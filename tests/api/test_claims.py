"""Running claims: one after the other or several at once, going on, and what goes wrong."""

import json
from pathlib import Path

import pytest

from headwater.api.evidence import claims
from headwater.api.evidence.claims import run_claims
from headwater.core.errors import SpecificationError
from headwater.evidence import registry
from headwater.evidence.record import read_records

OWN = Path(__file__).parents[1] / "evidence" / "own_claims.py"
ALL = ["zz-dies", "zz-fails", "zz-holds", "zz-raises", "zz-unsure"]
ALIVE = ALL[1:]


@pytest.fixture(autouse=True)
def only_own_claims(monkeypatch):
    """Without ours, whose import and run would take long."""
    monkeypatch.setattr(registry, "claim_files", lambda: [])


def _outcomes(done):
    return {record.claim: record.outcome for record in done.records}


def test_claims_one_after_the_other(tmp_path):
    reported = []
    done = run_claims(ALIVE, scale="smoke", out=tmp_path, files=[OWN], say=reported.append)
    expected = ["fails", "holds", "error", "undecided"]
    assert _outcomes(done) == dict(zip(ALIVE, expected))
    assert sorted(reported, key=lambda record: record.claim) == done.records
    assert sorted(path.stem for path in tmp_path.iterdir()) == ALIVE
    # Named claims are run whether or not they are recorded.
    assert len(run_claims(["zz-holds"], scale="smoke", out=tmp_path, files=[OWN]).records) == 1
    assert len(read_records(tmp_path)[0]) == 5


def test_all_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "all_claims", _without("zz-dies"))
    first = run_claims(["zz-holds"], scale="smoke", out=tmp_path, files=[OWN])
    done = run_claims(scale="smoke", seeds=(0, 1), out=tmp_path, files=[OWN])
    assert done.kept == first.records
    assert len(done.records) == 2 * len(ALIVE) - 1
    # Errors are tried again, and nothing else.
    again = run_claims(scale="smoke", seeds=(0, 1), out=tmp_path, files=[OWN])
    assert set(_outcomes(again)) == {"zz-raises"} and len(again.records) == 2
    every = run_claims(scale="smoke", seeds=(0,), out=tmp_path, files=[OWN], again=True)
    assert list(_outcomes(every)) == ALIVE and every.kept == []


def test_a_record_of_other_code_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "all_claims", _without("zz-dies", "zz-raises"))
    run_claims(scale="smoke", out=tmp_path, files=[OWN])
    path = tmp_path / "zz-fails.jsonl"
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "source": "0" * 16}) + "\n")
    again = run_claims(scale="smoke", out=tmp_path, files=[OWN])
    assert list(_outcomes(again)) == ["zz-fails"]


def test_only_claims_with_the_scale(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "all_claims", _without("zz-dies"))
    done = run_claims(scale="paper", out=tmp_path, files=[OWN])
    assert list(_outcomes(done)) == ["zz-unsure"]
    assert done.without == ["zz-fails", "zz-holds", "zz-raises"]


def test_several_processes_survive_one_that_dies(tmp_path):
    done = run_claims(ALL, scale="smoke", jobs=2, out=tmp_path, files=[OWN])
    expected = ["error", "fails", "holds", "error", "undecided"]
    assert _outcomes(done) == dict(zip(ALL, expected))
    assert done.records[0].message == (
        "the process ended by signal SIGKILL; memory may have run out"
    )
    alone = run_claims(["zz-holds"], scale="smoke", out=tmp_path, files=[OWN])
    (here,), (there,) = alone.records, [r for r in done.records if r.claim == "zz-holds"]
    assert here.criteria == there.criteria and here.curves == there.curves


def test_an_interrupt_keeps_what_is_done(tmp_path):
    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        run_claims(ALIVE, scale="smoke", out=tmp_path, files=[OWN], say=stop)
    assert caught.value.__notes__ == [f"1 of 4 claims were recorded in {tmp_path}"]
    assert len(read_records(tmp_path)[0]) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"names": ["zz-hold"]}, "unknown claim 'zz-hold': did you mean zz-holds"),
        ({"names": ["zz-holds"], "scale": "paper"}, "zz-holds: unknown scale 'paper'"),
        ({"names": ["zz-holds"], "scale": "tiny"}, "unknown scale 'tiny'"),
        ({"names": ["zz-holds"], "jobs": 0}, "jobs = 0: at least one process"),
        ({"names": ["zz-holds"], "seeds": ()}, "whole numbers from 0"),
        ({"names": ["zz-holds"], "seeds": (-1,)}, "whole numbers from 0"),
    ],
)
def test_what_cannot_be_run(options, reason, tmp_path):
    with pytest.raises(SpecificationError, match=reason):
        run_claims(**{"scale": "smoke", "out": tmp_path / "out", "files": [OWN], **options})
    assert not (tmp_path / "out").exists()


def _without(*names):
    return lambda files: {
        name: claim for name, claim in registry.all_claims(files).items() if name not in names
    }
