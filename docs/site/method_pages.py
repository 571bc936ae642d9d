"""The pages of methods and their families, from the catalogue and the docstrings.

Links begin at the root of the repository, where `docs/` stands for the pages of the site.
"""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from claim_pages import citation, claims_of
from links import ROOT, method_link, page_of, title_of
from tables import stacked, table

from headwater.core.catalogue import (
    all_methods,
    family,
    learns_from,
    method_class,
    method_modules,
    settings,
)
from headwater.core.fields import allowed_values
from headwater.core.papers import paper

CONTRACT = "headwater.core.method"
"""The module whose classes say what a method can do."""


def families() -> list[str]:
    """Every folder of methods, such as `control` and `control/offline`."""
    found = {family(name) for name in method_modules()}
    return sorted(found | {folder.rpartition("/")[0] for folder in found if "/" in folder})


def methods_of(folder: str) -> list[str]:
    """The methods that live in a folder itself, in the order of the alphabet."""
    return sorted((n for n in method_modules() if family(n) == folder), key=str.lower)


def method_pages() -> dict[str, str]:
    """A page for each method, each family, and all of them."""
    pages = {page_of(name): _method_page(name, cls) for name, cls in all_methods().items()}
    for folder in families():
        text = f"# {title_of(folder)}\n\n{_purpose(folder)}\n\n"
        pages[f"methods/{folder}/index.md"] = text + family_table(folder)
    text = f"# Methods\n\n{len(method_modules())} methods, by what they learn from. "
    text += "[Choose a method](/docs/choose.md) says which of them to begin with.\n"
    for folder in families():
        if methods := methods_of(folder):
            text += f"\n## [{title_of(folder)}](/docs/methods/{folder}/index.md)\n\n"
            text += f"{_purpose(folder)}\n\n{_method_table(methods)}\n"
    return {**pages, "methods/index.md": text}


def _purpose(folder: str) -> str:
    module = importlib.import_module(f"headwater.methods.{folder.replace('/', '.')}")
    return inspect.getdoc(module) or ""


def family_table(folder: str) -> str:
    """The families below a folder, and a table of the methods in it."""
    below = [other for other in families() if other.rpartition("/")[0] == folder]
    lines = [
        f"- [{title_of(other)}](/docs/methods/{other}/index.md): {_purpose(other)}"
        for other in below
    ]
    methods = methods_of(folder)
    return "\n".join([*lines, "", _method_table(methods) if methods else ""])


def _method_table(names: list[str]) -> str:
    found = [(method_link(name), method_class(name).info) for name in names]
    rows = [[link, info.summary, paper(info.paper).year] for link, info in found]
    return table(["method", "what it is", "year"], rows)


def _method_page(name: str, cls: Any) -> str:
    info = cls.info
    problem, data = learns_from(cls)
    folder, source = family(name), Path(inspect.getfile(cls))
    able = [inspect.getdoc(base) or "" for base in cls.__mro__ if base.__module__ == CONTRACT]
    able = re.findall(r"^Capability: (.*)\.$", "\n".join(able), re.MULTILINE)
    facts = [
        f"**Family:** [{title_of(folder)}](/docs/methods/{folder}/index.md)",
        f"**Learns from:** {cls.feed.value} (`{data.__name__}`, `{problem.__name__}`)",
        f"**Can:** {'; '.join(able)}",
        f"**Grew from:** {', '.join(map(method_link, info.parents))}" if info.parents else "",
        f"**Paper:** {citation(info.paper)}",
        f"**Source:** [{source.name}](/{source.relative_to(ROOT).as_posix()})",
    ]
    text, meanings = _split_arguments(inspect.getdoc(cls) or "")
    return "\n".join(
        [
            f"# {name}\n\n{text}\n",
            *(f"- {fact}" for fact in facts if fact),
            f"\n## Hyper-parameters\n\n{_hyper_parameters(cls, meanings)}",
            *claims_of(name),
            f"\n## Citation\n\n```bibtex\n{paper(info.paper).bibtex}\n```\n",
        ]
    )


def _split_arguments(text: str) -> tuple[str, dict[str, str]]:
    """A docstring without its list of arguments, and what it says of each of them."""
    before, _, rest = text.partition("**Arguments:**")
    listed, _, after = rest.partition("\n\n**")
    found = {}
    for item in re.split(r"\n- ", "\n" + listed.strip())[1:]:
        names, _, meaning = item.partition(": ")
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), " ".join(meaning.split()))
    return f"{before.strip()}\n\n{'**' if after else ''}{after}".strip(), found


def _hyper_parameters(cls: Any, meanings: dict[str, str]) -> str:
    rows = []
    for field in dataclasses.fields(cls):
        default = settings(cls())[field.name]
        meaning = meanings.get(field.name, "")
        rows.append([f"`{field.name}`", f"`{default}`", allowed_values(cls, field), meaning])
    return stacked(["name", "default", "may be", "meaning"], rows, "settings")
