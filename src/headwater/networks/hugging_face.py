"""Language models in Hugging Face's form: a directory with `config.json` and safetensors."""

import dataclasses
import math
import shutil
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.core.stored_size import ALWAYS
from headwater.networks.decoders.architecture import Architecture, Precision
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.pretrained.families import FAMILIES, ModelFamily, family_of
from headwater.networks.pretrained.files import read_json, replace_file, write_json
from headwater.networks.reward_head import WithReward

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_INDEX = "model.safetensors.index.json"
_GENERATION = "generation_config.json"
_UNEMBEDDING, _SCORE = "lm_head.weight", "score.weight"
_STORED_TYPES = ("float32", "bfloat16", "float16")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
"""What belongs to a tokenizer and is copied with a model."""


_NOT_WEIGHTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Constants that older versions stored among the weights."""


# Reading ----------------------------------------------------------------------------------------


def read_architecture(directory: str | Path, dtype: Precision | None = None) -> Architecture:
    """What `config.json` in a directory describes.

    **Arguments:** `dtype`: what to compute in (default: bfloat16 where the model says so, float32
    otherwise). Raises `DataError` for a file that is missing or damaged, a kind of model that is
    not known, and fields that cannot be honoured.
    """
    return _described(Path(directory), dtype)[1]


def read_decoder(
    directory: str | Path, *, dtype: Precision | None = None, stored: Precision | None = None
) -> Decoder:
    """The model in a directory.

    **Arguments:** `dtype`: see `read_architecture`; `stored`: type of the arrays (default: that
    which is computed in).

    Raises `DataError`, naming the file and the tensor, for tensors that are missing, left over or
    of another shape, and as `read_architecture` does.
    """
    directory = Path(directory)
    return _read(directory, *_described(directory, dtype), stored)[0]


def read_reward_model(
    directory: str | Path, *, dtype: Precision | None = None, stored: Precision | None = None
) -> WithReward:
    """The model in a directory that gives a text one score (`…ForSequenceClassification`).

    **Arguments:** as of `read_decoder`. Raises `DataError` as that does, and for a model that has
    several scores.
    """
    directory = Path(directory)
    family, architecture = _described(directory, dtype, scores=True)
    # What predicts tokens is not stored, and not needed.
    architecture = dataclasses.replace(architecture, tied=True)
    decoder, score = _read(directory, family, architecture, stored, scores=True)
    assert score is not None
    return eqx.tree_at(lambda n: n.weights, WithReward(decoder), jnp.asarray(score, jnp.float32))


def _read(
    directory: Path,
    family: ModelFamily,
    architecture: Architecture,
    stored: Precision | None,
    *,
    scores: bool = False,
) -> tuple[Decoder, np.ndarray | None]:
    """The decoder, and the weights of its score if it has one."""
    kept = jnp.dtype(stored or architecture.dtype)
    shapes = eqx.filter_eval_shape(lambda key: Decoder(architecture, key=key), jax.random.key(0))
    found = _stored_tensors(directory, family.prefix)
    needed = sum(math.prod(leaf.shape) * kept.itemsize for leaf in jax.tree.leaves(shapes))
    stored_bytes = sum(file.stat().st_size for file in {place.file for place in found.values()})
    if needed > max(ALWAYS, 4 * stored_bytes):
        raise DataError(
            f"{directory / _CONFIG} describes {needed:,} bytes of weights, but {stored_bytes:,} "
            "are stored: take both from the same model"
        )
    arrays: dict[str, np.ndarray] = {}
    for tensor in family.tensors:
        if not all(_has(shapes, place) for place in tensor.places):
            continue
        for place in tensor.places:
            arrays[place] = np.empty(attrgetter(place)(shapes).shape, kept)
        for layer in range(architecture.layers) if "{layer}" in tensor.name else (None,):
            name = tensor.name.format(layer=layer)
            targets = [arrays[p] if layer is None else arrays[p][layer] for p in tensor.places]
            _fill(found, name, targets, tensor.transposed)
    score = None
    if scores:
        score = np.empty((1, architecture.width), np.float32)
        _fill(found, _SCORE, [score], False)
    _refuse_left_over(found, architecture, arrays)
    return _assembled(shapes, arrays), None if score is None else score[0]


def _has(tree: Any, place: str) -> bool:
    for name in place.split("."):
        tree = getattr(tree, name)
        if tree is None:
            return False
    return True


def _assembled(shapes: Decoder, arrays: Mapping[str, np.ndarray]) -> Decoder:
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    names = [jax.tree_util.keystr(path).lstrip(".") for path, _ in leaves]
    return jax.tree.unflatten(structure, [jnp.asarray(arrays[name]) for name in names])


class _Place(NamedTuple):
    """A stored tensor that is read when asked for."""

    file: Path
    name: str
    opened: Any


def _stored_tensors(directory: Path, prefix: str) -> dict[str, _Place]:
    """Every stored tensor by its name, with the family's prefix where it was left out."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, _Place] = {}
    for file in _weight_files(directory):
        try:
            opened = safe_open(file, framework="numpy")
            names = list(opened.keys())
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"{file}: this safetensors file is truncated or corrupt ({error}): copy or "
                "download it again"
            ) from None
        for name in names:
            if name.endswith(_NOT_WEIGHTS):
                continue
            full = name if name.startswith((prefix, "lm_head.", "score.")) else prefix + name
            if full in found:
                raise DataError(f"{file}: tensor '{name}' is also in {found[full].file.name}")
            found[full] = _Place(file, name, opened)
    return found


def _weight_files(directory: Path) -> list[Path]:
    index, single = directory / _INDEX, directory / _WEIGHTS
    if single.is_file():
        return [single]
    if index.is_file():
        table = read_json(index).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise DataError(f"{index}: 'weight_map' must say which file holds each tensor")
        files = [directory / Path(str(name)).name for name in sorted(set(table.values()))]
        for file in files:
            if not file.is_file():
                raise DataError(f"{file} is missing, which {_INDEX} names: download it too")
        return files
    pickled = sorted(directory.glob("*.bin")) + sorted(directory.glob("*.pt*"))
    if pickled:
        raise DataError(
            f"{pickled[0]}: weights in this form are a pickle, which is never loaded because it "
            f"can run code: save the model with safetensors (save_pretrained of transformers does)"
        )
    raise DataError(f"{single} is missing: a model needs it, or {_INDEX} and the files it names")


def _fill(found: dict[str, _Place], name: str, targets: list[np.ndarray], transposed: bool) -> None:
    """Reads one tensor into the arrays that it holds side by side; it is then no longer `found`."""
    place = found.pop(name, None)
    if place is None:
        files = {p.file.name for p in found.values()}
        where = " and ".join(sorted(files)) if files else "the weights"
        raise DataError(f"{where}: tensor '{name}' is missing, which {_CONFIG} asks for")
    widths = [target.shape[-1] for target in targets]
    expected = (*targets[0].shape[:-1], sum(widths))
    expected = expected[::-1] if transposed else expected
    shape = tuple(place.opened.get_slice(place.name).get_shape())
    if shape != expected:
        raise DataError(
            f"{place.file}: tensor '{place.name}' is {list(shape)} where {_CONFIG} asks for "
            f"{list(expected)}"
        )
    array = place.opened.get_tensor(place.name)
    if array.dtype.name not in ("float16", "float32", "float64", "bfloat16"):
        raise DataError(
            f"{place.file}: tensor '{place.name}' is of type {array.dtype}, which is quantised: "
            "save the model in bfloat16 or float32"
        )
    if not np.isfinite(array).all():
        raise DataError(
            f"{place.file}: tensor '{place.name}' holds values that are not finite, of which all "
            "that the model says would be spoilt: take a copy from before that happened"
        )
    array = array.T if transposed else array
    start = 0
    for target, width in zip(targets, widths):
        target[...] = array[..., start : start + width]
        start += width


def _refuse_left_over(found: dict[str, _Place], architecture: Architecture, arrays) -> None:
    for name, place in sorted(found.items()):
        if name == "lm_head.weight" and architecture.tied:
            stored = place.opened.get_tensor(place.name).astype(np.float32)
            same = stored.shape == arrays["embedding"].shape
            if same and np.allclose(stored, arrays["embedding"].astype(np.float32), rtol=1e-2):
                continue
            raise DataError(
                f"{place.file}: tensor '{place.name}' differs from the embedding, although "
                f"{_CONFIG} says that they are one ('tie_word_embeddings')"
            )
        raise DataError(
            f"{place.file}: tensor '{place.name}' is left over: {_CONFIG} describes no such part"
        )


def _described(
    directory: Path, dtype: Precision | None, *, scores: bool = False
) -> tuple[ModelFamily, Architecture]:
    path = directory / _CONFIG
    if not directory.is_dir():
        raise DataError(f"{directory}: there is no such directory of a model: check the path")
    if not path.is_file():
        raise DataError(f"{path} is missing: a model's directory needs it beside its weights")
    fields = read_json(path)
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        # The nearest name would be of another architecture.
        raise DataError(
            f"{path}: models of type {str(kind)!r} cannot be read: {', '.join(FAMILIES)} can"
        )
    family = FAMILIES[kind]
    if scores:
        _check_scorer(path, fields, family)
    for name in () if scores else fields.get("architectures") or [family.name]:
        # A class without a head holds no unembedding; if that is tied, nothing is missing.
        if name != family.name and not str(name).endswith("Model"):
            raise DataError(
                f"{path}: this is a {name}, which does not predict tokens: take a {family.name}"
            )
    if fields.get("quantization_config"):
        raise DataError(
            f"{path}: field 'quantization_config' cannot be honoured: save the model in bfloat16 "
            "or float32"
        )
    stored = fields.get("dtype", fields.get("torch_dtype"))
    precision = dtype or ("bfloat16" if stored == "bfloat16" else "float32")
    try:
        architecture = dataclasses.replace(family.read(fields), dtype=precision)
        # What could not be written after training is not read.
        family_of(architecture, kind)
        return family, architecture
    except (DataError, SpecificationError) as error:
        raise DataError(f"{path}: {error}") from None


def _check_scorer(path: Path, fields: Mapping[str, Any], family: ModelFamily) -> None:
    names = fields.get("architectures") or ["model without a name"]
    if family.scorer not in names:
        wanted = "" if family.scorer is None else f": take a {family.scorer}"
        raise DataError(f"{path}: this is a {names[0]}, which does not score texts{wanted}")
    # Where nothing is said, transformers takes two.
    labels = len(fields.get("id2label") or (0, 1))
    if labels != 1:
        raise DataError(
            f"{path}: this model tells {labels} kinds of texts apart, but a reward is one number: "
            "take one with a single label"
        )


# Writing ----------------------------------------------------------------------------------------


def write_decoder(
    decoder: Decoder,
    directory: str | Path,
    *,
    tokenizer: str | Path | None = None,
    end: int | tuple[int, ...] = (),
    overwrite: bool = False,
) -> None:
    """Writes a directory that `transformers` loads.

    **Arguments:** `tokenizer`: a directory whose tokenizer is copied, and where there is a model
    beside it, the tokens that it begins, ends and pads with, its settings of generation and the
    type that its weights are stored in; `end`: the token that ends a response, or all that do, for
    a model that is not made from another; `overwrite`: whether a model that is there may be
    replaced.

    Raises `SpecificationError` if no family has the architecture, `DataError` if there is a model
    already.
    """
    _write(decoder, Path(directory), tokenizer, end, overwrite)


def write_reward_model(
    network: WithReward,
    directory: str | Path,
    *,
    tokenizer: str | Path | None = None,
    end: int | tuple[int, ...] = (),
    padding: int,
    overwrite: bool = False,
) -> None:
    """Writes a directory that transformers loads as a model for sequence classification.

    It scores the last token of a text that is not `padding`.

    **Arguments:** `network`: of which the decoder has no adapters; `padding`: what texts are padded
    with, unless the model that it is made from says so; the rest as of `write_decoder`, which
    raises the same. Raises `SpecificationError` also where transformers has no such model.
    """
    decoder = network.network
    assert isinstance(decoder, Decoder)
    _write(
        decoder, Path(directory), tokenizer, end, overwrite, (np.asarray(network.weights), padding)
    )


def _write(
    decoder: Decoder,
    directory: Path,
    tokenizer: str | Path | None,
    end: int | tuple[int, ...],
    overwrite: bool,
    score: tuple[np.ndarray, int] | None = None,
) -> None:
    """**Arguments:** `score`: the weights of a score and the token of padding, if it scores."""
    architecture = decoder.architecture
    origin = None if tokenizer is None else Path(tokenizer)
    kept = _origin(origin)
    kind = family_of(architecture, kept.pop("model_type", None))
    family = FAMILIES[kind]
    if score is not None and family.scorer is None:
        raise SpecificationError(f"transformers has no model of type {kind} that scores texts")
    if (directory / _CONFIG).exists() and not overwrite:
        raise DataError(f"{directory}: there is a model already: choose another directory")
    directory.mkdir(parents=True, exist_ok=True)
    stored = kept.pop("dtype", None) or decoder.embedding.dtype.name
    ends = [end] if isinstance(end, int) else list(end)
    marked = (ends[0] if len(ends) == 1 else ends) if ends else None
    fields = {
        "architectures": [family.name],
        "model_type": kind,
        **family.write(architecture),
        "dtype": stored,
        "torch_dtype": stored,
        "bos_token_id": None,
        "eos_token_id": marked,
        # What transformers takes for it otherwise may lie beyond the vocabulary.
        "pad_token_id": None,
        **kept,
    }
    if score is not None:
        fields |= {
            "architectures": [family.scorer],
            "pad_token_id": kept.get("pad_token_id", score[1]),
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
        }
    generation = _generation(origin) or ({} if not ends else {"eos_token_id": marked})
    from safetensors.numpy import save_file

    # What an earlier model was in would be read with the new one.
    for old in (directory / _INDEX, directory / _GENERATION):
        old.unlink(missing_ok=True)
    arrays = dict(_to_store(decoder, family, stored))
    if score is not None:
        arrays.pop(_UNEMBEDDING, None)
        arrays[_SCORE] = np.asarray(jnp.asarray(score[0], jnp.dtype(stored)))[None]
    save = lambda path: save_file(arrays, path, metadata={"format": "pt"})
    replace_file(directory / _WEIGHTS, save)
    write_json(directory / _CONFIG, fields)
    if generation:
        write_json(directory / _GENERATION, generation)
    if origin is not None and origin.resolve() != directory.resolve():
        for name in TOKENIZER_FILES:
            if (origin / name).is_file():
                shutil.copyfile(origin / name, directory / name)


def family_named(directory: str | Path) -> str | None:
    """The `model_type` that the `config.json` in a directory names, if it names one."""
    return read_json(Path(directory) / _CONFIG).get("model_type")


def ending_tokens(directory: str | Path) -> tuple[int, ...]:
    """Every token that ends a response, as `config.json` and `generation_config.json` say.

    Raises `DataError` for files that are damaged.
    """
    found: list[int] = []
    for name in (_CONFIG, _GENERATION):
        path = Path(directory) / name
        given = read_json(path).get("eos_token_id") if path.is_file() else None
        for token in given if isinstance(given, list) else [given]:
            if isinstance(token, int) and not isinstance(token, bool) and token not in found:
                found.append(token)
    return tuple(found)


def _origin(directory: Path | None) -> dict[str, Any]:
    """What stays of the description of the model that another one is made from."""
    if directory is None or not (directory / _CONFIG).is_file():
        return {}
    fields = read_json(directory / _CONFIG)
    marks = ("model_type", "bos_token_id", "eos_token_id", "pad_token_id")
    kept = {name: fields[name] for name in marks if fields.get(name) is not None}
    dtype = fields.get("dtype", fields.get("torch_dtype"))
    return {**kept, "dtype": dtype} if dtype in _STORED_TYPES else kept


def _generation(directory: Path | None) -> dict[str, Any]:
    path = None if directory is None else directory / _GENERATION
    return read_json(path) if path is not None and path.is_file() else {}


def _to_store(
    decoder: Decoder, family: ModelFamily, dtype: str
) -> Iterator[tuple[str, np.ndarray]]:
    for tensor in family.tensors:
        if not all(_has(decoder, place) for place in tensor.places):
            continue
        arrays = [attrgetter(place)(decoder) for place in tensor.places]
        parts = [np.asarray(jnp.asarray(array, jnp.dtype(dtype))) for array in arrays]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        for layer in range(decoder.architecture.layers) if "{layer}" in tensor.name else (None,):
            array = whole if layer is None else whole[layer]
            yield (
                tensor.name.format(layer=layer),
                np.ascontiguousarray(array.T if tensor.transposed else array),
            )
