"""Train a method on logged experience, or online."""

from pathlib import Path
from typing import Any

from headwater.api.execute import execute
from headwater.api.run import Run
from headwater.api.specification import (
    MOST_SEEDS,
    DataChoice,
    MethodChoice,
    Specification,
    TaskChoice,
    check_kind,
    is_online,
)
from headwater.core.catalogue import build_method, method_class
from headwater.core.errors import HeadwaterError, SpecificationError
from headwater.core.method import AbstractMethod
from headwater.datasets.dataset import Dataset
from headwater.datasets.formats.directory_format import is_column_directory, open_columns
from headwater.datasets.read import load, locate
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.registry import make, make_recorded
from headwater.runs.recipes import Budget, Task, rows_per_update

HOST_BLOCK = 8
"""Environment steps between updates where the simulator runs on the host, unless told."""


def train(
    method: AbstractMethod | str | type,
    data: Dataset | str | Path | None = None,
    *,
    env: Task | str | None = None,
    updates: int = 100_000,
    steps: int = 100_000,
    seeds: int | list[int] = 4,
    seed: int = 0,
    batch_size: int = 256,
    top: float | None = None,
    weights: str | None = None,
    temperature: float = 0.1,
    from_disk: bool = False,
    data_options: dict[str, Any] | None = None,
    random_steps: int | None = None,
    block: int | None = None,
    evaluations: int = 10,
    episodes: int = 10,
    precision: str = "default",
    out: str | Path | None = None,
    progress: bool | None = None,
) -> Run:
    """Trains `method` with several seeds at once.

    **Arguments:**

    - `method`: as an object with its hyper-parameters set, or the name or class of one.
    - `data`: logged experience, or where it lies; not for methods that only learn online.
    - `env`: where to evaluate, and for online methods to act: a task or its name. Unless given, the
      one recorded in the data, if it is known here; `"none"` for no evaluation.
    - `updates`: of an offline method; `steps`: environment steps of an online one.
    - `seeds`: how many, or which; `seed`: root of all randomness.
    - `batch_size`: rows per gradient step.
    - `top`: learn only from this fraction of the episodes, the best by return.
    - `weights`: draw rows by the `"return"` (RW) or `"advantage"` (AW) of their episode, `None` for
      uniformly; `temperature`: of these weights, smaller is more selective.
    - `from_disk`: leave the data (a column directory) on disk and draw from there.
    - `data_options`: of `headwater.load`, where `data` is a path.
    - `random_steps`: of an online method, before it learns (default: a tenth, at most 5,000).
    - `block`: environment steps between the updates of an online method, of which there are then as
      many (default: 1, or 8 where the simulator is not compiled).
    - `evaluations`, `episodes`: how often to evaluate, and over how many episodes.
    - `precision`: of the large products in networks while it learns: `"bfloat16"` is faster on
      processors with matrix units (AMX; needs the extra `mkl`), and rounds to 8 bits.
    - `out`: directory of the run, which must not exist; `None` keeps the run in memory.
    - `progress`: show a bar; by default on a terminal. `False` also silences what is said of how
      the data was read, and of what makes it doubtful.

    Raises `SpecificationError` for what does not fit together, `DataError` for data that cannot be
    used, `RunError` if `out` exists or cannot be written, `Diverged` if training diverges.
    """
    method = as_method(method)
    has_data = data is not None
    check_kind(method, has_data, env != "none" and (env is not None or has_data))
    chosen, data = choose_data(
        data, data_options, top=top, weights=weights, temperature=temperature, from_disk=from_disk
    )
    task = as_task(env, None if chosen is None else recorded_task(chosen, data))
    asked = specify(
        method,
        chosen,
        task,
        updates=updates,
        steps=steps,
        seeds=seeds,
        seed=seed,
        batch_size=batch_size,
        random_steps=random_steps,
        block=block,
        evaluations=evaluations,
        episodes=episodes,
        precision=precision,
    )
    return execute(asked, out=out, data=data, task=task, progress=progress)


def specify(
    method: AbstractMethod,
    chosen: DataChoice | None,
    task: Task | None,
    *,
    updates: int,
    steps: int,
    seeds: int | list[int],
    seed: int,
    batch_size: int,
    random_steps: int | None,
    block: int | None,
    evaluations: int,
    episodes: int,
    precision: str,
) -> Specification:
    """What `train` is asked to do, with `chosen` as what is said of the data.

    Raises `SpecificationError` if the method does not get the experience that it learns from.
    """
    check_kind(method, chosen is not None, task is not None)
    budget = None
    if is_online(method):
        assert task is not None
        budget = Budget(
            steps=steps,
            rows=rows_per_update(method, batch_size),
            random_steps=min(5_000, steps // 10) if random_steps is None else random_steps,
            block=default_block(task) if block is None else block,
        )
    return Specification(
        verb="train",
        method=MethodChoice.of(method),
        seeds=seed_list(seeds),
        seed=seed,
        evaluations=evaluations,
        episodes=episodes,
        batch_size=batch_size,
        precision=precision,
        updates=None if budget is not None else updates,
        data=chosen,
        task=None if task is None else TaskChoice.of(task),
        budget=budget,
    )


def as_method(method: AbstractMethod | str | type) -> AbstractMethod:
    """A method from its name or class. Raises `SpecificationError` if there is none."""
    if isinstance(method, str):
        return build_method(method)
    if isinstance(method, type) and issubclass(method, AbstractMethod):
        return build_method(method.__name__)
    if not isinstance(method, AbstractMethod):
        raise SpecificationError(f"{method!r} is no method: give one such as IQL() or its name")
    method_class(type(method).__name__)
    return method


def as_task(env: Task | str | None, recorded: str | None = None) -> Task | None:
    """A task from its name; `None` means the `recorded` one, if it can be made here."""
    if env is None:
        try:
            return None if recorded is None else make_recorded(recorded)
        except HeadwaterError:
            return None
    if isinstance(env, str):
        return None if env == "none" else make(env)
    return env


def choose_data(
    data: Dataset | str | Path | None, options: dict[str, Any] | None, **how: Any
) -> tuple[DataChoice | None, Dataset | None]:
    """What the specification says of the data, and the data itself unless it stays on disk."""
    if data is None:
        return None, None
    if isinstance(data, Dataset):
        return DataChoice(None, {}, data.fingerprint(), **how), data
    path = str(locate(data).resolve())
    if how.get("from_disk"):
        known = open_columns(path).fingerprint() if is_column_directory(Path(path)) else None
        return DataChoice(path, options or {}, known, **how), None
    loaded = load(path, **(options or {}))
    return DataChoice(path, options or {}, loaded.fingerprint(), **how), loaded


def recorded_task(chosen: DataChoice, data: Dataset | None) -> str | None:
    """The task that the data says it was logged in."""
    if data is not None:
        return data.metadata.get("environment")
    path = Path(chosen.path or "")
    return open_columns(path).metadata.get("environment") if is_column_directory(path) else None


def seed_list(seeds: int | list[int]) -> list[int]:
    """Which seeds. Raises `SpecificationError` if there are none or one is named twice."""
    if isinstance(seeds, int) and seeds > MOST_SEEDS:
        raise SpecificationError(f"seeds = {seeds}: at most {MOST_SEEDS:,} are trained at once")
    chosen = list(range(seeds)) if isinstance(seeds, int) else [int(s) for s in seeds]
    if not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0:
        raise SpecificationError(
            f"seeds = {seeds}: give how many, or a list of different numbers from 0 on"
        )
    return chosen


def default_block(task: Task) -> int:
    """Environment steps between updates unless told."""
    return 1 if isinstance(task, AbstractEnvironment) else HOST_BLOCK
