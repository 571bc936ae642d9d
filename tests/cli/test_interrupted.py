"""Commands that are stopped, and go on."""

import signal
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from .asking import TINY, begin, done, write_log

TRAIN = ("train", "IQL", "-d", "log.npz", "-e", "pendulum", "--seeds", 2, "--updates", 400, *TINY)
OFTEN = ("--evaluations", 20, "--episodes", 2)

# Whole commands, killed and started again: minutes. Interruption within one process is tested
# in `tests/runs`.
pytestmark = pytest.mark.evidence


@pytest.fixture
def folder(tmp_path):
    """A folder with a log in it."""
    write_log(tmp_path / "log.npz")
    return tmp_path


def stop(process, path, kind, after: int) -> tuple[str, str]:
    """Sends a signal when `after` evaluations were made; what the process printed."""
    file, deadline = path / "evaluations.jsonl", time.monotonic() + 120
    while not file.is_file() or len(file.read_text().splitlines()) < after:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(kind)
    return process.communicate(timeout=60)


def final(path):
    """The arrays of the newest checkpoint."""
    return load_file(max((path / "checkpoints").iterdir()))


def test_a_killed_run_goes_on_to_the_same_numbers(folder):
    whole = begin(*TRAIN, *OFTEN, "-o", "whole", folder=folder)
    _, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err
    process = begin(*TRAIN, *OFTEN, "-o", "cut", folder=folder)
    stop(process, folder / "cut", signal.SIGKILL, after=6)
    assert process.returncode == -signal.SIGKILL
    process = begin("resume", "cut", folder=folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "IQL, 2 seeds: cut" in out
    one, other = final(folder / "whole"), final(folder / "cut")
    assert one.keys() == other.keys() and len(one) > 10
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], strict=True, err_msg=name)
    name = "evaluations.jsonl"
    assert (folder / "whole" / name).read_text() == (folder / "cut" / name).read_text()


def test_an_interrupted_run_says_how_to_go_on(folder):
    process = begin(*TRAIN, *OFTEN, "-o", "run", folder=folder)
    out, err = stop(process, folder / "run", signal.SIGINT, after=4)
    assert process.returncode == 130
    assert err.endswith("\ninterrupted; continue with `headwater resume run`\n"), err
    assert "Traceback" not in err and out == ""
    assert "IQL, 2 seeds" in done("resume", folder / "run")
