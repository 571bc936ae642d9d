"""The names of all methods, found without importing any of them (nor JAX)."""

import functools
import pkgutil
import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent / "methods"
_CLASS = re.compile(r"^class (\w+)\(\s*AbstractMethod\b", re.MULTILINE)


@functools.cache
def method_modules() -> dict[str, str]:
    """Name of every method and the module that defines it, read from the text without importing."""
    found = {}
    for module in pkgutil.walk_packages([str(_ROOT)], "headwater.methods."):
        path = _ROOT.joinpath(*module.name.split(".")[2:]).with_suffix(".py")
        if path.is_file():
            for name in _CLASS.findall(path.read_text(encoding="utf-8")):
                found[name] = module.name
    return dict(sorted(found.items()))
