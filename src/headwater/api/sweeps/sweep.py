"""Sweep a table of methods × datasets × processes × settings × seeds, here or on many machines."""

import dataclasses
import json
import math
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headwater.api.execute import complete
from headwater.api.inputs import Chosen, open_inputs
from headwater.api.specifications.plan import Given, Plan, plan
from headwater.api.specifications.specification import Specification, check_numbers, updates_of
from headwater.api.train import build_specification
from headwater.core.catalogue import method_class
from headwater.core.errors import HeadwaterError, RunError, SpecificationError, nearest
from headwater.core.method import AbstractPolicy
from headwater.datasets.references import References
from headwater.environments.registry import Acted, make
from headwater.evaluation.statistics import Interval, interval, seed_means
from headwater.ops.products import check_precision
from headwater.runs.feeds.flow import Flow
from headwater.runs.feeds.table import check_inputs, flow_of, settle
from headwater.runs.options import GROUPS, Options, seed_list
from headwater.runs.progress import Progress
from headwater.sweeps.directory import Member, SweepDirectory, is_sweep
from headwater.sweeps.table import MOST_RUNS, Setting, Table, named, read_table, settings_of
from headwater.sweeps.workers import AGAIN, AbstractWorkers, Ended, LocalWorkers, available_cores

PLACES = ("local", "ray")
"""Where a sweep can be carried out."""

_POLL_SECONDS = 0.05
_SHOW_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting of a sweep, with all its seeds.

    **Arguments:** `name`; `method`, `dataset`: by name; `process`: by name, if the table lists
    several; `chosen`: hyper-parameters set by the grid; `seeds`: that came to their end;
    `requested`: how many there should be; `state`: `done`, `failed` or `unfinished`; `score`: final
    return; `normalised`: on the scale from random to expert, if that is known; `message`: why it
    failed.
    """

    name: str
    method: str
    dataset: str | None
    process: str | None
    chosen: dict[str, Any]
    seeds: int
    requested: int
    state: Literal["done", "failed", "unfinished"]
    score: Interval | None
    normalised: Interval | None
    message: str | None = None


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep found so far.

    **Arguments:** `path`: its directory; `rows`: in the order of the table; `failures`: run to
    the latest message, of those that came to nothing.
    """

    path: Path
    rows: list[Row]
    failures: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether every run came to its end."""
        return all(row.state == "done" for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        return {"sweep": str(self.path), "rows": rows, "failures": self.failures}


def sweep(
    table: str | Path | Mapping[str, Any],
    *,
    on: str = "local",
    address: str | None = None,
    jobs: int | None = None,
    retries: int = 2,
    out: str | Path | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Trains everything in a table, and goes on with what is unfinished if given again.

    Every run has a directory of its own under `out`, and a worker of its own, so that one that
    fails stops no other. See `docs/sweep.md` for what a table may say.

    **Arguments:**

    - `table`: a file (TOML or JSON), the same as a mapping, or the directory of an earlier sweep.
    - `on`: `"local"`, processes on this machine; `"ray"`, tasks of Ray (extra `ray`).
    - `address`: of a running Ray cluster; by default Ray is started on this machine.
    - `jobs`: runs at a time; by default as many as there are cores. The cores are shared out.
    - `retries`: how often a run whose worker failed or died is tried again.
    - `out`: directory of the sweep; by default `sweeps/` and the name of the file.
    - `progress`: show a bar; by default on a terminal.

    Raises `SpecificationError` or `DataError`, before anything runs, for a table that cannot be
    carried out; `RunError` if `out` holds something else, or runs that were begun otherwise.
    """
    if on not in PLACES:
        raise SpecificationError(nearest(on, PLACES, "place"))
    if address is not None and on != "ray":
        raise SpecificationError("an address is that of a Ray cluster: sweep on ray")
    for name, value, least in (("jobs", jobs, 1), ("retries", retries, 0)):
        if value is not None and value < least:
            raise SpecificationError(f"{name} = {value}: it must be at least {least}")
    if on == "ray":
        from headwater.sweeps.ray_cluster import require_ray

        require_ray()
    bar = Progress(progress)
    kept = _place(table, out, bar)
    try:
        todo = [member for member in kept.members if not kept.finished(member)]
        if on == "local":
            for precision in {member.specification["options"]["precision"] for member in todo}:
                check_precision(precision)
        if todo:
            workers = _workers(kept, on, address, jobs)
            _say_what_is_there(kept, todo, workers, bar)
            _carry_out(kept, todo, workers, retries, bar)
    finally:
        kept.unlock()
    return open_sweep(kept.path)


def open_sweep(path: str | Path) -> Sweep:
    """What the sweep at `path` found so far. Raises `RunError` if there is none."""
    kept = SweepDirectory.open(path)
    failures = kept.failures()
    groups: dict[str, list[Member]] = {}
    for member in kept.members:
        groups.setdefault(member.setting, []).append(member)
    rows = [_row(kept, name, members, failures) for name, members in groups.items()]
    return Sweep(kept.path, rows, failures)


def _row(kept: SweepDirectory, name: str, members: list[Member], failures: dict[str, str]) -> Row:
    finished = [member for member in members if kept.finished(member)]
    returns = [each for member in finished for each in kept.final_returns(member)]
    score = normalised = None
    if returns:
        means = seed_means(np.asarray(returns))
        score = interval(means)
        specification = Specification.from_json(members[0].specification, str(kept.path))
        if specification.references is not None:
            normalised = interval(References(*specification.references).normalise(means))
    messages = [failures[member.name] for member in members if member.name in failures]
    state = "done" if len(finished) == len(members) else "failed" if messages else "unfinished"
    return Row(
        name,
        members[0].method,
        members[0].dataset,
        members[0].process,
        members[0].chosen,
        sum(len(member.seeds) for member in finished),
        sum(len(member.seeds) for member in members),
        state,
        score,
        normalised,
        messages[0] if messages else None,
    )


# From a table to runs -----------------------------------------------------------------------------


def _place(
    table: str | Path | Mapping[str, Any], out: str | Path | None, bar: Progress
) -> SweepDirectory:
    """The directory of the sweep, claimed for this process, with the whole table written down."""
    if not isinstance(table, Mapping) and Path(table).is_dir():
        if out is not None and Path(out) != Path(table):
            raise SpecificationError(f"{table} is a directory: a sweep goes on where it is")
        kept = SweepDirectory.open(table)
        kept.lock()
        return kept
    if isinstance(table, Mapping) and out is None:
        raise SpecificationError("a table that is no file needs a directory: give out")
    path = Path("sweeps") / Path(table).stem if out is None else Path(out)  # pyright: ignore[reportArgumentType]
    read = read_table(table)
    members = members_of(read)
    if not is_sweep(path):
        return SweepDirectory.create(path, members)
    earlier = SweepDirectory.open(path)
    earlier.lock()
    try:
        for member in members:
            _refuse_another_meaning(earlier, member, read)
    except BaseException:
        earlier.unlock()
        raise
    before, now = ({m.name for m in each} for each in (earlier.members, members))
    if now - before:
        bar.line(f"{_count(len(now - before), 'run')} added to the sweep in {path}")
    if before - now:
        bar.line(
            f"{_count(len(before - now), 'run')} no longer in {read.where}: what there is of them "
            "stays where it is, out of the table"
        )
    earlier.replace(members)
    return earlier


def members_of(table: Table) -> list[Member]:
    """Every run of `table`, checked as if it were to begin now.

    Raises `SpecificationError` or `DataError`, naming the file, for the first that could not.
    """
    _refuse_idle_keys(table)
    rest = table.rest
    try:
        task = None
        if "environment" in rest and rest["environment"] != "none":
            task = make(rest["environment"], **rest.get("environment_options", {}))
        seeds = rest.get("seeds")
        seeds = None if seeds is None else seed_list(seeds)
    except HeadwaterError as error:
        raise table.wrong(error) from None
    size = rest.get("seeds_per_run")
    if size is not None and size < 1:
        raise table.wrong(f"seeds_per_run = {size}: it must be at least 1")
    alone = [method for method in table.methods if _takes_no_data(method)]
    count = sum(
        table.count(method)
        * (1 if method in alone else len(table.datasets) or 1)
        * (len(table.processes) or 1 if _looks_at_processes(method) else 1)
        * (1 if size is None else math.ceil(len(_seeds_of(method, seeds)) / size))
        for method in table.methods
    )
    if count > MOST_RUNS:
        raise table.wrong(f"this makes {count:,} runs; at most {MOST_RUNS:,} are swept")
    found: list[Member] = []
    opened: dict[Any, tuple[Chosen, Given]] = {}
    for dataset, place in [*table.datasets.items(), (None, None)]:
        for method in table.methods:
            if (method in alone or not table.datasets) != (dataset is None):
                continue
            every = _seeds_of(method, seeds)
            step = size or len(every)
            parts = [every[i : i + step] for i in range(0, len(every), step)]
            processes: list[tuple[str | None, str | None]] = [(None, rest.get("process"))]
            if table.processes:
                listed = _looks_at_processes(method)
                processes = list(table.processes.items()) if listed else [(None, None)]
            for process in processes:
                try:
                    found += _runs(table, method, (dataset, place), process, task, parts, opened)
                except HeadwaterError as error:
                    where = method + (f" on {dataset}" if dataset else "")
                    where += f" in {process[0]}" if process[0] else ""
                    raise type(error)(f"{table.where}: {where}: {error}") from None
    names = Counter(member.name for member in found)
    for name, count in names.items():
        if count > 1:
            raise table.wrong(
                f"{count} runs would be called {name}: give datasets or processes other names"
            )
    return found


def _hoped(flow: Flow, inputs: dict[str, Any]) -> set[str]:
    """What may come of the data yet: they may say in which environment they were logged."""
    return {"env"} if "env" in flow.needs and inputs.get("data") is not None else set()


def _seeds_of(method: str, seeds: list[int] | None) -> list[int]:
    """The seeds of every run of a method."""
    usual = flow_of(method_class(method)).usual["seeds"]
    return seed_list(usual if seeds is None else seeds)


def _runs(
    table: Table,
    method: str,
    data: tuple[str | None, str | None],
    process: tuple[str | None, str | None],
    task: Acted | None,
    parts: list[list[int]],
    opened: dict[Any, tuple[Chosen, Given]],
) -> list[Member]:
    """The runs of one method on one dataset in one process, each with its name and place.

    What they share is opened and made once.
    """
    cls, rest = method_class(method), {**table.rest, "process": process[1]}
    dataset, place = data
    flow = flow_of(cls)
    groups = ("training", *flow.groups)
    how = {
        field.name: rest[field.name]
        for field in dataclasses.fields(Options)
        if field.name in rest and field.metadata["group"] in groups and field.name not in flow.idle
    }
    options = Options.of({**how, "seeds": parts[0]})
    inputs = {"data": place, "env": "none" if rest.get("environment") == "none" else task}
    inputs |= {name: rest.get(name) for name in ("process", "model", "reward")}

    def located(value: Any) -> Any:
        """Paths are relative to the folder of the table."""
        if isinstance(value, list):
            return [located(each) for each in value]
        known = value is not None and (table.folder / str(value)).exists()
        return str((table.folder / str(value)).resolve()) if known else value

    inputs |= {name: located(inputs[name]) for name in ("model", "reward", "process")}
    looked_at = (*flow.needs, *flow.takes)
    inputs = {name: value for name, value in inputs.items() if name in looked_at}
    if "process" in looked_at and inputs.get("process") is not None:
        # Of a list, files are as they are; the options are for those by name.
        own = table.processes and Path(inputs["process"]).is_file()
        inputs["process_options"] = None if own else rest.get("process_options")
    found: list[Member] = []
    planned: Plan | None = None
    policy = issubclass(cls, AbstractPolicy)
    key = (flow.kind, looked_at, policy, dataset, process[1], repr(sorted(how.items())))
    for setting in settings_of(table, method):
        check_inputs(cls, {n for n, v in inputs.items() if v is not None} | _hoped(flow, inputs))
        if key not in opened:
            opened[key] = open_inputs(flow, options, **inputs, policy=policy)
        chosen, held = opened[key]
        there = {n for n, v in inputs.items() if v not in (None, "none")}
        check_inputs(cls, there if held.task is None else there | {"env"})
        specification = build_specification(*settle(setting.method, options), chosen, held.task)
        check_numbers(specification)
        if planned is None:
            planned = plan(specification, None, held)
        specification = complete(specification, planned)
        for seeds in parts:
            part = dataclasses.replace(
                specification,
                options=dataclasses.replace(specification.options, seeds=tuple(seeds)),
            )
            split = "seeds_per_run" in table.rest
            found.append(_member(part, dataset, process[0], setting, split=split))
    return found


def _member(
    specification: Specification,
    dataset: str | None,
    process: str | None,
    setting: Setting,
    split: bool,
) -> Member:
    labels = [specification.method.name, dataset or "", process or "", *setting.labels]
    return Member(
        named(*labels, *([_seeds_label(specification.seeds)] if split else [])),
        named(*labels),
        specification.method.name,
        dataset,
        setting.chosen,
        updates_of(specification),
        specification.to_json(),
        process,
        specification.updates_before,
    )


def _seeds_label(seeds: list[int]) -> str:
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds={seeds[0]}-{seeds[-1]}"
    return f"seeds={'+'.join(map(str, seeds))}"


def _takes_no_data(method: str) -> bool:
    """Whether a method learns from what it does, and from no log."""
    flow = flow_of(method_class(method))
    return "data" not in (*flow.needs, *flow.takes)


def _looks_at_processes(method: str) -> bool:
    """Whether a method learns or is evaluated in finite processes."""
    flow = flow_of(method_class(method))
    return "process" in (*flow.needs, *flow.takes)


def _refuse_idle_keys(table: Table) -> None:
    """Raises `SpecificationError` for a key that no run would look at."""
    flows = [flow_of(method_class(method)) for method in table.methods]
    groups = {group for flow in flows for group in flow.groups}
    fields = {field.name: field.metadata["group"] for field in dataclasses.fields(Options)}
    for key in table.rest:
        group = fields.get(key, "training")
        if group == "data" and "data" in groups and not table.datasets:
            raise table.wrong(f"{key} is for datasets, and there is none")
        if group != "training" and group not in groups:
            raise table.wrong(
                f"{key} is for methods with {GROUPS[group]} options, and there is none"
            )
        if flows and all(key in flow.idle for flow in flows):
            raise table.wrong(flows[0].idle[key])
        name = key.removesuffix("_options")
        name = "env" if name == "environment" else name
        if name in ("env", "process", "model", "reward") and not any(
            name in (*flow.needs, *flow.takes) for flow in flows
        ):
            raise table.wrong(f"{key} is given, but no method here looks at it")
    if table.datasets and all(_takes_no_data(method) for method in table.methods):
        raise table.wrong("no method learns from datasets: leave them out, or add one that does")


def _refuse_another_meaning(kept: SweepDirectory, member: Member, table: Table) -> None:
    """Raises `RunError` if the run of that name was begun with other values."""
    begun = kept.begun(member)
    if begun is None:
        return
    where = kept.run_path(member.name)
    before = Specification.from_json(begun, str(where)).to_json()
    for key, then, now in _changes(before, member.specification):
        if key in ("data.fingerprint", "model.fingerprint"):
            what = "data" if key.startswith("data") else "weights"
            place = member.specification[key.partition(".")[0]]["path"]
            raise RunError(
                f"{where} was begun with other {what} than {place} holds now: restore it, or give "
                "another directory"
            )
        raise RunError(
            f"{where} was begun with {_plain_key(key)} = {_shown(then)}, and {table.where} now "
            "says "
            f"{_shown(now)}: put it back, or give another directory"
        )


def _changes(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What differs, by path: but for what follows from the data and the task."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if key.endswith(".options"):
            # One that is left out is as the environment has it, and so another value.
            names = list({**before, **now})
        else:
            names = [n for n in now if n in before and n not in ("spaces", "references")]
        for name in names:
            yield from _changes(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif json.dumps(before) != json.dumps(now):
        yield key, before, now


def _plain_key(key: str) -> str:
    """What a table calls the field of a specification."""
    field, _, below = key.partition(".")
    if field in ("task", "process", "reward"):
        table_key = "environment" if field == "task" else field
        return f"{table_key}_{below}" if below.startswith("options") else table_key
    paths = {"data.path": "dataset", "model.path": "model"}
    return paths.get(key, key.rpartition(".")[2])


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and "name" in value:
        return str(value["name"])
    return "nothing" if value is None else str(value)


# Carrying out -------------------------------------------------------------------------------------


def _workers(
    kept: SweepDirectory, on: str, address: str | None, jobs: int | None
) -> AbstractWorkers:
    if on == "ray":
        from headwater.api.sweeps import member as sweep_run
        from headwater.sweeps.ray_cluster import RayWorkers

        path = str(kept.path.resolve())
        return RayWorkers(sweep_run.carry_out, sweep_run.lacks, path, kept.token, address, jobs)
    # By what there is in all, so that going on later gives every run the same share.
    count = min(jobs or len(available_cores()), len(kept.members))
    module = "headwater.api.sweeps.member"
    return LocalWorkers(module, kept.path, kept.token, count, kept.logs)


def _say_what_is_there(
    kept: SweepDirectory, todo: list[Member], workers: AbstractWorkers, bar: Progress
) -> None:
    begun = sum(kept.begun(member) is not None for member in todo)
    there = [f"{len(kept.members) - len(todo)} finished before", f"{begun} to be continued"]
    there = [part for part in there if not part.startswith("0 ")]
    described = f" ({', '.join(there)})" if there else ""
    bar.line(f"{_count(len(kept.members), 'run')}{described}; {workers.description}")


def _carry_out(
    kept: SweepDirectory,
    todo: list[Member],
    workers: AbstractWorkers,
    retries: int,
    bar: Progress,
) -> None:
    waiting = deque(member.name for member in todo)
    running: set[str] = set()
    attempts: Counter[str] = Counter()
    ended: dict[str, Ended] = {}
    pace = _Pace(kept, bar)
    try:
        while waiting or running:
            while waiting and workers.free():
                name = waiting.popleft()
                attempts[name] += 1
                workers.start(name)
                running.add(name)
            time.sleep(_POLL_SECONDS)
            for name, how in workers.ended().items():
                running.discard(name)
                if how.kind == "unseen":
                    raise RunError(how.message)
                again = how.kind in AGAIN and attempts[name] <= retries
                if how.kind != "done":
                    kept.failed(name, attempts[name], how.kind, how.message)
                if again:
                    waiting.append(name)
                else:
                    ended[name] = how
                pace.note(name, how, again, len(ended), len(todo))
            pace.show(running, sum(how.kind != "done" for how in ended.values()))
    except KeyboardInterrupt as stop:
        stop.add_note(f"continue with the same command, or with `headwater resume {kept.path}`")
        raise
    finally:
        workers.stop()
        bar.stop()


class _Pace:
    """How far all runs have come, and how fast."""

    def __init__(self, kept: SweepDirectory, bar: Progress):
        self._kept, self._bar = kept, bar
        self._members = {member.name: member for member in kept.members}
        self._done = {name: kept.updates_done(member) for name, member in self._members.items()}
        self._began, self._at_first = time.perf_counter(), sum(self._done.values())
        self._shown = self._began
        bar.begin("sweep", sum(member.all_updates for member in kept.members), self._at_first)

    def show(self, running: set[str], failed: int) -> None:
        """Looks at the files of what is running, now and then."""
        if time.perf_counter() - self._shown < _SHOW_SECONDS:
            return
        self._shown = time.perf_counter()
        for name in running:
            self._look(name)
        self._bar.tell(f"{len(running)} running" + (f", {failed} failed" if failed else ""))

    def note(self, name: str, how: Ended, again: bool, over: int, total: int) -> None:
        """Says how a worker ended."""
        self._look(name)
        outcome = "done" if how.kind == "done" else f"{how.kind}: {how.message}"
        self._bar.line(f"  {name}: {outcome}{'; again' if again else ''} ({over} of {total})")

    def _look(self, name: str) -> None:
        before = self._done[name]
        self._done[name] = self._kept.updates_done(self._members[name])
        seconds = max(time.perf_counter() - self._began, 1e-9)
        rate = max(0, sum(self._done.values()) - self._at_first) / seconds
        self._bar.advance(self._done[name] - before, rate)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
