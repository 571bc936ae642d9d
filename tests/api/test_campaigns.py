"""Campaigns of experiments of one's own: files, kills, other spaces, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import headwater as hw
from headwater.api.campaigns import campaign as campaign_file
from headwater.api.campaigns.quantities import unit_point, whole_number
from headwater.core.errors import DataError, RunError, SpecificationError

SPACE = {
    "rate": hw.Component(1e-3, 1.0, logarithmic=True),
    "layers": hw.Component(1, 5, whole=True),
}
METHOD = hw.GPUCB(fit_steps=4, initial_points=2)


def value(point):
    """Highest at a rate of 0.1 with three layers."""
    return -abs(np.log10(point["rate"]) + 1.0) - abs(point["layers"] - 3)


def begun(path, **options):
    return hw.Campaign(SPACE, path, method=METHOD, **options)


def test_it_goes_on_from_its_file_as_if_nothing_had_happened(tmp_path):
    whole, parts = begun(None), tmp_path / "campaign.json"
    first = begun(parts)
    for _ in range(5):
        trial = whole.ask()
        whole.tell(trial.number, value(trial.point))
    for _ in range(5):
        trial = begun(parts).ask()
        assert begun(parts).pending == [trial]
        hw.Campaign.open(parts).tell(trial.number, value(trial.point))
    again = hw.Campaign.open(parts)
    assert again.trials == whole.trials and again.best == whole.best
    # What others told in the meantime is read before anything is said of it.
    assert again.recommend() == first.recommend() == whole.recommend()
    assert all(isinstance(t.point["layers"], int) for t in again.trials)
    assert set(again.trials[-1].metrics) >= {"jitter", "noise"}


def test_several_are_asked_before_the_first_is_told():
    campaign = begun(None)
    campaign.add([{"rate": 0.01, "layers": 2}, {"rate": 0.5, "layers": 4}], [-2.0, -1.7])
    asked = [campaign.ask() for _ in range(3)]
    assert len({tuple(trial.point.values()) for trial in asked}) == 3
    for trial in reversed(asked):
        campaign.tell(trial.number, value(trial.point))
    assert not campaign.pending


def test_an_experiment_costs_no_more_for_those_before_it(monkeypatch):
    """Each point is brought into the unit cube once, and up to 64 share their programs."""
    looked = []

    def counted(*given):
        looked.append(given)
        return unit_point(*given)

    monkeypatch.setattr(campaign_file, "unit_point", counted)
    campaign = begun(None)
    rng = np.random.default_rng(0)
    earlier = [
        {"rate": float(r), "layers": 1 + i % 5} for i, r in enumerate(rng.uniform(0.01, 1, 30))
    ]
    campaign.add(earlier, [value(point) for point in earlier])
    programs = None
    for _ in range(5):
        trial = campaign.ask()
        campaign.tell(trial.number, value(trial.point))
        size = campaign_file._propose._cached._cache_size()
        programs = size if programs is None else programs
        assert size == programs
    assert len(looked) <= 30 + 4


def test_less_may_be_better_and_candidates_keep_their_digits():
    points = [{"x": x} for x in (0.1, 0.2, 0.7)]
    campaign = hw.Campaign(points, method=METHOD, minimise=True)
    campaign.add(points, [1.0, -3.0, 2.0])
    assert campaign.best.point == {"x": 0.2}
    assert campaign.recommend() == {"x": 0.2}
    assert campaign.ask().point in points


def test_a_failed_experiment_teaches_nothing():
    campaign, without = begun(None), begun(None)
    for one in (campaign, without):
        one.add([{"rate": 0.01, "layers": 2}], [-2.0])
    campaign.tell(campaign.ask().number, None)
    assert campaign.trials[0].status == "failed" and campaign.best.value == -2.0
    assert campaign.recommend() == without.recommend()


@pytest.mark.slow(reason="starts a process of its own, which is killed")
def test_a_campaign_killed_between_ask_and_tell_goes_on(tmp_path):
    path = tmp_path / "campaign.json"
    program = f"""
        import time, headwater as hw
        space = {{"rate": hw.Component(1e-3, 1.0, logarithmic=True),
                 "layers": hw.Component(1, 5, whole=True)}}
        method = hw.GPUCB(fit_steps=4, initial_points=2)
        print(hw.Campaign(space, {str(path)!r}, method=method).ask().number, flush=True)
        time.sleep(600)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    campaign = begun(path)
    (waiting,) = campaign.pending
    assert waiting == begun(None).ask()
    campaign.tell(waiting.number, 1.0)
    assert hw.Campaign.open(path).best.point == waiting.point


@pytest.mark.parametrize(
    "space, sentence",
    [
        ({**SPACE, "layers": hw.Component(1, 6, whole=True)},
         r"is of another space \(high was \(1, 5\) and is \(1, 6\)\)"),
        ({"rate": (1e-3, 1.0), "layers": SPACE["layers"]}, "is of another space .logarithmic was"),
        ({"rate": SPACE["rate"]}, "is of another space .quantities were rate, layers and are rate"),
    ],
)  # fmt: skip
def test_a_space_that_has_changed_is_refused(space, sentence, tmp_path):
    begun(tmp_path / "campaign.json")
    before = (tmp_path / "campaign.json").read_bytes()
    with pytest.raises(SpecificationError, match=sentence):
        hw.Campaign(space, tmp_path / "campaign.json", method=METHOD)
    assert (tmp_path / "campaign.json").read_bytes() == before


def test_another_method_is_refused_and_a_damaged_file_too(tmp_path):
    path = tmp_path / "campaign.json"
    begun(path)
    with pytest.raises(SpecificationError, match=r"begun with another method \(GPUCB, not Rand"):
        hw.Campaign(SPACE, path, method="RandomSearch")
    stored = json.loads(path.read_text())
    for change in (
        {"trials": [{"number": 0}]},
        {"trials": [{"number": 3, "point": {}, "status": "asked"}]},
        {"trials": [{"number": 0, "point": {"rate": 0.1, "layers": 1}, "status": "told"}]},
        {"space": {}},
        {"space": {**stored["space"], "low": stored["space"]["high"]}},
        {"trials": {}},
        {"trials": [3]},
        {"trials": [{"number": 0, "point": {}, "status": "told", "value": True}]},
        {"trials": [{"number": 0, "point": {"rate": 0.1, "layers": 1}, "note": "by hand"}]},
        {"names": "rl"},
    ):
        path.write_text(json.dumps({**stored, **change}))
        with pytest.raises(RunError, match=r"campaign\.json is no campaign"):
            hw.Campaign.open(path)
    path.write_text(json.dumps(stored | {"method": 5}))
    with pytest.raises(SpecificationError, match="unknown method '5'"):
        hw.Campaign.open(path)
    path.write_text(json.dumps(stored | {"format": 2}))
    with pytest.raises(RunError, match="a campaign of format 2, and this version of Headwater"):
        hw.Campaign.open(path)
    path.write_text("{")
    with pytest.raises(RunError, match="cannot be read as a campaign"):
        begun(path)


def test_what_cannot_be_told():
    campaign = begun(None)
    campaign.add([{"rate": 0.01, "layers": 2}], [-2.0])
    trial = campaign.ask()
    for number, told, error, sentence in (
        (trial, 0.0, SpecificationError, "told by its number, trial.number, not by Trial"),
        (False, 0.0, SpecificationError, "told by its number, trial.number, not by False"),
        (1, 0.0, SpecificationError, "there is no experiment 1: there are 1"),
        (0, float("nan"), DataError, "experiment 0 is nan: tell None if the experiment failed"),
        (0, "good", DataError, "experiment 0 is no number"),
    ):
        with pytest.raises(error, match=sentence):
            campaign.tell(number, told)
    campaign.tell(trial.number, 1.0)
    campaign.tell(trial.number, 1.0)
    with pytest.raises(SpecificationError, match="experiment 0 was told already: 1"):
        campaign.tell(trial.number, 2.0)
    assert campaign.trials[0].value == 1.0
    for point, sentence in (
        ({"rate": 0.01}, "row 1 has no 'layers'"),
        ({"rate": 0.01, "layers": 9}, "row 1: layers = 9 lies outside of 1 … 5"),
        ({"rate": 0.01, "layers": 2, "layres": 2}, "row 1: unknown quantity 'layres'"),
        ({"rate": 0.01, "layers": 2, 3: 2}, "quantity '3': known quantities are rate, layers"),
        ({"rate": 0.01, "layers": 2.5}, "row 1: layers = 2.5, which must be a whole number"),
    ):
        with pytest.raises(DataError, match=sentence):
            campaign.add([point], [0.0])
    with pytest.raises(DataError, match="subtract a constant from all of them"):
        begun(None).add([{"rate": 0.1, "layers": 2}] * 2, [1e6, 1e6 + 0.1])


def test_what_no_campaign_can_be():
    for given, sentence in (
        ({"space": {"x": (0.0, 0.0)}}, "two finite bounds are needed"),
        ({"space": {"x": (3.0, 1.0)}}, "x lies between 3 and 1: two finite bounds are needed"),
        ({"space": {"x": hw.Component(0, 1, logarithmic=True)}}, "x is logarithmic, but begins"),
        ({"space": {"x": hw.Component(0.5, 2.5, whole=True)}}, "x is a whole number, but lies"),
        ({"space": {"x": 3.0}}, "x: give two bounds"),
        ({"space": {"x": (0, 1), "y": (1, 1)}}, "^y lies between 1 and 1: two finite bounds"),
        (
            {"space": {"x": (0, 1), "y": ["a", "b"]}},
            r"y is one of \['a', 'b'\]: words have no "
            "order; give the list of points",
        ),
        ({"space": [{"x": 1.0}, {"x": "a"}]}, "point 2: x is 'a': words have no order"),
        ({"space": {}}, "at least one quantity"),
        ({"space": [{"x": 1.0}, {"y": 1.0}]}, "point 2 has the quantities y"),
        ({"space": SPACE, "method": "IQL"}, "IQL proposes no experiments"),
        ({"space": SPACE, "most": 3_000}, "takes at most 2,000: 3,000 are too many"),
    ):
        with pytest.raises(SpecificationError, match=sentence):
            hw.Campaign(**given)
    for wrong in (2.5, "x", True):
        with pytest.raises(SpecificationError, match=f"seed = {wrong!r}: it must be a whole"):
            whole_number(wrong, "seed")
    with pytest.raises(DataError, match=r"row 1 gives no quantities by name .rate, layers.: "):
        unit_point(begun(None).space, list(SPACE), [0.01, 2], "row 1")
    full = begun(None, most=1)
    full.ask()
    with pytest.raises(RunError, match="there are 1 experiments, as many as there may be"):
        full.ask()
    with pytest.raises(RunError, match="nothing was told yet"):
        full.recommend()
