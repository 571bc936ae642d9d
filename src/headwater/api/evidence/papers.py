"""Cite what a run, a method or a claim stands on."""

from pathlib import Path

from headwater.api.run import Run, open_run
from headwater.core.catalogue import all_methods, method_class
from headwater.core.errors import SpecificationError, nearest
from headwater.core.listing import method_modules
from headwater.core.method import AbstractMethod
from headwater.core.papers import all_papers
from headwater.evidence.registry import all_claims
from headwater.runs.recipes.online import RECIPE_PAPERS


def cite(what: Run | AbstractMethod | type | str | Path) -> str:
    """The BibTeX entries of the papers that a run stands on: its methods and its recipe.

    **Arguments:** `what`: a run or its directory, a method or its name, a claim's name, or the key
    of a paper.

    Raises `SpecificationError` for what is none of these, and for a method whose paper is not in
    `papers.bib`, with what it says instead.
    """
    known = all_papers()
    entries = []
    for key in papers_of(what):
        if key not in known:
            raise SpecificationError(f"there is no BibTeX entry of its paper, only this: {key}")
        entries.append(known[key].bibtex)
    return "\n\n".join(entries)


def papers_of(what: Run | AbstractMethod | type | str | Path) -> list[str]:
    """Keys of the papers that `cite` would give, each once."""
    if isinstance(what, Run):
        return _of_run(what)
    if isinstance(what, AbstractMethod):
        return [what.info.paper]
    if isinstance(what, type):
        return [method_class(what.__name__).info.paper]
    if (Path(what) / "run.json").is_file():
        return _of_run(open_run(what))
    name, claims = str(what), all_claims()
    if name in all_papers():
        return [name]
    if name in claims:
        return [claims[name].paper]
    try:
        return [method_class(name).info.paper]
    except SpecificationError:
        choices = [*method_modules(), *claims, *all_papers()]
        sentence = nearest(name, choices, "run, method, claim or paper")
        if "did you mean" not in sentence:
            sentence = f"'{name}' is no run, method, claim or paper: `headwater papers` lists them"
        raise SpecificationError(sentence) from None


def _of_run(run: Run) -> list[str]:
    keys = [] if run.upstream is None else _of_run(run.upstream)
    keys.append(all_methods()[type(run.method).__name__].info.paper)
    if run.specification.recipe in RECIPE_PAPERS:
        keys.append(RECIPE_PAPERS[run.specification.recipe])
    return list(dict.fromkeys(keys))
