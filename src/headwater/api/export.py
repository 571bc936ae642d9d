"""Write a trained policy for use without Headwater."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from headwater.api.run import Policy, Run, open_run
from headwater.core.catalogue import settings
from headwater.core.errors import RunError, SpecificationError, nearest
from headwater.core.spaces import Box, Spaces
from headwater.export.onnx_graph import onnx_model
from headwater.runs.checkpoint import flatten
from headwater.runs.files import write_atomically, write_json

FORMATS = ("onnx", "stablehlo", "safetensors")
"""What a policy can be written as; each is also the suffix of its file."""

INPUT, OUTPUT = "observation", "action"
"""Names of the input and the output."""

_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


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
    if format == "safetensors":
        content = _arrays(policy, description)
    elif format == "onnx":
        content = onnx_model(
            _greedy(policy), policy.spaces.observation_size, (INPUT, OUTPUT), _as_text(description)
        )
    else:
        content = _program(policy)
    write_atomically(place, lambda temporary: _write(temporary, content))
    if format == "stablehlo":
        write_json(beside, {**description, **_interface(policy.spaces, place.name)})
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


def _as_text(description: dict[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        for name, value in description.items()
    }


def _greedy(policy: Policy) -> Callable:
    method, state, action = policy.method, policy.state, policy.spaces.action

    def one(observation):
        # What is greedy depends on no key.
        chosen = method.act(state, observation, key=jax.random.key(0), explore=False)[0]
        if isinstance(action, Box):
            return action.from_canonical(chosen).astype(jnp.float32)
        return chosen.astype(jnp.int32)

    return jax.vmap(one)


def _program(policy: Policy) -> bytes:
    try:
        import flatbuffers  # noqa: F401  (JAX loads it when it serialises)
    except ImportError:
        raise SpecificationError(
            "writing StableHLO needs the package flatbuffers: pip install 'headwater[stablehlo]'"
        ) from None
    (batch,) = jax_export.symbolic_shape("batch")
    observed = jax.ShapeDtypeStruct((batch, policy.spaces.observation_size), jnp.float32)
    program = jax_export.export(jax.jit(_greedy(policy)), platforms=_PLATFORMS)(observed)
    return bytes(program.serialize())


def _interface(spaces: Spaces, name: str) -> dict[str, Any]:
    as_json = spaces.to_json()
    shape: list[str | int] = ["batch"]
    if spaces.discrete:
        action = {"dtype": "int32", "shape": shape, "units": "index of the action"}
    else:
        shape = [*shape, spaces.action_size]
        action = {"dtype": "float32", "shape": shape, "units": "as the environment takes them"}
    observation = {
        "dtype": "float32",
        "shape": ["batch", spaces.observation_size],
        "units": "as the environment gives them, not normalised",
    }
    return {
        "inputs": [{"name": INPUT, **observation, **as_json["observation"]}],
        "outputs": [{"name": OUTPUT, **action, **as_json["action"]}],
        "platforms": list(_PLATFORMS),
        "made_with": {"jax": jax.__version__},
        "load": [
            "from jax import export  # needs the package flatbuffers",
            f"with open({name!r}, 'rb') as file:",
            "    policy = export.deserialize(bytearray(file.read()))",
            "action = policy.call(observation)",
        ],
    }


def _arrays(policy: Policy, description: dict[str, Any]) -> bytes:
    from safetensors.numpy import save

    def acts(state, observation):
        key = jax.random.key(0)
        return [
            policy.method.act(state, observation, key=key, explore=explore)[0]
            for explore in (False, True)
        ]

    # The state also holds critics and the optimiser's moments; acting, greedily or not, says itself
    # which arrays it reads.
    observed = jax.ShapeDtypeStruct((policy.spaces.observation_size,), jnp.float32)
    read = jax_export.export(jax.jit(acts))(policy.state, observed).module_kept_var_idx
    arrays = {
        name: np.asarray(array, order="C")
        for i, (name, array) in enumerate(flatten(policy.state).items())
        if i in read
    }
    return save(arrays, metadata=_as_text(description))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    # Temporary files are private; what is written for others should not be.
    path.chmod(0o644)
