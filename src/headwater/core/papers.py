"""The papers behind methods and claims: `papers.bib` is the only place of a citation."""

import functools
import re
from pathlib import Path
from typing import NamedTuple

from headwater.core.errors import SpecificationError, nearest

_FILE = Path(__file__).with_name("papers.bib")
_ENTRY = re.compile(r"^@(\w+)\{([^,\s]+),(.*?)^\}$", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*?)\}(?:,|)$", re.MULTILINE | re.DOTALL)


class Paper(NamedTuple):
    """A paper.

    **Arguments:** `key`: in `papers.bib`; `title`; `authors`: each as "First Last"; `year`: of
    publication; `arxiv`: its identifier, empty if there is none; `bibtex`: the entry.
    """

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str
    bibtex: str

    @property
    def short(self) -> str:
        """Family names, year and arXiv identifier, in one line."""
        names = [_family_name(author) for author in self.authors]
        if names[-1] == "others" or len(names) > _MOST_NAMES:
            names = [f"{names[0]} et al."]
        arxiv = f", arXiv:{self.arxiv}" if self.arxiv else ""
        return f"{', '.join(names)} ({self.year}){arxiv}"

    @property
    def citation(self) -> str:
        """Authors, year, title and arXiv identifier, in one sentence."""
        authors = ", ".join(self.authors).replace(", others", " and others")
        arxiv = f" arXiv:{self.arxiv}." if self.arxiv else ""
        end = "" if self.title[-1] in ".?!" else "."
        return f"{authors} ({self.year}). {self.title}{end}{arxiv}"


_MOST_NAMES = 5
"""More family names than these are shortened to the first."""


@functools.cache
def all_papers() -> dict[str, Paper]:
    """Every paper of `papers.bib` by its key, in alphabetical order."""
    found = read_papers(_FILE.read_text(encoding="utf-8"))
    return dict(sorted(found.items()))


def paper(key: str) -> Paper:
    """The paper of this key. Raises `SpecificationError`, naming the nearest, if there is none."""
    known = all_papers()
    if key not in known:
        raise SpecificationError(nearest(key, known, "paper"))
    return known[key]


def citation(text: str) -> str:
    """The short citation of a key of `papers.bib`; any other text is returned as it is.

    So methods and claims of others, whose papers are not ours to list, may cite in words.
    """
    known = all_papers()
    return known[text].short if text in known else text


def read_papers(text: str) -> dict[str, Paper]:
    """The papers in a BibTeX file whose entries and fields begin on lines of their own.

    Raises `SpecificationError` for an entry without title, author or year, and for a key that is
    used twice.
    """
    found: dict[str, Paper] = {}
    for match in _ENTRY.finditer(text):
        key = match[2]
        fields = {name.lower(): _plain(value) for name, value in _FIELD.findall(match[3])}
        if missing := sorted({"title", "author", "year"} - set(fields)):
            raise SpecificationError(f"papers.bib: {key} has no {missing[0]}")
        if key in found:
            raise SpecificationError(f"papers.bib: {key} stands there twice")
        authors = tuple(_first_last(name) for name in fields["author"].split(" and "))
        found[key] = Paper(
            key,
            fields["title"],
            authors,
            int(fields["year"]),
            fields.get("eprint", ""),
            match[0],
        )
    return found


def _plain(value: str) -> str:
    return re.sub(r"\s+", " ", value.replace("{", "").replace("}", "").replace("--", "–")).strip()


def _first_last(name: str) -> str:
    last, _, first = name.partition(", ")
    return f"{first} {last}".strip()


def _family_name(author: str) -> str:
    words = author.split()
    for i, word in enumerate(words[1:], start=1):
        # "van Hasselt", "Van Roy", "Daumé III": a family name may have several words.
        if word in _FAMILY_PARTICLES:
            return " ".join(words[i:])
    return " ".join(words[-2:]) if words[-1] == "III" else words[-1]


_FAMILY_PARTICLES = ("van", "Van", "von", "Le", "des", "ter")
