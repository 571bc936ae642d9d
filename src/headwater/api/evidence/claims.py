"""Run claims, one or many, several at a time, and go on where an earlier call stopped."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from headwater.core.errors import SpecificationError, nearest
from headwater.evidence.claim import SCALES, Claim
from headwater.evidence.processes import ClaimsBar, Place, run_here, run_in_processes
from headwater.evidence.record import (
    Record,
    append,
    latest,
    read_records,
    source_of,
)
from headwater.evidence.registry import all_claims


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
    kept: list[Place] = []
    if names is None and not again:
        kept = [place for place in places if _is_done(chosen[place[0]], there.get(place))]
    todo = [place for place in places if place not in kept]
    # The longest first, so that no process is left alone with one at the end.
    took = {place: there[place].seconds if place in there else float("inf") for place in todo}
    todo.sort(key=lambda place: -took[place])
    found: list[Record] = []
    bar = ClaimsBar(len(todo), {p: s for p, s in took.items() if s < float("inf")}, jobs, progress)
    try:
        if min(jobs, len(todo)) < 2:
            running = run_here(chosen, todo, bar)
        else:
            running = run_in_processes(chosen, todo, bar, min(jobs, len(todo)), files)
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
    return record.source == source_of(claim, record.scale)
