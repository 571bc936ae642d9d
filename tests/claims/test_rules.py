"""What every claim has to say of itself, and that no method of these families is without one."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from headwater.analysis.registry import all_analyses
from headwater.core.errors import SpecificationError
from headwater.core.listing import method_modules
from headwater.core.papers import all_papers
from headwater.evidence.claim import SCALES, Claim
from headwater.evidence.registry import all_claims, claim_files, claim_named

FAMILIES = ("tabular", "linear", "low_rank", "preference", "language")
"""Families of methods whose papers make statements that are exact enough to be executed."""

OWN = Path(__file__).parents[1] / "evidence" / "own_claims.py"


@pytest.mark.parametrize("name", all_claims())
def test_a_claim_says_what_it_is(name):
    claim = all_claims()[name]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert set(claim.methods) <= set(method_modules())
    analysed = {entry.paper for entry in all_analyses().values()}
    decodes = claim.experiment.__module__.split(".")[2] == "decoding"
    known = claim.methods or claim.paper in analysed or decodes
    assert known, "it is about no method, no analysis and no decoding"
    assert {"smoke", "small"} <= set(claim.scales) <= set(SCALES)
    assert claim.statement.rstrip().endswith(".")
    assert claim.paper in all_papers(), "the paper is not in papers.bib"
    assert claim.where.strip()


@pytest.mark.parametrize("name", all_claims())
def test_the_experiment_takes_its_scales(name):
    claim = all_claims()[name]
    for arguments in claim.scales.values():
        inspect.signature(claim.experiment).bind(seed=0, **arguments)


@pytest.mark.parametrize(
    "method", [name for name, file in method_modules().items() if file.split(".")[2] in FAMILIES]
)
def test_every_method_has_a_claim(method):
    assert any(method in claim.methods for claim in all_claims().values())


@pytest.mark.parametrize("file", claim_files())
def test_a_file_holds_claims(file):
    module = importlib.import_module(f"headwater.claims.{file}")
    assert module.CLAIMS and all(isinstance(claim, Claim) for claim in module.CLAIMS)


def test_an_unknown_claim_and_a_name_used_twice(tmp_path):
    with pytest.raises(SpecificationError, match="unknown claim 'zz-hold': did you mean zz-holds"):
        claim_named("zz-hold", [OWN])
    own = OWN.read_text(encoding="utf-8")
    (tmp_path / "again.py").write_text(own, encoding="utf-8")
    with pytest.raises(SpecificationError, match="two claims are called zz-dies"):
        all_claims([OWN, tmp_path / "again.py"])
    with pytest.raises(SpecificationError, match="no such Python file"):
        all_claims([tmp_path / "nowhere.py"])
