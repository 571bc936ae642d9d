"""A search with a simulator of one's own: asked, told, killed, resumed, and refused."""

import json
import subprocess
import sys

import numpy as np
import pytest

import headwater as hw
from headwater.core.errors import DataError, RunError, SpecificationError

SPACE = {"length": (0.1, 1.0), "turns": hw.Component(1, 6, whole=True)}
MEASURES = {"height": (0.0, 2.0)}


def begun(path, **options):
    options = {"batch_size": 6, "method": hw.MAPElites(cells=5), "seed": 3} | options
    return hw.ArchiveSearch(SPACE, MEASURES, path, **options)


def simulate(length, turns):
    return length * turns, {"height": min(2.0, 2.0 * length)}


def test_it_finds_and_exports_what_differs():
    search = begun(None)
    search.evaluate(simulate, 5)
    assert search.simulations == 30 and search.coverage == pytest.approx(0.8, abs=0.21)
    table = search.table()
    assert table.column_names == ["length", "turns", "objective", "height"]
    for row in table.to_pylist():
        assert 1 <= row["turns"] <= 6 and isinstance(row["turns"], int)
        assert row["objective"] == pytest.approx(row["length"] * row["turns"], rel=1e-5)
        assert row["height"] == pytest.approx(2.0 * row["length"], rel=1e-5)
    assert table.num_rows == int(search.archive.filled.sum())


def test_less_is_better_where_that_is_said():
    search = begun(None, minimise=True)
    search.evaluate(simulate, 5)
    best = begun(None)
    best.evaluate(simulate, 5)
    assert np.mean(search.table()["objective"]) < np.mean(best.table()["objective"])


def test_killed_between_ask_and_tell_it_goes_on_exactly(tmp_path):
    whole = begun(None)
    whole.evaluate(simulate, 4)
    path = tmp_path / "archive.json"
    # Another process asks, tells a part, and is gone without a word.
    script = f"""
import os
import headwater as hw
search = hw.ArchiveSearch(
    {{"length": (0.1, 1.0), "turns": hw.Component(1, 6, whole=True)}}, {{"height": (0.0, 2.0)}},
    {str(path)!r}, batch_size=6, method=hw.MAPElites(cells=5), seed=3)
for batch in range(2):
    for each in search.ask()[: 6 if batch == 0 else 2]:
        height = min(2.0, 2.0 * each.point["length"])
        search.tell(each.number, each.point["length"] * each.point["turns"], {{"height": height}})
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    search = hw.ArchiveSearch.open(path)
    assert search.simulations == 8
    assert [each.number for each in search.ask()] == [8, 9, 10, 11]
    search = begun(path)
    search.evaluate(simulate, 3)
    assert search.table().equals(whole.table()) and search.simulations == 24


def test_what_failed_teaches_nothing():
    search = begun(None)
    for each in search.ask():
        search.tell(each.number, None)
    assert search.simulations == 6 and search.coverage == 0.0
    assert [each.number for each in search.ask()] == [6, 7, 8, 9, 10, 11]


def test_a_simulator_that_dies_loses_nothing(tmp_path):
    search, calls = begun(tmp_path / "archive.json"), []

    def dies(**point):
        calls.append(point)
        if len(calls) == 4:
            raise ZeroDivisionError("no wind")
        return simulate(**point)

    sentence = r"failed at solution 3 \(ZeroDivisionError: no wind\); what was told before is kept"
    with pytest.raises(RunError, match=sentence):
        search.evaluate(dies)
    assert [each.number for each in search.pending] == [3, 4, 5]
    search.tell(3, None)
    search.evaluate(dies)
    assert len(calls) == 6 and search.simulations == 6 and not search.pending


def test_what_cannot_be_told():
    search = begun(None)
    with pytest.raises(SpecificationError, match="what was asked for is none: ask first"):
        search.tell(0, 1.0, {"height": 1.0})
    search.ask()
    for number, value, measures, error, sentence in (
        (6, 1.0, {"height": 1.0}, SpecificationError, "solution 6 is not waited for: .* 0 … 5"),
        (True, 1.0, {"height": 1.0}, SpecificationError, "told by its number, solution.number"),
        (0, float("nan"), {"height": 1.0}, DataError, "solution 0 is nan: tell None if"),
        (0, 1.0, {"height": 2.5}, DataError, "height = 2.5 lies outside of 0 … 2: clip it"),
        (0, 1.0, {"heigth": 1.0, "height": 1.0}, DataError, "unknown measure 'heigth'"),
        (0, 1.0, {}, DataError, "solution 0 has no measure 'height'"),
        (0, 1.0, None, DataError, "solution 0 needs its measures by name: height"),
    ):
        with pytest.raises(error, match=sentence):
            search.tell(number, value, measures)
    with pytest.raises(DataError, match="a frame of 3 numbers: 0 finite ones are needed"):
        search.tell(0, 1.0, {"height": 1.0}, [0.0] * 3)
    with pytest.raises(DataError, match="solution 0 has a frame that is no array of numbers"):
        search.tell(0, 1.0, {"height": 1.0}, "abc")
    for outcome in (1.0, None, (1.0, {"height": 1.0}, None, 3)):
        with pytest.raises(RunError, match=r"the simulator gave .* a value and measures by name"):
            search.evaluate(lambda outcome=outcome, **_: outcome)
    search.tell(0, 1.0, {"height": 1.0})
    search.tell(0, 1.0, {"height": 1.0})
    with pytest.raises(SpecificationError, match="told already, as something else"):
        search.tell(0, None)


def test_what_no_search_can_be(tmp_path):
    for options, sentence in (
        ({"method": "GPUCB"}, "GPUCB keeps no archive of solutions"),
        ({"method": "TAXONS"}, "TAXONS learns from frames what solutions do, and here are none"),
        ({"batch_size": 0}, "batch_size = 0: it must be at least 1"),
    ):
        with pytest.raises(SpecificationError, match=sentence):
            begun(None, **options)
    with pytest.raises(SpecificationError, match="'length' cannot be a measure"):
        hw.ArchiveSearch(SPACE, {"length": (0.0, 1.0)})
    search = begun(None, most=7)
    search.evaluate(simulate)
    with pytest.raises(RunError, match="there were 6 simulations, and 6 more are beyond the 7"):
        search.ask()


def test_files_that_are_not_of_this_search(tmp_path):
    path = tmp_path / "archive.json"
    with pytest.raises(RunError, match="there is no search at"):
        hw.ArchiveSearch.open(path)
    begun(path)
    with pytest.raises(SpecificationError, match="begun with another seed"):
        begun(path, seed=4)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"format": 2}))
    with pytest.raises(RunError, match="an archive of format 2, and this version of Headwater"):
        begun(path)
    path.write_text(json.dumps(stored | {"state": stored["state"][1:]}))
    with pytest.raises(RunError, match="a state that MAPElites of this version of Headwater does"):
        hw.ArchiveSearch.open(path)
    path.write_text(json.dumps(stored))
    asked = hw.ArchiveSearch.open(path).ask()
    hw.ArchiveSearch.open(path).tell(asked[0].number, 1.0, {"height": 1.0})
    stored = json.loads(path.read_text())
    first, second, *rest = stored["batch"]
    for batch in (
        {},
        [first],
        [second, first, *rest],
        [first | {"note": "by hand"}, second, *rest],
        [first | {"value": "high"}, second, *rest],
        [first | {"value": None}, second, *rest],
        [first | {"measures": {"height": 9.0}}, second, *rest],
        [first, second | {"status": "done"}, *rest],
        [first, second | {"point": {}}, *rest],
    ):
        path.write_text(json.dumps(stored | {"batch": batch}))
        with pytest.raises(RunError, match="no archive of a search, or a damaged one"):
            hw.ArchiveSearch.open(path)
    path.write_text(json.dumps(stored | {"updates": -1}))
    with pytest.raises(RunError, match="it counts -1 updates"):
        hw.ArchiveSearch.open(path)
    path.write_text("{}")
    with pytest.raises(RunError, match="is no archive of a search: give another path"):
        begun(path)
