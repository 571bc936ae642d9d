"""All claims, found in the files of the room `claims`."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from headwater.core.errors import SpecificationError, nearest
from headwater.evidence.claim import Claim

_ROOM = Path(__file__).resolve().parents[1] / "claims"


def all_claims(files: Sequence[str | Path] = ()) -> dict[str, Claim]:
    """Every claim by name, in alphabetical order; a file's claims are in its `CLAIMS`.

    **Arguments:** `files`: Python files of your own, which are executed, with claims beside ours.

    Raises `SpecificationError` for two claims of one name.
    """
    found: dict[str, Claim] = {}
    modules = [importlib.import_module(f"headwater.claims.{file}") for file in claim_files()]
    for module in [*modules, *(_module_at(Path(file)) for file in files)]:
        for claim in getattr(module, "CLAIMS", ()):
            if claim.name in found:
                raise SpecificationError(f"two claims are called {claim.name}")
            found[claim.name] = claim
    return dict(sorted(found.items()))


def claim_files() -> list[str]:
    """The files that hold claims as modules below `headwater.claims`, without importing them."""
    files = [path.relative_to(_ROOM).with_suffix("") for path in _ROOM.rglob("*.py")]
    return sorted(".".join(file.parts) for file in files if file.name != "__init__")


def claim_named(name: str, files: Sequence[str | Path] = ()) -> Claim:
    """The claim of this name. Raises `SpecificationError`, naming the nearest, if there is none."""
    known = all_claims(files)
    if name not in known:
        raise SpecificationError(nearest(name, known, "claim"))
    return known[name]


def _module_at(path: Path) -> ModuleType:
    name = f"headwater_claims_of_{path.stem}"
    if name in sys.modules and sys.modules[name].__file__ == str(path):
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or specification is None or specification.loader is None:
        raise SpecificationError(f"{path}: there is no such Python file with claims")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module
