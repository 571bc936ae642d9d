"""All claims, found in the files of this folder."""

import importlib
import pkgutil
from pathlib import Path

from headwater.claims.claim import Claim
from headwater.core.errors import SpecificationError, nearest


def all_claims() -> dict[str, Claim]:
    """Every claim by name, in alphabetical order; a file's claims are in its `CLAIMS`."""
    found: dict[str, Claim] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name in ("claim", "registry"):
            continue
        for claim in importlib.import_module(f"headwater.claims.{module.name}").CLAIMS:
            if claim.name in found:
                raise SpecificationError(f"two claims are called {claim.name}")
            found[claim.name] = claim
    return dict(sorted(found.items()))


def claim_named(name: str) -> Claim:
    """The claim of this name. Raises `SpecificationError`, naming the nearest, if there is none."""
    known = all_claims()
    if name not in known:
        raise SpecificationError(nearest(name, known, "claim"))
    return known[name]
