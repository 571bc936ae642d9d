"""Write a trained policy for use without Headwater."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from headwater.api.run import Policy, Run, open_run
from headwater.core.catalogue import settings
from headwater.core.errors import RunError, SpecificationError, nearest
from headwater.core.method import AbstractTablePolicy
from headwater.core.problems.arms import Arms
from headwater.exports.onnx_graph import onnx_model
from headwater.exports.policy_function import (
    CONTEXT,
    INPUT,
    OUTPUT,
    PROBABILITY,
    as_text,
    greedy,
    greedy_arms,
)
from headwater.exports.safetensors import policy_arrays
from headwater.exports.stablehlo import stablehlo_description, stablehlo_program
from headwater.runs.files import write_atomically, write_json

FORMATS = ("onnx", "stablehlo", "safetensors")
"""What a policy that acts on observations can be written as; each is the suffix of its file."""
TABLE, MODEL = "npz", "hugging-face"
"""What a policy of a finite process, and a language model, is written as."""


def export(
    run: Run | str | Path,
    path: str | Path | None = None,
    *,
    format: str | None = None,
    seed: int = 0,
    task: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the greedy policy of one seed, and returns the path of the file.

    As `onnx` and `stablehlo`: a function from `observation`, float32 `[batch, component]` as the
    environment gives it (whatever normalises it is inside), to `action`, float32
    `[batch, component]` in the units of the environment, or int32 `[batch]` if actions are
    discrete. The batch may have any size. Beside `NAME.stablehlo` lies `NAME.stablehlo.json`, which
    says what goes in and out and how to load it. As `safetensors`: the arrays that the policy
    needs by their path in the method's state, with method, settings and spaces in the header.

    Of a bandit whose rounds have contexts, as `onnx`: from `context`, float32 `[batch, context]`,
    to `probability`, float32 `[batch, arm]`; the policy that goes on learning is written by
    `run.policy.save`. Of a finite process, as `npz`: `policy`, the probabilities of actions
    `[step, state, action]`, and `action`, the likeliest `[step, state]`. A language model, as
    `hugging-face`: a directory that transformers loads, with adapters merged into the weights.

    **Arguments:** `run`: or its directory; `path`: of the file, or the directory it goes into
    (default: beside the run's directory, or the working directory); `format`: one of `FORMATS`, or
    the one of its kind (default: `onnx` or that); `seed`: which of the run's seeds; `task`: of a
    run that learned several one after the other, which one the policy acts in, from 0 (default: the
    last); `overwrite`: replace what is there.

    Raises `SpecificationError` for an unknown format, a seed or task that the run has not, a method
    that is no policy, or a missing package; `RunError` if there is no such run, the file exists or
    the place cannot be written.
    """
    known = (*FORMATS, TABLE, MODEL)
    if format is not None and format not in known:
        raise SpecificationError(nearest(str(format), known, "format"))
    if not isinstance(run, Run):
        run = open_run(run)
    if task is not None:
        run = run.for_task(task)
    possible = FORMATS
    if isinstance(run.method, AbstractTablePolicy):
        possible = (TABLE,)
    elif isinstance(run.problem, Arms):
        possible = ("onnx",)
    elif run.base is not None:
        possible = (MODEL,)
    format = possible[0] if format is None else format
    if format not in possible:
        raise SpecificationError(
            f"{run.name} is a run of {type(run.method).__name__}, which is written as "
            f"{' or '.join(possible)}, not as {format}"
        )
    if format in (TABLE, MODEL):
        return _export_whole(run, path, format, seed, overwrite)
    if isinstance(run.problem, Arms):
        return _export_arms(run, path, seed, overwrite)
    policy = _policy(run, seed)
    place = _place(run, path, format, seed)
    beside = place.with_name(place.name + ".json")
    for taken in (place, *((beside,) if format == "stablehlo" else ())):
        _refuse_taken(taken, overwrite)
    description = _description(run, policy, seed)
    parts = policy.method, policy.state, policy.spaces
    if format == "safetensors":
        content = policy_arrays(*parts, description)
    elif format == "onnx":
        size = policy.spaces.observation_size
        content = onnx_model(greedy(*parts), size, (INPUT, OUTPUT), as_text(description))
    else:
        content = stablehlo_program(*parts)
    write_atomically(place, lambda temporary: _write(temporary, content))
    if format == "stablehlo":
        write_json(beside, {**description, **stablehlo_description(policy.spaces, place.name)})
    return place


def _policy(run: Run, seed: int) -> Policy:
    policies = run.policies
    return policies[_index(run, seed)]


def _index(run: Run, seed: int) -> int:
    seeds = run.specification.seeds
    if seed not in seeds:
        known = ", ".join(map(str, seeds))
        raise SpecificationError(f"{run.name} has no seed {seed}: its seeds are {known}")
    return seeds.index(seed)


def _export_whole(
    run: Run, path: str | Path | None, format: str, seed: int, overwrite: bool
) -> Path:
    """The policy of a finite process, or a language model, in its one form."""
    index = _index(run, seed)
    if format == TABLE:
        table = run.policies[index]
        place = _place(run, path, format, seed)
        _refuse_taken(place, overwrite)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, policy=table, action=np.argmax(table, axis=-1).astype(np.int32))
            temporary.chmod(0o644)

        write_atomically(place, write)
        return place
    model = run.models[index]
    name = f"{run.name}-seed{seed}"
    beside = Path() if run.path is None else run.path.parent
    place = beside / name if path is None else Path(path).expanduser()
    if place.is_file() or (place.is_dir() and any(place.iterdir()) and not overwrite):
        raise RunError(f"{place} already exists: choose another path, or ask to overwrite it")
    model.write(model.decoder, place)
    return place


def _export_arms(run: Run, path: str | Path | None, seed: int, overwrite: bool) -> Path:
    """The policy over the arms of a bandit."""
    policy, problem = run.policies[_index(run, seed)], run.problem
    place = _place(run, path, "onnx", seed)
    _refuse_taken(place, overwrite)
    description = {
        **_origin(run, seed),
        "arms": problem.arms,
        "context_size": problem.context_size,
    }
    function = greedy_arms(policy.method, policy.state, problem)
    names = CONTEXT, PROBABILITY
    content = onnx_model(function, problem.context_size, names, as_text(description))
    write_atomically(place, lambda temporary: _write(temporary, content))
    return place


def _refuse_taken(place: Path, overwrite: bool) -> None:
    if place.exists() and (place.is_dir() or not overwrite):
        raise RunError(f"{place} already exists: choose another path, or ask to overwrite it")


def _place(run: Run, path: str | Path | None, format: str, seed: int) -> Path:
    name = f"{run.name}-seed{seed}.{format}"
    if path is None:
        return (Path() if run.path is None else run.path.parent) / name
    place = Path(path).expanduser()
    if place.is_dir():
        return place / name
    other = place.suffix.removeprefix(".")
    if other in (*FORMATS, TABLE) and other != format:
        raise SpecificationError(
            f"{place} is named like {other}, but the format is {format}: ask for the format "
            f"{other} or choose another name"
        )
    return place


def _description(run: Run, policy: Policy, seed: int) -> dict[str, Any]:
    return {**_origin(run, seed), "spaces": policy.spaces.to_json()}


def _origin(run: Run, seed: int) -> dict[str, Any]:
    return {
        "format": "headwater policy 1",
        "headwater": version("headwater"),
        "run": run.name,
        "seed": seed,
        "method": type(run.method).__name__,
        "settings": settings(run.method),
    }


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    # Temporary files are private; what is written for others should not be.
    path.chmod(0o644)
