"""Processes that carry out runs: their share of the cores, how they end, and who ends them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from headwater.core.errors import RunError
from headwater.sweeps.ray_cluster import cores_each
from headwater.sweeps.workers import Ended, LocalWorkers, available_cores, core_shares

STAND_IN = """
import json, os, signal, sys, time
directory, token, name, cores = sys.argv[1:]
print("something to say", file=sys.stderr)
if name == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if name == "broken":
    sys.exit(3)
if name == "long":
    time.sleep(60)
if name == "message":
    found = [directory, token, cores, *(os.environ[n] for n in ("NPROC", "JAX_NUM_CPU_DEVICES"))]
    print(json.dumps(["failed", " ".join(found)]))
else:
    print(json.dumps(["done", ""]))
"""


@pytest.fixture
def workers(tmp_path, monkeypatch):
    """Two processes at a time, with a stand-in for what they do."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = LocalWorkers("stand_in", tmp_path / "sweep", "token", 2, tmp_path / "logs")
    yield made
    made.stop()


def wait(workers, count: int = 1) -> dict[str, Ended]:
    """The next `count` that end."""
    found, deadline = {}, time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < deadline
        found.update(workers.ended())
        time.sleep(0.01)
    return found


def test_each_ends_in_its_own_way(workers, tmp_path):
    assert workers.free()
    workers.start("killed")
    assert workers.free()
    workers.start("broken")
    assert not workers.free()
    assert wait(workers, 2) == {
        "killed": Ended("killed", "the process was ended by SIGKILL; memory may have run out"),
        "broken": Ended(
            "failed", f"the process ended with status 3: see {tmp_path / 'logs' / 'broken.log'}"
        ),
    }
    workers.start("fine")
    assert wait(workers) == {"fine": Ended("done", "")}
    log = (tmp_path / "logs" / "fine.log").read_text()
    assert "something to say" in log and "on cores [" in log
    assert workers.ended() == {} and workers.free()


def test_each_is_told_its_share(workers, tmp_path):
    workers.start("message")
    share = core_shares(available_cores(), 2)[0]
    cores = ",".join(map(str, share))
    expected = f"{tmp_path / 'sweep'} token {cores} {len(share)} {len(share)}"
    assert wait(workers) == {"message": Ended("failed", expected)}


def test_nothing_is_written_through_a_link(workers, tmp_path):
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "message.log").symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match=r"message\.log: there is a link to another place"):
        workers.start("message")
    assert (tmp_path / "precious").read_text() == "years of work"


def test_stopping_ends_them_at_once(workers):
    workers.start("long")
    workers.start("long too")
    began = time.monotonic()
    workers.stop()
    assert time.monotonic() - began < 1.0


def test_shares_are_equal():
    assert core_shares([0, 1, 2, 3], 2) == [[0, 1], [2, 3]]
    assert core_shares([4, 5, 6, 7, 8], 2) == [[4, 5], [6, 7]]
    assert core_shares([0, 1], 3) == [[0], [1], [0]]
    assert core_shares([7], 1) == [[7]]


def test_a_task_of_a_cluster_fits_on_one_machine():
    assert [cores_each([8], jobs) for jobs in (1, 2, 3, 8, 9)] == [8, 4, 2, 1, 1]
    assert [cores_each([8, 8], jobs) for jobs in (1, 2, 3, 4, 5)] == [8, 8, 4, 4, 2]
    assert cores_each([4, 12], 2) == 6 and cores_each([], 1) == cores_each([0], 1) == 1


def test_a_worker_ends_with_whoever_started_it(tmp_path):
    code = "from headwater.api.sweeps import member as sweep_run; import threading, time\n"
    code += "threading.Thread(target=sweep_run._end_with_parent, daemon=True).start()\n"
    code += "print('ready', flush=True); time.sleep(60)"
    ends = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert ends.stdout is not None and ends.stdin is not None
    assert ends.stdout.readline() == b"ready\n"
    ends.stdin.close()
    assert ends.wait(timeout=5) == -signal.SIGKILL
    ends.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="cores are shared out on Linux")
def test_a_worker_keeps_to_its_cores(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({"token": "another"}))
    one = max(available_cores())
    # It finds another sweep than it was sent for, says so, and does nothing.
    code = "import os, sys; from headwater.api.sweeps import member as sweep_run\n"
    code += f"sweep_run.main([{str(tmp_path)!r}, 'token', 'x', '{one}'])\n"
    code += "print(sorted(os.sched_getaffinity(0)), file=sys.stderr)"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe) as it:
        assert it.stdout is not None and it.stderr is not None
        said, printed = it.stdout.read(), it.stderr.read()
    kind, message = json.loads(said)
    assert kind == "unseen"
    assert f"does not see the files of this sweep in {tmp_path}: put it, and the data" in message
    assert printed.decode().splitlines() == [f"unseen: {message}", f"[{one}]"]
    assert sorted(os.listdir(tmp_path)) == ["sweep.json"]
