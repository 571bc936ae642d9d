"""What trackers are told of a run: each number that is in its files, once."""

import sys

import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.runs.directory import RunDirectory
from headwater.runs.trackers.tracker import AbstractTracker, tracker_class

from .tiny import evaluate, finish, stages


class Told(AbstractTracker):
    """Remembers what it is told."""

    def __init__(self):
        self.numbers, self.closed = {}, False

    @classmethod
    def check(cls):
        pass

    @classmethod
    def open(cls, directory):
        return cls()

    def log(self, numbers, *, seed, update):
        for name, value in numbers.items():
            assert (name, seed, update) not in self.numbers, "told twice"
            self.numbers[name, seed, update] = value

    def close(self):
        self.closed = True


def _in_files(result) -> dict:
    found = {}
    for row in result.metrics:
        for name, values in row["metrics"].items():
            for seed, value in enumerate(values):
                found[f"only/{name}", seed, row["update"]] = value
    for row in result.evaluations:
        found["only/evaluation", row["seed"], row["update"]] = np.mean(row["returns"])
    return found


def test_a_tracker_is_told_what_the_files_say_also_of_a_run_that_goes_on(tmp_path):
    left = [2]

    def stopped(method, states, key):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return evaluate(method, states, key)

    directory, first = RunDirectory.create(tmp_path / "run", {}), Told()
    with pytest.raises(KeyboardInterrupt):
        finish(stages("replay"), directory=directory, evaluate=stopped, trackers=[first])
    assert first.closed and first.numbers
    second = Told()
    result = finish(stages("replay"), directory=directory, trackers=[second])
    expected = _in_files(result)
    assert len(expected) == 2 * (2 * len(result.metrics) + 6)
    speeds = {key for key in second.numbers if key[0] not in ("only/error", "only/size")}
    assert {key[0] for key in speeds} == {
        "only/evaluation", "only/environment_steps", "only/updates_per_second"
    }  # fmt: skip
    for key, value in expected.items():
        assert second.numbers[key] == pytest.approx(value), key


def test_unknown_trackers_and_those_that_are_not_installed_are_named(monkeypatch):
    with pytest.raises(SpecificationError, match="unknown tracker 'tensorbord'"):
        tracker_class("tensorbord")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(SpecificationError, match=r"pip install 'headwater\[tensorboard\]'"):
        tracker_class("tensorboard")


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_what_is_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    directory = RunDirectory.create(tmp_path / "run", {})
    for again in (False, True):
        # A finished run is told anew, and shown once.
        tracker = tracker_class("tensorboard").open(directory.path)
        kept = list((tmp_path / "run").glob("tensorboard/*/*"))
        assert len(kept) == (2 if again else 0), "nothing is removed before the run is ours"
        result = finish(stages("replay"), directory=directory, trackers=[tracker])
    for seed in range(2):
        found = EventAccumulator(str(tmp_path / "run" / "tensorboard" / f"seed-{seed}")).Reload()
        for name in ("error", "size"):
            values = [(e.step, e.value) for e in found.Scalars(f"only/{name}")]
            expected = [(row["update"], row["metrics"][name][seed]) for row in result.metrics]
            np.testing.assert_allclose(values, expected, rtol=1e-6)
        assert [e.step for e in found.Scalars("only/evaluation")] == [0, 8, 16, 24, 32, 40]
