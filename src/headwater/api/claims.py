"""Run claims, one or many, several at a time, and go on where an earlier call stopped."""

import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

from headwater.core.errors import SpecificationError, nearest
from headwater.evidence.claim import SCALES, Claim
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

_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@dataclasses.dataclass(frozen=True, eq=False)
class ClaimRuns:
    """What `run_claims` did.

    **Arguments:** `records`: of the claims that were run, by name and seed; `kept`: the records
    that were there already, of claims that were skipped; `without`: names of the claims that have
    no such scale; `complaints`: lines of earlier results that could not be read.
    """

    records: list[Record]
    kept: list[Record]
    without: list[str]
    complaints: list[str]


def run_claims(
    names: Sequence[str] | None = None,
    *,
    scale: str = "small",
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
    out: str | Path = "results",
    again: bool = False,
    files: Sequence[str | Path] = (),
    progress: bool | None = None,
    say: Callable[[Record], None] = lambda record: None,
) -> ClaimRuns:
    """Runs claims and appends a record of each run to `<out>/<claim>.jsonl`.

    An experiment that raises, or whose process dies, is recorded as an error, and the others go
    on. Without `names`, all claims are run but those whose record at this scale and seed was made
    by the same code; an interrupted call is so continued by the same call.

    **Arguments:** `names`: of claims (default: all that have the scale); `scale`: one of `SCALES`;
    `seeds`: of the experiments; `jobs`: processes; `out`: directory of results; `again`: skip
    nothing; `files`: Python files with claims of your own; `progress`: show a bar (default: on a
    terminal); `say`: is told each record at once.

    Raises `SpecificationError` for an unknown claim or scale, or one that a named claim lacks.
    """
    if scale not in SCALES:
        raise SpecificationError(nearest(scale, SCALES, "scale"))
    if jobs < 1:
        raise SpecificationError(f"jobs = {jobs}: at least one process is needed")
    if not seeds or min(seeds) < 0:
        raise SpecificationError("seeds of claims are whole numbers from 0, at least one of them")
    known = all_claims(files)
    if names is not None and (unknown := [name for name in names if name not in known]):
        raise SpecificationError(nearest(unknown[0], known, "claim"))
    chosen = known if names is None else {name: known[name] for name in names}
    without = [name for name, claim in chosen.items() if scale not in claim.scales]
    if without and names is not None:
        chosen[without[0]].find(scale)
    earlier, complaints = read_records(out)
    there = latest(earlier)
    places = [(n, scale, s) for n in chosen if n not in without for s in seeds]
    kept: list[_Place] = []
    if names is None and not again:
        kept = [place for place in places if _is_done(chosen[place[0]], there.get(place))]
    todo = [place for place in places if place not in kept]
    # The longest first, so that no process is left alone with one at the end.
    took = {place: there[place].seconds if place in there else float("inf") for place in todo}
    todo.sort(key=lambda place: -took[place])
    found: list[Record] = []
    bar = _Bar(len(todo), {p: s for p, s in took.items() if s < float("inf")}, jobs, progress)
    try:
        if min(jobs, len(todo)) < 2:
            running = _run_here(chosen, todo, bar)
        else:
            running = _run_in_processes(chosen, todo, bar, min(jobs, len(todo)), files)
        with contextlib.closing(running) as records:
            for record in records:
                append(out, record)
                found.append(record)
                bar.finished(record)
                say(record)
    except KeyboardInterrupt as stop:
        done = f"{len(found)} of {len(todo)} claims were recorded in {out}"
        remedy = "; the same command goes on" if names is None else ""
        stop.add_note(done + remedy)
        raise
    finally:
        bar.stop()
    order = lambda record: record.place
    return ClaimRuns(
        sorted(found, key=order), [there[place] for place in kept], without, complaints
    )


def _is_done(claim: Claim, record: Record | None) -> bool:
    if record is None or record.outcome == "error":
        return False
    return record.source == source_of(claim)


# One process ------------------------------------------------------------------------------------

_Place = tuple[str, str, int]


def _run_here(
    chosen: dict[str, Claim], todo: list[_Place], bar: "_Bar"
) -> Generator[Record, None, None]:
    for name, scale, seed in todo:
        bar.began(name)
        yield run_claim(chosen[name], scale, seed=seed)


# Several ----------------------------------------------------------------------------------------


@dataclasses.dataclass(eq=False)
class _Worker:
    """A process, the pipe to it, what it is doing and since when."""

    process: Any
    pipe: Any
    place: _Place | None = None
    since: float = 0.0


def _run_in_processes(
    chosen: dict[str, Claim],
    todo: list[_Place],
    bar: "_Bar",
    jobs: int,
    files: Sequence[str | Path],
) -> Generator[Record, None, None]:
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


def _give(worker: _Worker, waiting: list[_Place], bar: "_Bar") -> None:
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


class _Bar:
    """A bar on a terminal: how many claims are done, which are running, how much time is left."""

    def __init__(self, total: int, known: dict[_Place, float], jobs: int, shown: bool | None):
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
