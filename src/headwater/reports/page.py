"""One HTML file for people: text, tables, pictures and commands, nothing loaded from elsewhere.

A section is made by `text`, `table`, `picture`, `commands` or `columns`; whatever is passed in is
escaped, unless it is `Markup`, which `badge`, `link`, `faint`
and `lines` make.
"""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from headwater.core.errors import RunError
from headwater.runs.files import explain, write_atomically

_STYLE = """
:root { color-scheme: light dark; --ink: #22303c; --faint: #5b6a78; --line: #d8dfe5;
  --paper: #ffffff; --shade: #f3f6f8; --accent: #1f6f8b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4eaef; --faint: #9fadba; --line: #35424e;
  --paper: #151c22; --shade: #1e272f; --accent: #6fbdd8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 54rem; color: var(--ink);
  background: var(--paper); font: 16px/1.55 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; }
p { margin: .5rem 0; }
.lead { font-size: 1.1rem; border-left: 4px solid var(--accent); padding: .1rem 0 .1rem 1rem;
  margin: 1.2rem 0; }
.faint, figcaption { color: var(--faint); font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .94rem;
  font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--faint); font-weight: 600;
  border-bottom: 2px solid var(--line); }
th, td { padding: .42rem .9rem .42rem 0; vertical-align: top; }
td { border-bottom: 1px solid var(--line); }
figure { margin: 1rem 0; }
img { display: block; width: 100%; height: auto; background: #ffffff; border-radius: 6px;
  border: 1px solid var(--line); }
figcaption { margin-top: .4rem; }
figure.gif img { width: auto; max-width: 100%; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
body.broad { max-width: 76rem; }
.badge { display: inline-block; border-radius: 999px; padding: .05rem .65rem; font-weight: 600;
  font-size: .82rem; white-space: nowrap; color: #ffffff; background: #6b7a88; }
.badge.good { background: #2c7a4b; } .badge.bad { background: #a3243b; }
.badge.unsure { background: #a86a12; }
.small { font-size: .84rem; }
.cards { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); gap: 0 2rem; }
@media (max-width: 52rem) { .cards { grid-template-columns: minmax(0, 1fr); } }
td p { margin: 0 0 .25rem; }
pre { background: var(--shade); border-radius: 6px; padding: .8rem 1rem; white-space: pre-wrap;
  font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; }
"""


Kind = Literal["good", "bad", "unsure", "plain"]
"""What a badge says at a glance."""


class Markup(NamedTuple):
    """HTML that is shown as it is."""

    html: str


def write_page(
    path: str | Path, title: str, sections: Sequence[tuple[str, str]], *, broad: bool = False
) -> Path:
    """Writes a page of `sections`, whole or not at all, and returns its path.

    **Arguments:** `sections`: a heading, which may be empty, and HTML made by the functions here;
    every heading can be linked to by its text; `broad`: for tables of many columns.
    """
    body = "\n".join(
        f'<section id="{_anchor(heading)}">\n<h2>{html.escape(heading)}</h2>\n{content}\n</section>'
        if heading
        else content
        for heading, content in sections
    )
    kind = ' class="broad"' if broad else ""
    document = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body{kind}>\n"
        f"<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )
    path = Path(path)
    write_atomically(path, lambda temporary: temporary.write_text(document, encoding="utf-8"))
    return path


def text(*paragraphs: str, kind: str = "") -> str:
    """Paragraphs; `kind`: `lead` for what matters most, `faint` for notes."""
    mark = f' class="{kind}"' if kind else ""
    return "\n".join(f"<p{mark}>{html.escape(paragraph)}</p>" for paragraph in paragraphs)


def badge(name: str, kind: Kind) -> Markup:
    """A word on a coloured ground."""
    return Markup(f'<span class="badge {kind}">{html.escape(name)}</span>')


def link(heading: str) -> Markup:
    """A link to the section with this heading."""
    return Markup(f'<a href="#{_anchor(heading)}">{html.escape(heading)}</a>')


def lines(*parts: str | Markup) -> Markup:
    """Several lines in one cell, in small type where they are plain text."""
    small = lambda part: f'<p class="small">{html.escape(part)}</p>'
    return Markup("".join(f"<p>{p.html}</p>" if isinstance(p, Markup) else small(p) for p in parts))


def faint(text: str) -> Markup:
    """A remark of less weight."""
    return Markup(f'<span class="faint">{html.escape(text)}</span>')


def columns(left: str, right: str) -> str:
    """Two columns side by side, or one below the other where there is no room."""
    return f'<div class="cards"><div>{left}</div><div>{right}</div></div>'


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str | Markup]], shares: Sequence[int] = ()
) -> str:
    """A table; without `columns` it has no head, and the first cells name the others.

    **Arguments:** `shares`: of the width that each column takes, in percent.
    """
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    head = f"<thead><tr>{head}</tr></thead>\n" if columns else ""
    widths = "".join(f'<col style="width: {share}%">' for share in shares)
    head = f"<colgroup>{widths}</colgroup>\n{head}" if widths else head
    body = "\n".join(
        "<tr>" + "".join(f"<td>{_shown(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table>\n{head}<tbody>\n{body}\n</tbody>\n</table></div>'


def picture(path: str | Path, caption: str) -> str:
    """A PNG or a GIF, held in the page itself. Raises `RunError` if it cannot be read."""
    try:
        image = base64.b64encode(Path(path).read_bytes()).decode("ascii")
    except OSError as error:
        raise RunError(explain(error, Path(path))) from error
    caption = html.escape(caption)
    kind = Path(path).suffix.removeprefix(".")
    return (
        f'<figure class="{kind}"><img alt="{caption}" src="data:image/{kind};base64,{image}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def commands(*lines: str) -> str:
    """Commands as they are typed."""
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>"


def _shown(part: str | Markup) -> str:
    return part.html if isinstance(part, Markup) else html.escape(part)


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
