"""Pure-JAX environments, bandits and black boxes, found in the files of this room, not imported."""

import functools
import importlib
import re
from pathlib import Path
from typing import Any

_ROOM = Path(__file__).parent
_CLASS = {
    kind: re.compile(rf"^class (\w+)\(\s*{kind}\b", re.MULTILINE)
    for kind in ("AbstractEnvironment", "AbstractBandit", "AbstractBlackBox", "AbstractMeasuredBox")
}
_NAME = re.compile(r"^    name: ClassVar\[str\] = \"([a-z0-9-]+)\"", re.MULTILINE)


@functools.cache
def environment_names() -> tuple[str, ...]:
    """Names of the pure-JAX environments."""
    return tuple(_homes("AbstractEnvironment"))


def bandit_names() -> tuple[str, ...]:
    """Names of the bandits."""
    return tuple(_homes("AbstractBandit"))


def black_box_names() -> tuple[str, ...]:
    """Names of the black boxes, those that measure what solutions do included."""
    return tuple(sorted({**_homes("AbstractBlackBox"), **_homes("AbstractMeasuredBox")}))


def environment_class(name: str) -> Any:
    """The class of the pure-JAX environment, bandit or black box called `name`."""
    module, known = {place: home for kind in _CLASS for place, home in _homes(kind).items()}[name]
    return getattr(importlib.import_module(f"headwater.environments.{module}"), known)


@functools.cache
def _homes(kind: str) -> dict[str, tuple[str, str]]:
    found = {}
    for path in sorted(_ROOM.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        classes = list(_CLASS[kind].finditer(text))
        for this, following in zip(classes, [*classes[1:], None]):
            body = text[this.end() : following.start() if following else len(text)]
            for name in _NAME.findall(body)[:1]:
                found[name] = (
                    ".".join(path.relative_to(_ROOM).with_suffix("").parts),
                    this.group(1),
                )
    return dict(sorted(found.items()))
