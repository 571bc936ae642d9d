"""Unifloral's and JAX-CORL's own training steps, from checkouts that the user points at.

Both are scripts that import an old simulator stack and a tracker as they load; those packages are
stood in for. Networks, losses, optimisers and steps are theirs, with their defaults.
"""

import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any


def load(path: Path, missing: tuple[str, ...] = ("d4rl", "gym", "wandb")) -> Any:
    """The module of one script. Exits with a sentence if it is not there."""
    if not path.is_file():
        sys.exit(f"{path} does not exist: point at the root of a checkout")
    spec = importlib.util.spec_from_file_location(path.stem + "_of_peer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    for name in missing:
        stand_in = types.ModuleType(name)
        stand_in.Env = object  # pyright: ignore[reportAttributeAccessIssue]
        sys.modules[name] = stand_in
    # They read the command line as they load, and set XLA's flags for a GPU.
    arguments, sys.argv = sys.argv, sys.argv[:1]
    flags = os.environ.get("XLA_FLAGS")
    sys.modules[module.__name__] = module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.argv = arguments
        os.environ.pop("XLA_FLAGS", None)
        if flags is not None:
            os.environ["XLA_FLAGS"] = flags
    return module
