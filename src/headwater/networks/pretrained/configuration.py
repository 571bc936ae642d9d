"""What the `config.json` of a language model says, in parts that read it and write it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from headwater.core.errors import DataError
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.rotary import RotaryScaling

Fields = dict[str, Any]


class Config:
    """The fields of a `config.json`, which complain by name."""

    def __init__(self, fields: Fields):
        self.fields = fields

    def positive(self, name: str, default: int | None = None) -> int:
        """A positive integer; null stands for the default, where there is one."""
        value = self.fields.get(name, default)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DataError(f"field '{name}' must be a positive integer, not {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        """A number."""
        value = self.fields.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise DataError(f"field '{name}' must be a number, not {value!r}")
        return float(value)

    def optional(self, name: str, default: float | None = None) -> float | None:
        """A number, or nothing."""
        if self.fields.get(name, default) is None:
            return None
        return self.number(name, default or 0.0)

    def require(self, name: str, *allowed: Any) -> None:
        """The first allowed value is what a missing field means."""
        value = self.fields.get(name, allowed[0])
        if value not in allowed:
            raise DataError(
                f"field '{name}' is {value!r}, which cannot be honoured: only "
                f"{' or '.join(map(repr, allowed))}"
            )

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.fields.get(name, default)
        if not isinstance(value, bool):
            raise DataError(f"field '{name}' must be true or false, not {value!r}")
        return value

    def items(self, name: str, count: int, default: list[Any]) -> list[Any]:
        """A list of so many items or more, of which the first count."""
        value = self.fields.get(name)
        value = default if value is None else value
        if not isinstance(value, list) or len(value) < count:
            raise DataError(f"field '{name}' must be a list of {count} items")
        return value[:count]


# Parts of a description -------------------------------------------------------------------------


class Part(NamedTuple):
    """Some of what a configuration says: both ways.

    **Arguments:** `read`: from the configuration and what earlier parts found, fields of an
    `Architecture`; `write`: from an architecture, fields of the configuration.
    """

    read: Callable[[Config, Fields], Fields]
    write: Callable[[Architecture], Fields]


def whole(stored: str, ours: str, default: int | Callable[[Fields], int] | None = None) -> Part:
    """A positive integer; the default may follow from what earlier parts found."""

    def read(config: Config, found: Fields) -> Fields:
        usual = default(found) if callable(default) else default
        return {ours: config.positive(stored, usual)}

    return Part(read, lambda a: {stored: getattr(a, ours)})


def number(stored: str, ours: str, default: float) -> Part:
    """A number."""
    return Part(
        lambda config, found: {ours: config.number(stored, default)},
        lambda a: {stored: getattr(a, ours)},
    )


def optional(stored: str, ours: str, default: float | None = None) -> Part:
    """A number, or nothing."""
    return Part(
        lambda config, found: {ours: config.optional(stored, default)},
        lambda a: {stored: getattr(a, ours)},
    )


def flag(stored: str, *ours: str, default: bool = False) -> Part:
    """True or false, of everything named."""
    return Part(
        lambda config, found: dict.fromkeys(ours, config.flag(stored, default)),
        lambda a: {stored: getattr(a, ours[-1])},
    )


def only(stored: str, *allowed: Any, written: bool = True) -> Part:
    """A field that must have one of these values; the first is what it means if it is missing."""

    def read(config: Config, found: Fields) -> Fields:
        config.require(stored, *allowed)
        return {}

    return Part(read, lambda a: {stored: allowed[0]} if written else {})


def always(**ours: Any) -> Part:
    """What is so in every model of the family, whatever its configuration says."""
    return Part(lambda config, found: ours, lambda a: {})


# Rotary positions -------------------------------------------------------------------------------


def rotary(base: float = 10_000.0, *, partial: bool = False) -> Part:
    """Both ways of saying it: `rope_parameters`, or `rope_theta` with `rope_scaling`.

    **Arguments:** `base`: unless it is said; `partial`: whether a part of a head may be turned.
    """

    def read(config: Config, found: Fields) -> Fields:
        name = "rope_parameters" if config.fields.get("rope_parameters") else "rope_scaling"
        given = _object(config.fields.get(name), name)
        share = given.get("partial_rotary_factor", config.fields.get("partial_rotary_factor", 1.0))
        if not partial:
            Config({"partial_rotary_factor": share}).require("partial_rotary_factor", 1.0, 1)
        width = int(found["head_width"] * Config({"share": share}).number("share", 1.0))
        return {"rotary_width": width, **_turning(config, name, given, found, base)}

    def write(a: Architecture) -> Fields:
        rope, context = _told(a, a.rotary_base, a.rotary_scaling)
        if partial and a.rotary_width != a.head_width:
            rope["partial_rotary_factor"] = a.rotary_width / a.head_width
        # Version 5 of transformers reads `rope_parameters`, earlier ones the others.
        older = {k: v for k, v in rope.items() if k not in ("rope_theta", "partial_rotary_factor")}
        scaling = None if a.rotary_scaling is None else older
        share = {k: v for k, v in rope.items() if k == "partial_rotary_factor"}
        theta = {"rope_theta": a.rotary_base, "rope_scaling": scaling}
        return {"rope_parameters": rope, **theta, **share, **context}

    return Part(read, write)


def _object(given: Any, name: str) -> Fields:
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise DataError(f"field '{name}' must be an object, not {given!r}")
    return given


def _turning(config: Config, name: str, given: Fields, found: Fields, base: float) -> Fields:
    """Base and scaling of rotary positions, and the context where that follows from them."""
    inner = Config({f"{name}.{key}": value for key, value in given.items()})
    base = inner.number(f"{name}.rope_theta", config.number("rope_theta", base))
    if not base > 0.0:
        raise DataError(f"field 'rope_theta' must be positive, not {base:g}")
    kind = given.get("rope_type", given.get("type", "default"))
    # Phi-3 once called it so.
    kind = "longrope" if kind == "su" else kind
    if kind == "default":
        return {"rotary_base": base, "rotary_scaling": None}
    # Phi-3 says these beside the rest.
    trained = given.get("original_max_position_embeddings")
    trained = config.fields.get("original_max_position_embeddings", trained)
    context = found["context"]
    original = Config({f"{name}.original": trained}).positive(f"{name}.original", context)
    if kind == "longrope":
        factor = inner.optional(f"{name}.factor") or context / original
        magnitude = math.sqrt(1.0 + math.log(factor) / math.log(original)) if factor > 1.0 else 1.0
        lists = {key: _numbers(given, key, name) for key in ("short_factor", "long_factor")}
        scaling = RotaryScaling(
            "longrope",
            factor,
            original_context=original,
            magnitude=inner.optional(f"{name}.attention_factor") or magnitude,
            short=lists["short_factor"],
            long=lists["long_factor"],
        )
        return {"rotary_base": base, "rotary_scaling": scaling}
    if kind not in ("linear", "dynamic", "llama3", "yarn"):
        raise DataError(
            f"field '{name}' asks for rotary positions of type {kind!r}, which cannot be honoured: "
            "only 'default', 'linear', 'dynamic', 'llama3', 'yarn' and 'longrope'"
        )
    if "factor" not in given:
        raise DataError(f"field '{name}' lacks 'factor'")
    factor = inner.number(f"{name}.factor", 1.0)
    if kind == "linear":
        return {"rotary_base": base, "rotary_scaling": RotaryScaling("linear", factor)}
    if kind == "dynamic":
        # The longest texts of training; they are stretched as far as the factor goes.
        scaling = RotaryScaling("dynamic", factor, original_context=context)
        longer = max(int(context * factor), context)
        return {"rotary_base": base, "rotary_scaling": scaling, "context": longer}
    if kind == "llama3":
        scaling = RotaryScaling(
            "llama3",
            factor,
            inner.number(f"{name}.low_freq_factor", 1.0),
            inner.number(f"{name}.high_freq_factor", 4.0),
            8192 if trained is None else original,
        )
        return {"rotary_base": base, "rotary_scaling": scaling}
    scaling = RotaryScaling(
        "yarn",
        factor,
        inner.optional(f"{name}.beta_slow") or 1.0,
        inner.optional(f"{name}.beta_fast") or 32.0,
        original,
        inner.optional(f"{name}.attention_factor") or _yarn_magnitude(inner, name, factor),
        rounded=inner.flag(f"{name}.truncate", True),
    )
    return {"rotary_base": base, "rotary_scaling": scaling}


def _yarn_magnitude(inner: Config, name: str, factor: float) -> float:
    def of(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1.0 else 1.0

    one, all_ = inner.optional(f"{name}.mscale"), inner.optional(f"{name}.mscale_all_dim")
    return of(one) / of(all_) if one and all_ else of(1.0)


def _numbers(given: Fields, key: str, name: str) -> tuple[float, ...]:
    value = given.get(key)
    numbers = isinstance(value, list) and all(isinstance(x, int | float) for x in value)
    if not value or not numbers:
        raise DataError(f"field '{name}.{key}' must be a list of numbers")
    return tuple(float(x) for x in value)


def _told(a: Architecture, base: float, scaling: RotaryScaling | None) -> tuple[Fields, Fields]:
    """What is said of rotary positions, and what then is said of the context."""
    rope: Fields = {"rope_theta": base, "rope_type": "default"}
    if scaling is None:
        return rope, {}
    rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
    original = {"original_max_position_embeddings": scaling.original_context}
    if scaling.kind == "dynamic":
        return rope, {"max_position_embeddings": scaling.original_context}
    if scaling.kind == "llama3":
        rope |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high, **original}
    if scaling.kind == "yarn":
        rope |= {"beta_slow": scaling.low, "beta_fast": scaling.high, **original}
        rope |= {"attention_factor": scaling.magnitude, "truncate": scaling.rounded}
    if scaling.kind == "longrope":
        rope |= {"short_factor": list(scaling.short), "long_factor": list(scaling.long)}
        rope |= {"attention_factor": scaling.magnitude, **original}
        return rope, original
    return rope, {}


# Windows ----------------------------------------------------------------------------------------

_LOCAL, _GLOBAL = "sliding_attention", "full_attention"


def local_layers(config: Config, found: Fields, usual: Callable[[int], bool]) -> list[bool]:
    """Which layers keep to a window, by `layer_types`; `usual`: where that is not said."""
    count = found["layers"]
    kinds = [_LOCAL if usual(layer) else _GLOBAL for layer in range(count)]
    kinds = config.items("layer_types", count, kinds)
    for kind in kinds:
        if kind not in (_LOCAL, _GLOBAL):
            raise DataError(
                f"field 'layer_types' has layers of type {kind!r}, which cannot be honoured: only "
                f"'{_LOCAL}' and '{_GLOBAL}'"
            )
    return [kind == _LOCAL for kind in kinds]


def window_of(config: Config, local: list[bool], default: int | None = 4096) -> Fields:
    """How wide the window is, and which layers keep to it; nothing where none does."""
    if not any(local):
        return {"window": None, "local_layers": None}
    window = config.positive("sliding_window", default)
    return {"window": window, "local_layers": None if all(local) else tuple(local)}


def layer_types(a: Architecture) -> Fields:
    """What is said of windows: of which layers, and how wide."""
    local = [a.window is not None] * a.layers if a.local_layers is None else a.local_layers
    kinds = [_LOCAL if each else _GLOBAL for each in local]
    return {"layer_types": kinds, "sliding_window": a.window}


def window_everywhere(default: int | None = None) -> Part:
    """Of all layers, or of none where it is null."""

    def read(config: Config, found: Fields) -> Fields:
        there = config.fields.get("sliding_window", default) is not None
        return window_of(config, [there] * found["layers"], default)

    return Part(read, lambda a: {"sliding_window": a.window})


def windows(usual: Callable[[int], bool]) -> Part:
    """Of some layers: of which, if nothing else is said."""
    return Part(
        lambda config, found: window_of(config, local_layers(config, found, usual)),
        layer_types,
    )


def switched_windows() -> Part:
    """Of some layers, from a certain one on, if they are switched on at all (Qwen)."""

    def read(config: Config, found: Fields) -> Fields:
        if not config.flag("use_sliding_window"):
            return window_of(config, [])
        first = config.positive("max_window_layers", 28)
        return window_of(config, local_layers(config, found, lambda layer: layer >= first))

    def write(a: Architecture) -> Fields:
        return {**layer_types(a), "use_sliding_window": a.window is not None}

    return Part(read, write)


def windows_with_rotary(usual: Callable[[int], bool], base: float, local_base: float) -> Part:
    """Windows of some layers, whose rotary positions have a base of their own and no scaling."""

    def read(config: Config, found: Fields) -> Fields:
        local = local_layers(config, found, usual)
        given = _object(config.fields.get("rope_parameters"), "rope_parameters")
        name = f"rope_parameters.{_GLOBAL}"
        whole = given.get(_GLOBAL) or config.fields.get("rope_scaling")
        others = _turning(config, name, _object(whole, name), found, base)
        own = config.number("rope_local_base_freq", local_base)
        name = f"rope_parameters.{_LOCAL}"
        within = _object(given.get(_LOCAL), name)
        near = _turning(Config({}), name, within, found, own)
        if near["rotary_scaling"] is not None:
            raise DataError(f"field '{name}' scales rotary positions, which cannot be honoured")
        windows = window_of(config, local)
        if all(local):
            return {**windows, **near}
        same = others["rotary_base"] == near["rotary_base"] and others["rotary_scaling"] is None
        alike = same or not any(local)
        return {
            **windows,
            **others,
            "local_rotary_base": None if alike else near["rotary_base"],
        }

    def write(a: Architecture) -> Fields:
        whole, context = _told(a, a.rotary_base, a.rotary_scaling)
        own = a.rotary_base if a.local_rotary_base is None else a.local_rotary_base
        near = {"rope_theta": own, "rope_type": "default"}
        return {"rope_parameters": {_GLOBAL: whole, _LOCAL: near}, **layer_types(a), **context}

    return Part(read, write)
