"""For people who add a method or an analysis: `check_method` runs every check that methods have to
pass, `check_analysis` those of analyses."""

import importlib

_HOMES = {
    "check_analysis": "headwater.testing.analyses",
    "check_method": "headwater.testing.contract",
    "Report": "headwater.testing.contract",
}


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'headwater.testing' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
