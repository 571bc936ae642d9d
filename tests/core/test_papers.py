"""The bibliography: read right, complete, and used whole."""

import re

import pytest

from headwater.analysis.registry import all_analyses
from headwater.core.catalogue import all_methods
from headwater.core.errors import SpecificationError
from headwater.core.papers import all_papers, citation, paper, read_papers
from headwater.evidence.registry import all_claims
from headwater.runs.recipes.online import RECIPE_PAPERS

ENTRY = """@article{doe2020a,
  title={On {MDP}s,
    in two lines},
  author={van Doe, Ann and Ørsted, Bo and others},
  year={2020},
  eprint={2001.00001}
}
"""


def test_an_entry_is_read():
    found = read_papers(ENTRY)["doe2020a"]
    assert found.title == "On MDPs, in two lines"
    assert found.authors == ("Ann van Doe", "Bo Ørsted", "others")
    assert found.year == 2020 and found.arxiv == "2001.00001"
    assert found.short == "van Doe et al. (2020), arXiv:2001.00001"
    assert found.citation == (
        "Ann van Doe, Bo Ørsted and others (2020). On MDPs, in two lines. arXiv:2001.00001."
    )
    assert found.bibtex.startswith("@article{doe2020a,") and found.bibtex.endswith("}")


def test_what_is_missing_or_double_is_named():
    with pytest.raises(SpecificationError, match=r"doe2020a has no year"):
        read_papers(ENTRY.replace("  year={2020},\n", ""))
    with pytest.raises(SpecificationError, match=r"doe2020a stands there twice"):
        read_papers(ENTRY + "\n" + ENTRY)
    with pytest.raises(
        SpecificationError, match=r"unknown paper 'azar2017minimaks'.*azar2017minimax"
    ):
        paper("azar2017minimaks")


def test_other_texts_are_citations_of_their_own():
    assert citation("my thesis, 2026") == "my thesis, 2026"
    assert citation("azar2017minimax") == "Azar, Osband, Munos (2017), arXiv:1703.05449"


@pytest.mark.parametrize("key", all_papers())
def test_an_entry_is_complete(key):
    found = all_papers()[key]
    assert len(found.title) > 5 and all(len(author) > 3 for author in found.authors)
    assert 1900 <= found.year <= 2030
    assert re.fullmatch(r"(\d{4}\.\d{4,5}|[a-z-]+/\d{7})?", found.arxiv)
    assert found.bibtex.count("{") == found.bibtex.count("}")
    assert "\\" not in found.bibtex, "accents are written as they are, not in TeX"


def test_every_paper_is_used():
    used = {cls.info.paper for cls in all_methods().values()} | set(RECIPE_PAPERS.values())
    used |= {claim.paper for claim in all_claims().values()}
    used |= {analysis.paper for analysis in all_analyses().values()}
    assert set(all_papers()) == used


def test_there_is_no_citation_elsewhere():
    papers = list(all_papers().values())
    assert len({p.arxiv for p in papers if p.arxiv}) == sum(bool(p.arxiv) for p in papers)
