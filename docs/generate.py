"""Writes the pages that follow from the code: the catalogue of methods, and of commands.

`python docs/generate.py` rewrites them; a test fails if they no longer agree with the code.
"""

import dataclasses
import inspect
import textwrap
from pathlib import Path

from headwater.cli import COMMANDS
from headwater.core.catalogue import all_methods, family, settings
from headwater.core.fields import allowed_values
from headwater.core.papers import paper

HERE = Path(__file__).parent
KINDS = {
    "control/imitation": "Learn to act as the log did",
    "control/offline": "Learn from a log alone",
    "control/online": "Learn while acting (RLPD: with a log beside it)",
}


def methods_page() -> str:
    """Every method with its paper, hyper-parameters and deviations."""
    found = all_methods()
    lines = ["# Methods", "", "Written by `docs/generate.py` from the code.", ""]
    lines += ["| method | learns from | year | what it is |", "|---|---|---|---|"]
    order = sorted(found, key=lambda name: (family(name), name.lower()))
    for name in order:
        info = found[name].info
        year = paper(info.paper).year
        lines.append(f"| [{name}](#{name.lower()}) | {family(name)} | {year} | {info.summary} |")
    for kind in sorted({family(name) for name in order}):
        lines += ["", f"## {KINDS.get(kind, kind)}"]
        for name in order:
            if family(name) == kind:
                lines += ["", f"### {name}", "", *_method(name, found[name])]
    return "\n".join(lines) + "\n"


def _method(name: str, cls: type) -> list[str]:
    info = cls.info
    source = paper(info.paper)
    defaults = settings(cls())
    table = ["| hyper-parameter | default | may be |", "|---|---|---|"]
    table += [
        f"| `{field.name}` | `{defaults[field.name]}` | {allowed_values(cls, field)} |"
        for field in dataclasses.fields(cls)
    ]
    text = textwrap.dedent("    " + inspect.cleandoc(cls.__doc__ or "")).strip()
    return [source.citation, "", text, "", *table, "", "```bibtex", source.bibtex, "```"]


def commands_page() -> str:
    """Every command with one line."""
    lines = ["# Commands", "", "Written by `docs/generate.py` from the code.", ""]
    lines += ["| command | what it does |", "|---|---|"]
    lines += [f"| `headwater {name}` | {summary} |" for name, (_, summary) in COMMANDS.items()]
    lines += ["", "`headwater COMMAND --help` explains its options.", ""]
    return "\n".join(lines)


PAGES = {"methods.md": methods_page, "commands.md": commands_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
