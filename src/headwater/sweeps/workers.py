"""Who carries out the runs of a sweep: processes on this machine, each on its share of the cores.

A worker touches nothing but its run's directory, which is complete at every instant. So ending one
by force, whoever does it, loses no more than what came after the newest checkpoint.
"""

import abc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from headwater.core.errors import RunError
from headwater.runs.files import explain, no_link

AGAIN = ("failed", "killed")
"""What may go better another time. A run that diverged would do so again."""


class Ended(NamedTuple):
    """How a worker ended.

    **Arguments:** `kind`: `done`, `diverged`, `refused` (its data or settings), `unseen` (its
    machine lacks the files), `failed` or `killed`; `message`: for people.
    """

    kind: str
    message: str = ""


class AbstractWorkers(abc.ABC):
    """A place where runs are carried out."""

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """What it is, for people."""

    @abc.abstractmethod
    def free(self) -> bool:
        """Whether another run can be started."""

    @abc.abstractmethod
    def start(self, name: str) -> None:
        """Begins or continues the run called `name`."""

    @abc.abstractmethod
    def ended(self) -> dict[str, Ended]:
        """The runs that ended since this was last asked."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Ends, at once, whatever is still running."""


class LocalWorkers(AbstractWorkers):
    """Processes on this machine.

    **Arguments:** `module`: what a process runs, with `directory`, `token` and the run's name as
    arguments; `jobs`: how many at a time; `logs`: where each writes what it has to say.
    """

    def __init__(self, module: str, directory: Path, token: str, jobs: int, logs: Path):
        self._command = [sys.executable, "-m", module, str(directory), token]
        self._logs = logs
        self._shares = core_shares(available_cores(), jobs)
        self._free = list(range(jobs))
        self._running: dict[str, tuple[subprocess.Popen, int]] = {}

    @property
    def description(self) -> str:
        """How many at a time, on how many cores."""
        count, cores = len(self._shares), len(self._shares[0])
        return f"{count} at a time, on {cores} core{'' if cores == 1 else 's'} each"

    def free(self) -> bool:
        return bool(self._free)

    def start(self, name: str) -> None:
        slot = self._free.pop(0)
        cores = self._shares[slot]
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            with open(self._logs / f"{name}.log", "a", encoding="utf-8", opener=no_link) as log:
                process = subprocess.Popen(
                    [*self._command, name, ",".join(map(str, cores))],
                    # It ends when this pipe does, which is when this process does.
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=self._environment(len(cores)),
                    # An interrupt from the keyboard is for this process, which ends the others.
                    process_group=0,
                )
                when = time.strftime("%Y-%m-%d %H:%M:%S")
                print(f"{when} process {process.pid} on cores {cores}", file=log)
        except OSError as error:
            raise RunError(explain(error, self._logs / f"{name}.log")) from error
        self._running[name] = (process, slot)

    def _environment(self, cores: int) -> dict[str, str]:
        # Of an accelerator that several use, none may take all memory before it needs it.
        shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if len(self._shares) > 1 else {}
        return {**shared, **os.environ, **thread_limits(cores)}

    def ended(self) -> dict[str, Ended]:
        found = {}
        for name, (process, slot) in list(self._running.items()):
            if process.poll() is None:
                continue
            assert process.stdout is not None
            output = process.stdout.read()
            _close(process)
            del self._running[name]
            self._free.append(slot)
            found[name] = _read(output, process.returncode, self._logs / f"{name}.log")
        return found

    def stop(self) -> None:
        for process, _ in self._running.values():
            process.kill()
        for process, _ in self._running.values():
            process.wait()
            _close(process)
        self._running.clear()


def _close(process: subprocess.Popen) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


def available_cores() -> list[int]:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def core_shares(cores: list[int], jobs: int) -> list[list[int]]:
    """Equally many of `cores` for each job; with more jobs than cores, some share one.

    Cores that are over stay idle: how sums are split depends on the number of cores, and whichever
    worker continues a run is to come to the same numbers.
    """
    if jobs >= len(cores):
        return [[cores[job % len(cores)]] for job in range(jobs)]
    size = len(cores) // jobs
    return [cores[job * size : (job + 1) * size] for job in range(jobs)]


def thread_limits(cores: int) -> dict[str, str]:
    """Variables that keep a process's libraries to so many threads (`NPROC` is XLA's)."""
    names = (
        "NPROC",
        "JAX_NUM_CPU_DEVICES",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
    )
    return {name: str(cores) for name in names}


def _read(output: bytes, status: int, log: Path) -> Ended:
    try:
        kind, message = json.loads(output)
        return Ended(str(kind), str(message))
    except (ValueError, TypeError):
        pass
    if status < 0:
        how = f"the process was ended by {signal.Signals(-status).name}"
        if status == -signal.SIGKILL:
            how += "; memory may have run out"
        return Ended("killed", how)
    return Ended("failed", f"the process ended with status {status}: see {log}")
