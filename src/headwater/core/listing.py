"""The names of all methods, found without importing any of them (nor JAX)."""

import functools
import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent / "methods"
_CLASS = re.compile(r"^class (\w+)\(\s*AbstractMethod\b", re.MULTILINE)


@functools.cache
def method_modules() -> dict[str, str]:
    """Name of every method and the module that defines it, read from the text without importing."""
    found = {}
    for path in sorted(_ROOT.rglob("*.py")):
        module = ".".join(("headwater.methods", *path.relative_to(_ROOT).with_suffix("").parts))
        for name in _CLASS.findall(path.read_text(encoding="utf-8")):
            found[name] = module
    return dict(sorted(found.items()))
