"""The documentation site: a page for everything, and no link that leads nowhere or outside."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from headwater.core.catalogue import all_methods, method_class, settings
from headwater.core.papers import all_papers
from headwater.evidence.registry import all_claims

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TOOLS = ("math_core", "zensical")


def module(name):
    """A file of `docs/site`, which is no package."""
    path, sys.path[:] = list(sys.path), [str(DOCS / "site"), *sys.path]
    try:
        return importlib.import_module(name)
    finally:
        sys.path[:] = path


@pytest.fixture(scope="module")
def site():
    return module("build").make_site()


@pytest.mark.parametrize("name", all_methods())
def test_a_method_has_a_page_with_all_its_hyper_parameters(site, name):
    cls = method_class(name)
    page = site.pages[module("links").page_of(name)]
    assert page.startswith(f"# {name}\n")
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.*) \| (.*?) \|$", page, re.MULTILINE)
    assert {row[0]: row[1] for row in rows} == {k: str(v) for k, v in settings(cls()).items()}
    silent = [row[0] for row in rows if not row[3]]
    assert not silent, f"the docstring of {name} says nothing of {', '.join(silent)}"
    assert all_papers()[cls.info.paper].bibtex in page


def test_a_claim_has_a_page_and_stands_on_those_of_its_methods(site):
    for name, claim in all_claims().items():
        assert claim.statement in site.pages[f"claims/{name}.md"]
        for method in claim.methods:
            assert f"{name}.md" in site.pages[module("links").page_of(method)]


def test_every_paper_is_covered(site):
    rows = site.pages["papers.md"].count("\n| ")
    assert rows == 2 + len(all_papers())
    (row,) = re.findall(r"^\| Ilya Kostrikov, .*$", site.pages["papers.md"], re.MULTILINE)
    assert "[IQL](methods/control/offline/iql.md)" in row


def test_every_command_tells_its_options(site):
    text = site.pages["commands.md"]
    assert "## headwater train\n" in text and "--seeds N" in text
    assert "╭" not in text and "│" not in text


def test_every_family_is_among_what_one_can_choose():
    text = (DOCS / "choose.md").read_text(encoding="utf-8")
    methods = module("method_pages")
    with_methods = [folder for folder in methods.families() if methods.methods_of(folder)]
    assert sorted(re.findall(r"<!-- methods: (\S+) -->", text)) == sorted(with_methods)


def test_what_one_can_begin_with_are_methods():
    text = (DOCS / "choose.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+)`[^|]*\|$", text, re.MULTILINE)
    assert len(named) > 10 and set(named) - {"wsrl"} <= set(all_methods())


def test_written_pages_name_files_that_are_there():
    places = (ROOT, DOCS, ROOT / "src/headwater", ROOT / "src/headwater/environments")
    for path in [*ROOT.glob("*.md"), *DOCS.glob("*.md")]:
        for name in re.findall(r"`([a-z_/]+\.py)`", path.read_text(encoding="utf-8")):
            assert any((place / name).exists() for place in places), f"{path.name}: {name}"


def test_a_page_that_is_listed_nowhere_comes_last(tmp_path):
    site = module("links").Site({"index.md": "# A", "extra.md": "# B", "deep/page.md": "# C"}, {})
    module("build").write(site, tmp_path)
    *listed, last = json.loads((tmp_path / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert {"Headwater": "index.md"} in listed and last == "extra.md"
    assert (tmp_path / "pages/deep/page.md").read_text(encoding="utf-8") == "# C"


def test_methods_are_links_where_they_stand_as_code():
    text = "`IQL`, [`IQL`](x.md), `hw.IQL`, `nothing`\n```sh\n`IQL`\n```"
    assert module("links").name_methods(text) == text.replace(
        "`IQL`,", "[`IQL`](/docs/methods/control/offline/iql.md),", 1
    )


def test_links_become_links_between_pages():
    links = module("links")
    site = links.Site({"a/b.md": "", "data.md": ""}, {})
    text = "[data](../data.md#names) `[x](y)` [method](/docs/a/b.md) [above](#here)"
    assert links.link("a/b.md", text, DOCS / "a", site) == (
        "[data](../data.md#names) `[x](y)` [method](b.md) [above](#here)"
    )
    assert links.link("data.md", "[run](../Makefile)", DOCS, site) == "[run](source/Makefile.md)"
    assert ".DEFAULT_GOAL" in site.pages["source/Makefile.md"]
    with pytest.raises(links.DeadLink, match=r"^data\.md links to no\.md, which is not there$"):
        links.link("data.md", "[lost](no.md)", DOCS, site)


def test_a_bar_in_an_equation_does_not_end_a_cell():
    assert module("tables").table(["a", "b"], [["$p(x|y)$", "1 | 2"]]) == (
        "| a | b |\n| --- | --- |\n| $p(x\\vert y)$ | 1 \\| 2 |"
    )


def test_wrong_links_of_a_built_site_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="a.html#top"></a><a href="b.html"></a><a href="#lost"></a>'
        '<a href="https://example.org"></a><img src="https://example.org/a.png">'
        '<link rel="stylesheet" href="//example.org/a.css">'
    )
    (tmp_path / "a.css").write_text("body { background: url(https://example.org/b.png) }")
    assert module("build").check(tmp_path) == [
        "a.html links to b.html, which is not there",
        "a.html links to #lost, which has no such place",
        "a.html loads https://example.org/a.png",
        "a.html loads //example.org/a.css",
        "a.css loads https://example.org/b.png",
    ]


def test_equations_are_mathml_that_may_break_at_relations():
    pytest.importorskip("math_core")
    equations = module("equations")
    assert equations.mathml("a < 1") == [
        '<math><mi>a</mi><mo form="infix">&lt;</mo></math>',
        "<math><mn>1</mn></math>",
    ]
    assert len(equations.mathml("-a + b")) == 1
    with pytest.raises(Exception, match="Unknown command"):
        equations.mathml(r"\nothing")


def test_the_site_builds(site, tmp_path):
    for name in TOOLS:
        pytest.importorskip(name)
    module("build").build(tmp_path / "work", tmp_path / "out", site)
    page = (tmp_path / "out/methods/control/offline/iql.html").read_text(encoding="utf-8")
    assert page.count("<math>") >= 5
    assert "$" not in re.sub(r"<(script|code|style).*?</\1>", "", page, flags=re.DOTALL)
    assert '"title":"IQL"' in (tmp_path / "out/search.js").read_text(encoding="utf-8")
