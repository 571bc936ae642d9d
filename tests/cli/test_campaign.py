"""`headwater campaign`, as a person gives it."""

import json

import pytest

import headwater as hw

from .asking import ask, done

SPACE = ("-q", "rate=1e-3:1:log", "-q", "layers=1:5:whole")
METHOD = ("--method", "GPUCB", "--set", "fit_steps=4", "--set", "initial_points=2")


@pytest.fixture
def begun(tmp_path):
    """A campaign that was begun just now."""
    file = tmp_path / "campaign.json"
    shown = done("campaign", "start", file, *SPACE, *METHOD)
    assert shown == f"{file} begins; the next one: headwater campaign ask {file}\n"
    return file


def test_the_command_line_does_what_the_object_does(begun, tmp_path):
    space = {
        "rate": hw.Component(1e-3, 1.0, logarithmic=True),
        "layers": hw.Component(1, 5, whole=True),
    }
    twin = hw.Campaign(space, method=hw.GPUCB(fit_steps=4, initial_points=2))
    (tmp_path / "before.csv").write_text("layers,rate,accuracy\n2,0.01,-2.0\n4,0.5,-1.5\n")
    told = done("campaign", "add", begun, tmp_path / "before.csv", "--value", "accuracy")
    assert told == "2 experiments of before added; 2 in all\n"
    twin.add([{"rate": 0.01, "layers": 2}, {"rate": 0.5, "layers": 4}], [-2.0, -1.5])
    asked = json.loads(done("campaign", "ask", begun, "-n", 2, "--json"))
    assert asked == [
        {"number": t.number, "point": t.point, "fidelity": 0} for t in (twin.ask(), twin.ask())
    ]
    shown = done("campaign", "tell", begun, 1, "-1.25")
    assert shown == "experiment 1: -1.25; the best value so far is -1.25\n"
    assert json.loads(done("campaign", "tell", begun, 0, "--failed", "--json")) == {
        "best": {"point": asked[1]["point"], "value": -1.25},
        "pending": [],
    }
    twin.tell(1, -1.25)
    twin.tell(0, None)
    found = json.loads(done("campaign", "show", begun, "--json"))
    assert found["recommended"] == twin.recommend()
    assert [trial["status"] for trial in found["trials"]] == ["failed", "told"]
    assert found["method"]["method"] == "GPUCB" and found["method"]["fit_steps"] == 4
    shown = done("campaign", "show", begun, "-o", tmp_path / "page.html")
    rows = [line.split() for line in shown.splitlines() if line.strip()]
    assert rows[0] == ["experiment", "rate", "layers", "value"]
    assert rows[2] == ["before", "1", "0.01", "2", "-2"]
    assert [row[-1] for row in rows[4:6]] == ["failed", "-1.25"]
    assert "1 told, 0 pending, 1 failed, 2 of before; there may be 200." in shown
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 1 and "The highest value so far is -1.25." in page
    # Going on is the same command; it says how far it is.
    again = done("campaign", "start", begun, *SPACE, *METHOD)
    assert again.startswith(f"{begun} goes on after 4 experiments; ")


def test_a_changed_space_is_refused_and_the_file_stays(begun):
    before = begun.read_bytes()
    answer = ask("campaign", "start", begun, *SPACE[:2], "-q", "layers=1:6:whole", *METHOD)
    assert answer.status == 1 and answer.err == (
        f"error: the campaign in {begun} is of another space (high was (1, 5) and is (1, 6)): give "
        "the space as it was, or begin a new file and `add` the experiments that are still of use\n"
    )
    answer = ask("campaign", "start", begun, *SPACE, "--minimise", *METHOD)
    assert "was begun with another minimise (False, not True)" in answer.err
    assert begun.read_bytes() == before


def test_only_some_points_are_possible(tmp_path):
    (tmp_path / "points.csv").write_text("dose,hours\n0.1,4\n0.2,8\n0.7,4\n")
    file = tmp_path / "campaign.json"
    done("campaign", "start", file, "--points", tmp_path / "points.csv", "--method", "RandomSearch")
    (asked,) = json.loads(done("campaign", "ask", file, "--json"))
    assert asked["point"] in (
        {"dose": 0.1, "hours": 4.0},
        {"dose": 0.2, "hours": 8.0},
        {"dose": 0.7, "hours": 4.0},
    )
    shown = done("campaign", "ask", file)
    assert shown.startswith("experiment 1:  dose = 0.")
    assert shown.endswith(f"tell what comes out: headwater campaign tell {file} 1 VALUE\n")


def test_cheap_experiments_are_kept_apart_from_the_real_ones(tmp_path):
    file = tmp_path / "campaign.json"
    method = ("--method", "MFGPUCB", "--set", "initial_points=2", "--set", "hyperparameters=given")
    done("campaign", "start", file, "-q", "x=0:1", "--cost", "0.1", "--cost", "1", *method)
    (tmp_path / "before.csv").write_text("x,value,fidelity\n0.2,5.0,0\n0.9,1.0,1\n")
    done("campaign", "add", file, tmp_path / "before.csv")
    shown = done("campaign", "ask", file)
    assert " at fidelity 1\n" in shown and "x = 0.2" in shown
    done("campaign", "tell", file, 0, 0.5)
    shown = done("campaign", "show", file)
    assert "those asked for cost 1. The highest value so far is 1." in shown
    rows = [line.split() for line in shown.splitlines() if line.strip()]
    assert rows[0][-2:] == ["fidelity", "value"] and rows[2][-2:] == ["0", "5"]
    (tmp_path / "before.csv").write_text("x,value,fidelity\n0.2,5.0,2\n")
    answer = ask("campaign", "add", file, tmp_path / "before.csv")
    assert answer.err == "error: row 1: fidelity 2 is not one of 0 … 1\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("start", "NEW"), "give either --quantity, once for each"),
        (("start", "NEW", "-q", "x=0"), "x: '0' is not of the form NAME=LOW:HIGH"),
        (("start", "NEW", "-q", "x=0:1:cubic"), "x: 'cubic' is neither log nor whole"),
        (("start", "NEW", "-q", "x=0:1:"), "x: '' is neither log nor whole"),
        (("start", "NEW", "-q", "x=0:1", "-q", "x=0:2"), "a quantity is named twice"),
        (("start", "NEW", "-q", "x=1:0"), "x lies between 1 and 0"),
        (("start", "NEW", "-q", "x=0:1", "--method", "IQL"), "IQL proposes no experiments"),
        (("start", "NEW", "--points", "NEW"), "NEW: there is no such file"),
        (("ask", "NEW"), "there is no campaign at NEW: begin one with"),
        (("ask", "OLD", "-n", "0"), "--count is 0: at least one"),
        (("tell", "OLD", "0", "1.5"), "there is no experiment 0: there are 0, numbered from 0"),
        (("tell", "OLD", "0"), "tell either the value of experiment 0 or --failed"),
        (("tell", "OLD", "0", "1", "--failed"), "tell either the value of experiment 0 or"),
        (("show", "OLD", "-o", "page.pdf"), "page.pdf is neither an .html page nor a .png"),
        (("show", "OLD", "-o", "page.png"), "nothing was told yet, so that there is nothing to"),
        (("add", "OLD", "TABLE"), "there is no column 'value': say which"),
    ],
)
def test_what_cannot_be_done_is_said(arguments, sentence, begun, tmp_path):
    (tmp_path / "table.csv").write_text("rate,layers\n0.1,2\n")
    places = {"OLD": begun, "NEW": tmp_path / "NEW", "TABLE": tmp_path / "table.csv"}
    answer = ask("campaign", *(places.get(part, part) for part in arguments))
    assert answer.status == 1 and answer.out == ""
    assert sentence in answer.err.replace(str(tmp_path / "NEW"), "NEW")
    assert answer.err.count("\n") == 1
