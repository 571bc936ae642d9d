"""Experiments in this process or several, and what is seen meanwhile."""

import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

from headwater.evidence.claim import Claim
from headwater.evidence.record import Record, record_of_death, run_claim
from headwater.evidence.registry import claim_named

_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


# One process ------------------------------------------------------------------------------------

Place = tuple[str, str, int]
"""Claim, scale and seed."""


def run_here(
    chosen: dict[str, Claim], todo: list[Place], bar: "ClaimsBar"
) -> Generator[Record, None, None]:
    """Runs what is to do one after the other, and yields each record."""
    for name, scale, seed in todo:
        bar.began(name)
        yield run_claim(chosen[name], scale, seed=seed)


# Several ----------------------------------------------------------------------------------------


@dataclasses.dataclass(eq=False)
class _Worker:
    """A process, the pipe to it, what it is doing and since when."""

    process: Any
    pipe: Any
    place: Place | None = None
    since: float = 0.0


def run_in_processes(
    chosen: dict[str, Claim],
    todo: list[Place],
    bar: "ClaimsBar",
    jobs: int,
    files: Sequence[str | Path],
) -> Generator[Record, None, None]:
    """Runs what is to do in `jobs` processes, and yields each record as it comes.

    A process that dies leaves a record that says how, and is replaced.
    """
    waiting = list(todo)
    workers = [_start_worker(files) for _ in range(jobs)]
    try:
        for worker in workers:
            _give(worker, waiting, bar)
        while busy := [worker for worker in workers if worker.place is not None]:
            ready = connection.wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe not in ready:
                    continue
                assert worker.place is not None
                try:
                    row = worker.pipe.recv()
                    record = Record.from_json(row)
                except (EOFError, OSError):
                    record = _died(worker, chosen)
                    if waiting:
                        workers[workers.index(worker)] = worker = _start_worker(files)
                _give(worker, waiting, bar)
                yield record
    finally:
        for worker in workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def _start_worker(files: Sequence[str | Path]) -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, [str(file) for file in files]), daemon=True
    )
    # Processes that share the cores are not to start a thread, or a device, for each of them.
    flags = f"{os.environ.get('XLA_FLAGS', '')} {_ONE_THREAD}".strip()
    with _environment(XLA_FLAGS=flags, JAX_NUM_CPU_DEVICES="1"):
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Processes that are started here see these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _give(worker: _Worker, waiting: list[Place], bar: "ClaimsBar") -> None:
    worker.place = None
    if waiting and not worker.pipe.closed:
        worker.place, worker.since = waiting.pop(0), time.perf_counter()
        bar.began(worker.place[0])
        # A process that died since is noticed when its answer is awaited.
        with contextlib.suppress(OSError):
            worker.pipe.send(worker.place)


def _died(worker: _Worker, chosen: dict[str, Claim]) -> Record:
    assert worker.place is not None
    worker.process.join()
    code = worker.process.exitcode
    how = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit status {code}"
    worker.pipe.close()
    name, scale, seed = worker.place
    return record_of_death(
        chosen[name],
        scale,
        seed,
        time.perf_counter() - worker.since,
        f"the process ended by {how}"
        + ("; memory may have run out" if code == -signal.SIGKILL else ""),
    )


def _work(pipe: Any, files: list[str]) -> None:
    """What a process does: runs what it is told, and answers with the record."""
    # An interrupt from the keyboard reaches every process; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import warnings

    import jax

    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    while True:
        try:
            name, scale, seed = pipe.recv()
        except (EOFError, OSError):
            return
        record = run_claim(claim_named(name, files), scale, seed=seed)
        jax.clear_caches()
        pipe.send(record.to_json())


# What is seen meanwhile -------------------------------------------------------------------------


class ClaimsBar:
    """A bar on a terminal: how many claims are done, which are running, how much time is left."""

    def __init__(self, total: int, known: dict[Place, float], jobs: int, shown: bool | None):
        self._known, self._jobs, self._total = known, jobs, total
        self._left = dict(known)
        self._took: list[float] = []
        self._running: list[str] = []
        self._bar: Any = None
        self._lines = bool(shown) and not sys.stderr.isatty()
        if sys.stderr.isatty() and shown is not False and total:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
            )

            self._bar = Progress(
                TextColumn("[bold]claims"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                TextColumn("{task.fields[running]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=total, left="", running="")

    def began(self, name: str) -> None:
        """`name` is being run."""
        self._running.append(name)
        self._show(0)

    def finished(self, record: Record) -> None:
        """A run is over."""
        if record.claim in self._running:
            self._running.remove(record.claim)
        self._took.append(record.seconds)
        self._left.pop(record.place, None)
        self._show(1)
        if self._lines:
            done = f"{len(self._took)} of {self._total}"
            print(f"  {done}: {record.claim}: {record.outcome}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds_left(self) -> float | None:
        """From how long each took before, or else from those that are done by now."""
        remaining = self._total - len(self._took)
        unknown = remaining - len(self._left)
        if unknown and not self._took:
            return None
        each = sum(self._took) / len(self._took) if self._took else 0.0
        return (sum(self._left.values()) + max(unknown, 0) * each) / min(
            self._jobs, max(remaining, 1)
        )

    def _show(self, advance: int) -> None:
        if self._bar is None:
            return
        left = self.seconds_left
        self._bar.update(
            self._task,
            advance=advance,
            left="" if left is None else f"about {_duration(left)} left",
            running=", ".join(self._running),
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
