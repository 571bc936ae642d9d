"""The pure-JAX environments, discovered from the files of this room without importing them."""

import functools
import importlib
import re
from pathlib import Path
from typing import Any

_ROOM = Path(__file__).parent
_CLASS = re.compile(r"^class (\w+)\(\s*AbstractEnvironment\b", re.MULTILINE)
_NAME = re.compile(r"^    name: ClassVar\[str\] = \"([a-z0-9-]+)\"", re.MULTILINE)


@functools.cache
def environment_names() -> tuple[str, ...]:
    """Names of the pure-JAX environments."""
    return tuple(_homes())


def environment_class(name: str) -> Any:
    """The class of the pure-JAX environment called `name`."""
    module, known = _homes()[name]
    return getattr(importlib.import_module(f"headwater.environments.{module}"), known)


@functools.cache
def _homes() -> dict[str, tuple[str, str]]:
    found = {}
    for path in sorted(_ROOM.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        classes = list(_CLASS.finditer(text))
        for this, following in zip(classes, [*classes[1:], None]):
            body = text[this.end() : following.start() if following else len(text)]
            for name in _NAME.findall(body)[:1]:
                found[name] = (
                    ".".join(path.relative_to(_ROOM).with_suffix("").parts),
                    this.group(1),
                )
    return dict(sorted(found.items()))
