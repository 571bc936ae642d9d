"""Write a trained policy for use without Headwater."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from headwater.api.run import Policy, Run, open_run
from headwater.core.catalogue import settings
from headwater.core.errors import RunError, SpecificationError, nearest
from headwater.exports.onnx_graph import onnx_model
from headwater.exports.policy_function import INPUT, OUTPUT, as_text, greedy
from headwater.exports.safetensors import policy_arrays
from headwater.exports.stablehlo import stablehlo_description, stablehlo_program
from headwater.runs.files import write_atomically, write_json

FORMATS = ("onnx", "stablehlo", "safetensors")
"""What a policy can be written as; each is also the suffix of its file."""


def export(
    run: Run | str | Path,
    path: str | Path | None = None,
    *,
    format: str = "onnx",
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Writes the greedy policy of one seed, and returns the path of the file.

    As `onnx` and `stablehlo`: a function from `observation`, float32 `[batch, component]` as the
    environment gives it (whatever normalises it is inside), to `action`, float32
    `[batch, component]` in the units of the environment, or int32 `[batch]` if actions are
    discrete. The batch may have any size. Beside `NAME.stablehlo` lies `NAME.stablehlo.json`, which
    says what goes in and out and how to load it. As `safetensors`: the arrays that the policy
    needs by their path in the method's state, with method, settings and spaces in the header.

    **Arguments:** `run`: or its directory; `path`: of the file, or the directory it goes into
    (default: beside the run's directory, or the working directory); `format`: one of `FORMATS`;
    `seed`: which of the run's seeds; `overwrite`: replace what is there.

    Raises `SpecificationError` for an unknown format, a seed that the run has not, a method that is
    no policy, or a missing package; `RunError` if there is no such run, the file exists or the
    place cannot be written.
    """
    if format not in FORMATS:
        raise SpecificationError(nearest(str(format), FORMATS, "format"))
    if not isinstance(run, Run):
        run = open_run(run)
    policy = _policy(run, seed)
    place = _place(run, path, format, seed)
    beside = place.with_name(place.name + ".json")
    for taken in (place, *((beside,) if format == "stablehlo" else ())):
        if taken.exists() and (taken.is_dir() or not overwrite):
            raise RunError(f"{taken} already exists: choose another path, or ask to overwrite it")
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
    policies, seeds = run.policies, run.specification.seeds
    if seed not in seeds:
        known = ", ".join(map(str, seeds))
        raise SpecificationError(f"{run.name} has no seed {seed}: its seeds are {known}")
    return policies[seeds.index(seed)]


def _place(run: Run, path: str | Path | None, format: str, seed: int) -> Path:
    name = f"{run.name}-seed{seed}.{format}"
    if path is None:
        return (Path() if run.path is None else run.path.parent) / name
    place = Path(path).expanduser()
    if place.is_dir():
        return place / name
    other = place.suffix.removeprefix(".")
    if other in FORMATS and other != format:
        raise SpecificationError(
            f"{place} is named like {other}, but the format is {format}: ask for the format "
            f"{other} or choose another name"
        )
    return place


def _description(run: Run, policy: Policy, seed: int) -> dict[str, Any]:
    return {
        "format": "headwater policy 1",
        "headwater": version("headwater"),
        "run": run.name,
        "seed": seed,
        "method": type(run.method).__name__,
        "settings": settings(run.method),
        "spaces": policy.spaces.to_json(),
    }


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    # Temporary files are private; what is written for others should not be.
    path.chmod(0o644)
