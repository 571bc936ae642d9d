"""What a run of a claim leaves behind, and reading it back."""

import dataclasses
import json
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from headwater.core.errors import RunError, SpecificationError
from headwater.evidence.claim import Claim
from headwater.evidence.fingerprints.fingerprint import reached_by
from headwater.evidence.record import (
    Record,
    append,
    latest,
    read_records,
    record_of_death,
    run_claim,
    source_of,
)
from headwater.evidence.registry import all_claims, claim_named
from headwater.evidence.summary import summarise

from .own_claims import BY_NAME, CLAIMS


@pytest.fixture(scope="module")
def held():
    return run_claim(BY_NAME["zz-holds"], "small", seed=3)


def test_a_record_survives_the_file(held, tmp_path):
    path = append(tmp_path, held)
    assert path == tmp_path / "zz-holds.jsonl"
    (line,) = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert row["numbers"]["never"] == "inf" and row["criteria"][0]["verdict"] == "holds"
    records, complaints = read_records(tmp_path)
    assert records == [held] and complaints == []


def test_what_is_recorded(held):
    assert held.place == ("zz-holds", "small", 3) and held.outcome == "holds"
    assert held.made_with["versions"].keys() >= {"headwater", "jax", "numpy"}
    assert held.made_with["python"].count(".") == 2 and "cpu" in held.made_with["device"]
    assert held.time.endswith("Z") and held.seconds >= 0.0 and len(held.source) == 16
    assert (held.across, held.up, held.logarithmic) == ("step", "height | sum", "x")
    walk = np.random.default_rng(3).normal(size=(8, 200)).cumsum(1)
    np.testing.assert_allclose(held.numbers["last"], walk[:, -1], rtol=1e-6)
    assert held.criteria[0].value.point == pytest.approx(walk[:, -1].mean())


def test_the_commit_is_that_of_the_tree(held):
    ask = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    done = subprocess.run(ask, capture_output=True, text=True)
    if done.returncode:
        assert held.commit is None and held.dirty is None
    else:
        assert len(held.commit) == 40 and isinstance(held.dirty, bool)


def test_curves_are_thinned_to_the_mean_and_its_band(held):
    curve = held.curves["walks"]
    walk = np.random.default_rng(3).normal(size=(8, 200)).cumsum(1)
    assert 16 <= len(curve.x) <= 32 and (curve.x[0], curve.x[-1]) == (1.0, 200.0)
    assert curve.seeds == 8 and curve.low is not None and curve.high is not None
    kept = walk[:, np.asarray(curve.x, int) - 1]
    np.testing.assert_allclose(curve.mean, kept.mean(0), rtol=1e-4, atol=1e-4)
    assert all(low <= m <= high for low, m, high in zip(curve.low, curve.mean, curve.high))
    # A run takes a few kilobytes: results are kept with the code.
    assert len(json.dumps(held.to_json())) < 4_000


def test_an_experiment_that_raises_is_recorded(tmp_path):
    record = run_claim(BY_NAME["zz-raises"], "smoke")
    assert record.outcome == "error" and record.criteria == ()
    assert record.message.startswith("ValueError: no such size as 4 (own_claims.py, line ")
    append(tmp_path, record)
    assert read_records(tmp_path)[0] == [record]


def test_a_curve_of_the_wrong_shape_is_an_error_of_the_claim():
    claim = BY_NAME["zz-holds"]
    finding = claim.find("smoke", seed=0)
    for x, y in ((np.arange(3), np.zeros(3)), (np.arange(3), np.zeros((2, 4)))):
        wrong = dataclasses.replace(finding, curves={"odd": (x, y)})
        other = dataclasses.replace(claim, experiment=lambda seed, size, f=wrong: f)
        record = run_claim(other, "smoke")
        assert record.outcome == "error" and "the curve 'odd' has x of shape" in record.message


def test_a_scale_that_a_claim_lacks_is_not_recorded():
    with pytest.raises(SpecificationError, match="zz-holds: unknown scale 'paper'"):
        run_claim(BY_NAME["zz-holds"], "paper")


def test_damaged_lines_are_named_and_skipped(held, tmp_path):
    path = append(tmp_path, held)
    good = path.read_bytes()
    row = held.to_json()
    del row["seed"]
    spoiled = [
        good[: len(good) // 2],
        b"\xff\xfe",
        b"[1, 2]",
        json.dumps(row).encode(),
        json.dumps({**held.to_json(), "outcome": "maybe"}).encode(),
        json.dumps({**held.to_json(), "criteria": [{"what": "x"}]}).encode(),
        json.dumps({**held.to_json(), "claim": "another"}).encode(),
    ]
    text = good + b"\n".join(spoiled) + b"\n\n" + good
    path.write_bytes(text)
    records, complaints = read_records(tmp_path)
    assert records == [held, held]
    reasons = [
        "it is cut short or no JSON",
        "it is cut short or no JSON",
        "it is no JSON object",
        "it has no 'seed'",
        "'small' or 'maybe' is unknown",
        "a field is not of its type",
        "it is a record of another",
    ]
    assert len(complaints) == len(reasons)
    for number, (complaint, reason) in enumerate(zip(complaints, reasons), start=2):
        assert complaint.startswith(f"{path}, line {number}: skipped, {reason}")
    assert path.read_bytes() == text


def test_a_line_cut_short_spoils_no_other(held, tmp_path):
    path = append(tmp_path, held)
    path.write_bytes(path.read_bytes() + b'{"claim":"zz-ho')
    append(tmp_path, held)
    records, complaints = read_records(tmp_path)
    assert len(records) == 2 and len(complaints) == 1 and "line 2" in complaints[0]


def test_several_writers_lose_nothing(held, tmp_path):
    writers = [
        threading.Thread(target=lambda: [append(tmp_path, held) for _ in range(10)])
        for _ in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    records, complaints = read_records(tmp_path)
    assert len(records) == 40 and complaints == []


def test_results_that_cannot_be_written(held, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="there is a file where a directory is needed"):
        append(tmp_path / "file", held)


def test_only_the_records_of_some_claims(held, tmp_path):
    append(tmp_path, held)
    assert read_records(tmp_path, ["zz-raises"]) == ([], [])
    assert read_records(tmp_path / "nowhere") == ([], [])
    assert read_records(tmp_path, ["zz-holds"])[0] == [held]


def test_the_fingerprint_knows_the_file_of_an_own_claim(held):
    assert source_of(BY_NAME["zz-holds"], held.scale) == held.source
    ours = {source_of(claim, held.scale) for claim in list(all_claims().values())[::25]}
    assert held.source not in ours


def test_the_fingerprint_is_of_what_the_claim_can_reach():
    same, other = (
        claim_named(name) for name in ("mvp-is-optimistic", "regime-designs-comparisons")
    )
    reached = reached_by(same.experiment, same.methods, same.scales)
    files = {definition.file.path.name for definition in reached}
    assert {"mvp.py", "planning.py", "statistics.py"} <= files
    # Not what imports it, nor what it has nothing to do with.
    assert not files & {"record.py", "registry.py", "summary.py", "dpo.py", "curves.py"}
    assert source_of(same, "small") == source_of(same, "small") != source_of(other, "small")


_FILE = """
from {module} import Claim

def run(seed, size):
    return seed + size

CLAIMS = (
    Claim("a", "It holds.", ("IQL",), "Nobody", "Theorem 1", {{"smoke": {{"size": 4}}}}, run),
)
"""


def _source_of(folder, *, name="a", old="", new=""):
    folder.mkdir()
    file = folder / f"{folder.name}.py"
    text = _FILE.format(module=Claim.__module__)
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    return source_of(all_claims([file])[name], "smoke")


@pytest.mark.parametrize(
    "old, new",
    (
        ("run),", 'run, learned="It fails."),'),
        ("It holds.", "It holds often."),
        ("Nobody", "Somebody"),
        ("Theorem 1", "Theorem 2"),
        ('"size": 4}}', '"size": 4}, "small": {"size": 40}}'),
        ("CLAIMS = (", 'CLAIMS = (\n    Claim("b", "", (), "", "", {}, lambda seed: seed),'),
    ),
)
def test_what_a_claim_says_is_not_in_the_fingerprint(tmp_path, old, new):
    assert _source_of(tmp_path / "changed", old=old, new=new) == _source_of(tmp_path / "before")


@pytest.mark.parametrize(
    "old, new",
    (('"size": 4', '"size": 5'), ("seed + size", "seed - size"), ('"IQL"', '"CQL"')),
)
def test_what_a_claim_executes_is_in_the_fingerprint(tmp_path, old, new):
    assert _source_of(tmp_path / "other", old=old, new=new) != _source_of(tmp_path / "first")


def test_a_summary_is_of_the_largest_scale_and_its_worst_seed(held):
    claim = BY_NAME["zz-holds"]
    smoke = dataclasses.replace(held, scale="smoke", outcome="fails")
    assert summarise([claim], [])[0].verdict == "not run"
    assert summarise([claim], [smoke])[0].verdict == "fails"
    (alone,) = summarise([claim], [held, smoke])
    assert (alone.scale, alone.verdict, alone.others) == ("small", "holds", (smoke,))
    later = [held, *(dataclasses.replace(held, seed=s, outcome=o) for s, o in
                     ((4, "undecided"), (5, "fails"), (6, "error")))]  # fmt: skip
    for count, verdict in ((1, "holds"), (2, "undecided"), (3, "fails"), (4, "error")):
        assert summarise([claim], later[:count])[0].verdict == verdict
    # A later run of a seed takes the place of an earlier one.
    mended = dataclasses.replace(later[3], outcome="holds")
    assert summarise([claim], [*later, mended])[0].verdict == "fails"
    assert len(latest([*later, mended])) == 4
    assert alone.to_json()["seeds"] == {3: "holds"}


def test_a_process_that_died_is_recorded(tmp_path):
    record = record_of_death(CLAIMS[0], "smoke", 1, 2.5, "the process ended by signal SIGKILL")
    append(tmp_path, record)
    (found,) = read_records(tmp_path)[0]
    assert isinstance(found, Record) and (found.outcome, found.seconds) == ("error", 2.5)
