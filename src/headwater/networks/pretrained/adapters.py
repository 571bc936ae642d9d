"""Low-rank adapters in PEFT's form: a directory with `adapter_config.json` and safetensors."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from headwater.core.errors import DataError, SpecificationError, nearest
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.low_rank_adapters import MATRICES, Adapted, AdaptedLinear, Matrix
from headwater.networks.pretrained.configuration import Config
from headwater.networks.pretrained.families import FAMILIES, ModelFamily, family_of
from headwater.networks.pretrained.files import read_json, replace_file, write_json

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FLOATS = ("float16", "float32", "float64", "bfloat16")
_ONLY: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": (None, "CAUSAL_LM"),
    "bias": ("none",),
    # The others change the weights that the adapters are beside, too.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}
"""What fields must be, if they are there."""
_WITHOUT_EFFECT = (
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules"),
    *("exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
    *("base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode"),
    *("lora_dropout", "megatron_core", "qalora_group_size", "loftq_config", "eva_config"),
    *("runtime_config", "ensure_weight_tying"),
)
"""Fields that are read, or that change nothing of what adapters compute; others must be empty."""


class _Module(NamedTuple):
    """A linear map of a layer, as it is stored.

    **Arguments:** `name`: `{layer}` stands for its number; `matrices`: that it holds side by side;
    `transposed`: see `Tensor`.
    """

    name: str
    matrices: tuple[Matrix, ...]
    transposed: bool

    @property
    def within(self) -> str:
        """Its name inside a layer."""
        return self.name.partition("{layer}.")[2]


def holds_adapters(directory: str | Path) -> bool:
    """Whether a directory is of adapters."""
    return (Path(directory) / _CONFIG).is_file()


def base_of(directory: str | Path) -> Path:
    """The directory of the model that adapters are of, as they say, or else their own.

    Raises `DataError` if neither holds a model.
    """
    directory = Path(directory)
    named = read_json(directory / _CONFIG).get("base_model_name_or_path")
    for place in ([Path(named)] if isinstance(named, str) and named else []) + [directory]:
        if (place / "config.json").is_file():
            return place
    raise DataError(
        f"{directory / _CONFIG}: the model {named!r} that these adapters are of is no directory "
        "here: give the model's directory, and this one as its adapters"
    )


def matrices_named(
    names: Sequence[str], decoder: Decoder, *, family: str | None = None
) -> tuple[Matrix, ...]:
    """The matrices that are called so here or in PEFT (`q_proj`, `all-linear`).

    **Arguments:** `family`: `model_type` of the files whose names may be used. Raises
    `SpecificationError` for a name that none has.
    """
    known: dict[str, tuple[Matrix, ...]] = {
        name: (name,) for name in MATRICES if getattr(decoder.blocks, name) is not None
    }
    known["all-linear"] = tuple(known)  # pyright: ignore[reportArgumentType]
    for module in _modules(FAMILIES[family]) if family in FAMILIES else ():
        last = module.within.rpartition(".")[2]
        for name in {last, module.within}:
            known[name] = (*known.get(name, ()), *module.matrices)
    found: list[Matrix] = []
    for name in names:
        if name not in known:
            raise SpecificationError(nearest(name, known, "target module"))
        found += known[name]
    return tuple(dict.fromkeys(found))


def _modules(family: ModelFamily) -> list[_Module]:
    found = []
    for tensor in family.tensors:
        name, _, kind = tensor.name.rpartition(".")
        parts = [place.split(".")[1] for place in tensor.places if place.startswith("blocks.")]
        if kind == "weight" and parts and all(part in MATRICES for part in parts):
            found.append(_Module(name, tuple(parts), tensor.transposed))  # pyright: ignore[reportArgumentType]
    return found


# Reading ----------------------------------------------------------------------------------------


def read_adapters(directory: str | Path, decoder: Decoder, *, family: str | None = None) -> Adapted:
    """A decoder with the adapters in a directory.

    Ranks may differ between layers: what is missing is filled up with zeros, which do not learn.

    **Arguments:** `decoder`: that the adapters were trained on; `family`: its `model_type`, where
    it is known. Raises `DataError`, naming the file and the field or tensor, for what is missing or
    damaged, does not fit the decoder, or cannot be honoured (DoRA, trained biases, other modules
    that are saved whole).
    """
    directory = Path(directory)
    config = _settings(directory)
    kind = FAMILIES[family_of(decoder.architecture, family)]
    file, stored = directory / _WEIGHTS, _tensors(directory, kind)
    halves: dict[Matrix, list[_Halves | None]] = {}
    for module in _modules(kind):
        widths = [_linear(decoder, m).weight.shape for m in module.matrices if _has(decoder, m)]
        if not widths:
            continue
        for layer in range(decoder.architecture.layers):
            name = module.name.format(layer=layer)
            pair = [stored.pop(f"{name}.lora_{half}.weight", None) for half in "AB"]
            if pair[0] is None and pair[1] is None:
                continue
            into, out_of = _checked(file, name, pair, widths)
            scale = _scale(config, directory, name, into.shape[0])
            columns = np.cumsum([shape[-1] for shape in widths])[:-1]
            for matrix, part in zip(module.matrices, np.split(out_of, columns)):
                layers = halves.setdefault(matrix, [None] * decoder.architecture.layers)
                layers[layer] = _Halves(into.T, part.T, scale)
    for name in sorted(stored):
        raise DataError(
            f"{file}: tensor '{name}' cannot be honoured: only low-rank adapters of the linear "
            "maps inside layers are read"
        )
    if not halves:
        raise DataError(f"{file}: there is no adapter in it")
    return _with(decoder, {name: _stacked(decoder, name, each) for name, each in halves.items()})


class _Halves(NamedTuple):
    """What is added to one matrix: `scale · x into out_of`."""

    into: Float[np.ndarray, "fan_in rank"]
    out_of: Float[np.ndarray, "rank fan_out"]
    scale: float


def _linear(decoder: Decoder, name: Matrix) -> Any:
    return getattr(decoder.blocks, name)


def _has(decoder: Decoder, name: Matrix) -> bool:
    return _linear(decoder, name) is not None


def _stacked(decoder: Decoder, name: Matrix, layers: Sequence[_Halves | None]) -> AdaptedLinear:
    inner = _linear(decoder, name)
    count, fan_in, fan_out = inner.weight.shape
    rank = max(each.into.shape[-1] for each in layers if each is not None)
    scale = next(each.scale for each in layers if each is not None)
    into = np.zeros((count, fan_in, rank), np.float32)
    out_of = np.zeros((count, rank, fan_out), np.float32)
    for layer, each in enumerate(layers):
        if each is not None:
            own = each.into.shape[-1]
            into[layer, :, :own] = each.into
            out_of[layer, :own] = each.out_of * np.float32(each.scale / scale)
    return AdaptedLinear(inner, jnp.asarray(into), jnp.asarray(out_of), scale)


def _with(decoder: Decoder, linears: Mapping[Matrix, AdaptedLinear]) -> Adapted:
    names = tuple(linears)
    begun = Adapted(decoder, key=jax.random.key(0), rank=1, matrices=names)
    return eqx.tree_at(
        lambda network: [getattr(network.decoder.blocks, name) for name in names],
        begun,
        [linears[name] for name in names],
    )


def _settings(directory: Path) -> Config:
    path = directory / _CONFIG
    if not path.is_file():
        raise DataError(f"{path} is missing: adapters need it beside their weights")
    fields = read_json(path)
    for name, allowed in _ONLY.items():
        # True and 1 are equal, but 1 is not meant.
        if name in fields and not any(fields[name] is a or fields[name] == a for a in allowed):
            raise DataError(
                f"{path}: field '{name}' is {fields[name]!r}, which cannot be honoured: only "
                f"{' or '.join(map(repr, allowed))}"
            )
    for name, value in fields.items():
        if value and name not in _ONLY and name not in _WITHOUT_EFFECT:
            raise DataError(
                f"{path}: field '{name}' is {value!r}, which cannot be honoured: merge these "
                "adapters into their model (merge_and_unload of PEFT does) and take that"
            )
    return Config(fields)


def _scale(config: Config, directory: Path, name: str, rank: int) -> float:
    """What counts an adapter: alpha over its rank, or over the root of it."""
    try:
        expected = _of_pattern(config, "rank_pattern", name) or config.positive("r", 8)
        alpha = _of_pattern(config, "alpha_pattern", name) or config.number("lora_alpha", 8.0)
        rooted = config.flag("use_rslora")
        if not alpha or not math.isfinite(alpha):
            raise DataError(
                f"field 'lora_alpha' is {alpha:g}, with which adapters say nothing: give a finite "
                "number other than 0"
            )
    except DataError as error:
        raise DataError(f"{directory / _CONFIG}: {error}") from None
    if rank != expected:
        raise DataError(
            f"{directory / _WEIGHTS}: the adapter of '{name}' has rank {rank} where {_CONFIG} says "
            f"{expected}"
        )
    return float(alpha) / (rank**0.5 if rooted else rank)


def _of_pattern(config: Config, field: str, name: str) -> Any:
    """What is said of modules that are called so, or end so; `None` if nothing is."""
    patterns = config.fields.get(field) or {}
    if not isinstance(patterns, dict):
        raise DataError(f"field '{field}' must be an object, not {patterns!r}")
    for pattern, value in patterns.items():
        if not re.fullmatch(r"\^?[\w.]+", pattern):
            raise DataError(
                f"field '{field}' has the pattern {pattern!r}, which cannot be honoured: only names"
            )
        whole = pattern.removeprefix("^")
        if name == whole or (whole == pattern and name.endswith(f".{pattern}")):
            if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
                raise DataError(f"field '{field}.{pattern}' must be a positive number")
            return value
    return None


def _tensors(directory: Path, family: ModelFamily) -> dict[str, np.ndarray]:
    """Every stored tensor by its name in the base, with the prefix where that was left out."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = directory / _WEIGHTS
    if not file.is_file():
        raise DataError(
            f"{file} is missing: adapters need it beside {_CONFIG} (pickles such as "
            "adapter_model.bin are never loaded, because they can run code)"
        )
    try:
        stored = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{file}: this safetensors file is truncated or corrupt ({error}): copy or download "
            "it again"
        ) from None
    found = {}
    for name, array in stored.items():
        short = name.removeprefix(_PREFIX)
        found[short if short.startswith(family.prefix) else family.prefix + short] = array
    return found


def _checked(
    file: Path, name: str, pair: Sequence[np.ndarray | None], shapes: Sequence[tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """Both halves of an adapter in float32, as they are stored: `[rank, in]` and `[out, rank]`."""
    found = []
    for half, array in zip("AB", pair):
        tensor = f"{name}.lora_{half}.weight"
        if array is None:
            raise DataError(f"{file}: tensor '{tensor}' is missing beside its other half")
        if array.dtype.name not in _FLOATS:
            raise DataError(
                f"{file}: tensor '{tensor}' is of type {array.dtype}: save it in float32"
            )
        if not np.isfinite(array).all():
            raise DataError(f"{file}: tensor '{tensor}' holds values that are not finite")
        found.append(array.astype(np.float32))
    into, out_of = found
    fan_in, fan_out = shapes[0][-2], sum(shape[-1] for shape in shapes)
    fits = into.ndim == out_of.ndim == 2 and into.shape[0] == out_of.shape[1]
    if not fits or into.shape[1] != fan_in or out_of.shape[0] != fan_out:
        raise DataError(
            f"{file}: the adapter of '{name}' has halves of {list(into.shape)} and "
            f"{list(out_of.shape)} where the model asks for [rank, {fan_in}] and [{fan_out}, rank]"
        )
    return into, out_of


# Writing ----------------------------------------------------------------------------------------


def write_adapters(
    networks: Adapted | Sequence[Adapted],
    directory: str | Path,
    *,
    base: str | Path,
    family: str | None = None,
) -> None:
    """Writes a directory that PEFT loads on the model in the directory `base`.

    **Arguments:** `networks`: whose adapters are written; of several, on decoders of one
    architecture, all are added up; `family`: `model_type` of the base, where it is known.

    Matrices that the base stores side by side share an adapter there, whose rank is the sum of
    theirs. Raises `SpecificationError` if no family has the architecture, `DataError` if there are
    adapters already.
    """
    networks = [networks] if isinstance(networks, Adapted) else list(networks)
    directory, decoder = Path(directory), networks[0].without_adapters()
    if holds_adapters(directory):
        raise DataError(f"{directory}: there are adapters already: choose another directory")
    modules = _modules(FAMILIES[family_of(decoder.architecture, family)])
    lasts = [module.within.rpartition(".")[2] for module in modules]
    arrays: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    transposed = True
    for module, last in zip(modules, lasts):
        joined = _joined(module, decoder, networks)
        if joined is None:
            continue
        for layer in range(decoder.architecture.layers):
            name = _PREFIX + module.name.format(layer=layer)
            arrays[f"{name}.lora_A.weight"] = np.ascontiguousarray(joined.into[layer].T)
            arrays[f"{name}.lora_B.weight"] = np.ascontiguousarray(joined.out_of[layer].T)
        called = last if lasts.count(last) == 1 else module.within
        ranks[called] = joined.into.shape[-1]
        alphas[called] = joined.scale * ranks[called]
        transposed = module.transposed
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": _plain(alpha),
        "target_modules": sorted(ranks),
        "rank_pattern": {name: r for name, r in ranks.items() if r != rank},
        "alpha_pattern": {name: _plain(a) for name, a in alphas.items() if a != alpha},
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": not transposed,
        "inference_mode": True,
    }
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    save = lambda path: save_file(arrays, path, metadata={"format": "pt"})
    replace_file(directory / _WEIGHTS, save)
    write_json(directory / _CONFIG, fields)


def _plain(x: float) -> int | float:
    return int(x) if x == int(x) else x


class _Joined(NamedTuple):
    """An adapter of each layer: `into` `[layer, in, rank]`, `out_of` `[layer, rank, out]`."""

    into: np.ndarray
    out_of: np.ndarray
    scale: float


def _joined(module: _Module, decoder: Decoder, networks: Sequence[Adapted]) -> _Joined | None:
    """One adapter that adds all that networks add to the matrices of a module, side by side."""
    intos, rows, scale = [], [], 1.0
    widths = [_linear(decoder, m).weight.shape[-1] for m in module.matrices if _has(decoder, m)]
    ends = np.cumsum(widths)
    for network in networks:
        for matrix, end, width in zip(module.matrices, ends, widths):
            linear = _linear(network.decoder, matrix)
            if not isinstance(linear, AdaptedLinear):
                continue
            scale = linear.scale if not intos else scale
            intos.append(np.asarray(linear.into, np.float32))
            part = np.asarray(linear.out_of, np.float32) * np.float32(linear.scale / scale)
            sides = (end - width, int(ends[-1]) - end)
            rows.append(np.pad(part, ((0, 0), (0, 0), sides)))
    if not intos:
        return None
    return _Joined(np.concatenate(intos, axis=-1), np.concatenate(rows, axis=-2), scale)
