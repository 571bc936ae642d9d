"""The commands about claims, as a person gives them."""

import json
from pathlib import Path

import pytest

from headwater.evidence import registry

from .asking import ask, done

OWN = Path(__file__).parents[1] / "evidence" / "own_claims.py"
FILE = ("--file", OWN)


@pytest.fixture(autouse=True)
def only_own_claims(monkeypatch, tmp_path):
    """Without ours, and in a folder of its own."""
    monkeypatch.setattr(registry, "claim_files", lambda: [])
    monkeypatch.chdir(tmp_path)


def test_overview():
    shown = done("claim", "--help")
    for name in ("claim list", "claim show", "claim run", "claim report"):
        assert f"  {name} " in shown
    assert "train" not in shown and done("claim") == shown


def test_from_the_list_to_the_report():
    shown = done("claim", "list", *FILE)
    assert shown.count("not run") == 5 and "headwater claim show NAME" in shown
    shown = done("claim", "run", "zz-holds", "zz-fails", *FILE, "--scale", "smoke")
    assert "zz-holds: holds (smoke, seed 0, " in shown
    assert "  walks: 4, must be ≤ 64: holds\n" in shown
    assert shown.rstrip().endswith("1 fails, 1 holds; results: results")
    shown = done("claim", "list", *FILE)
    assert "holds (smoke, 1 run)" in shown and "fails (smoke, 1 run)" in shown
    shown = done("claim", "report", *FILE)
    assert shown == "page: results/local/claims.html\ntext: results/local/claims.md\n"
    assert Path("results/local/figures/zz-fails.png").read_bytes().startswith(b"\x89PNG")


def test_show():
    nothing = done("claim", "show", "zz-fails", *FILE)
    assert "zz-fails <is> claimed.\n" in nothing
    assert "paper    Nobody and Noone 2020, arXiv 0000.00000: Theorem 0\n" in nothing
    assert "methods  IQL\nsmoke    size=4\nsmall    size=8\n" in nothing
    assert "learned  Walks stay low.\n" in nothing
    assert nothing.endswith("nothing is recorded in results: headwater claim run zz-fails\n")
    done("claim", "run", "zz-fails", *FILE, "--seed", "3", "4")
    shown = done("claim", "show", "zz-fails", *FILE)
    assert "zz-fails: fails (small, seed 3, " in shown and "(small, seed 4, " in shown
    assert "must be ≥ 200: fails" in shown


def test_json():
    ran = json.loads(done("claim", "run", "zz-holds", *FILE, "--scale", "smoke", "--json"))
    assert [row["outcome"] for row in ran] == ["holds"]
    listed = json.loads(done("claim", "list", *FILE, "--json"))
    assert {row["claim"]: row["verdict"] for row in listed} == {
        "zz-dies": "not run",
        "zz-fails": "not run",
        "zz-holds": "holds",
        "zz-raises": "not run",
        "zz-unsure": "not run",
    }
    shown = json.loads(done("claim", "show", "zz-holds", *FILE, "--json"))
    assert shown["runs"] == ran and shown["seeds"] == {"0": "holds"}
    report = json.loads(done("claim", "report", *FILE, "--out", "page", "--json"))
    assert report["page"] == "page/claims.html" and report["complaints"] == []


def test_an_error_shows_in_the_status():
    answer = ask("claim", "run", "zz-raises", "zz-holds", *FILE, "--scale", "smoke")
    assert answer.status == 1 and "ValueError: no such size as 4" in answer.out
    assert "Traceback" not in answer.out + answer.err
    # A claim that fails was run as well as any other.
    assert ask("claim", "run", "zz-fails", *FILE, "--scale", "smoke").status == 0


def test_damaged_results_are_said_and_not_lost():
    done("claim", "run", "zz-holds", *FILE, "--scale", "smoke")
    path = Path("results/zz-holds.jsonl")
    path.write_text("{broken\n" + path.read_text())
    Path("results/zz-gone.jsonl").write_text(path.read_text().replace("zz-holds", "zz-gone"))
    for command in (("list",), ("show", "zz-holds"), ("report",)):
        answer = ask("claim", *command, *FILE)
        assert answer.status == 0
        assert "results/zz-holds.jsonl, line 1: skipped, it is cut short or no JSON" in answer.err
    assert "results/zz-gone.jsonl: there is no such claim (any more)" in answer.err
    assert "line 1: skipped" in Path("results/local/claims.md").read_text(encoding="utf-8")
    assert "holds (smoke, 1 run)" in done("claim", "list", *FILE)


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("claim", "runs"), 2, "unknown command 'claim runs': did you mean claim run"),
        (("claim", "run"), 1, "name the claims to run, or give --all (but not both)"),
        (("claim", "run", "zz-holds", "--all"), 1, "name the claims to run, or give --all"),
        (("claim", "run", "zz-hold", *FILE), 1, "unknown claim 'zz-hold': did you mean zz-holds"),
        (("claim", "run", "zz-holds", "--scale", "tiny"), 2, "--scale: unknown value 'tiny'"),
        (("claim", "show"), 2, "CLAIM is missing"),
        (("claim", "list", "--file", "nowhere.py"), 1, "nowhere.py: there is no such Python file"),
    ],
)
def test_what_is_asked_wrongly(arguments, status, sentence):
    answer = ask(*arguments)
    assert answer.status == status and sentence in answer.err and answer.out == ""
