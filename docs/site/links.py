"""Links: from what stands in the repository to the pages of the site that show it."""

import dataclasses
import os
import re
from pathlib import Path

from headwater.core.listing import method_modules

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "src/headwater/methods": "methods/index.md",
    "src/headwater/claims": "all_claims.md",
}
"""Files and folders of the repository that have a page of another name. `docs/X.md` is `X.md`."""
CODE = (".py", ".toml", ".cc", "")
"""Endings of files that are shown as text on a page of their own when a page links to them."""
NO_SEARCH = "---\nsearch:\n  exclude: true\n---\n\n"


class DeadLink(ValueError):
    """A page links to what is not there."""


@dataclasses.dataclass
class Site:
    """The site: Markdown by page, and the files that are copied, by place."""

    pages: dict[str, str]
    files: dict[str, Path]


def link(page: str, text: str, origin: Path, site: Site) -> str:
    """`text` of a page with its links into the repository turned into links between pages.

    **Arguments:** `origin`: the folder that links begin from; those with a slash, from the root.

    Raises `DeadLink`, naming the page, for a link to what is not there. Code is left alone.
    """

    def follow(found: re.Match) -> str:
        target, anchor = found[1], found[2] or ""
        path = ROOT / target[1:] if target.startswith("/") else origin / target
        try:
            found_at = place(Path(os.path.normpath(path)), site)
        except FileNotFoundError:
            raise DeadLink(f"{page} links to {target}, which is not there") from None
        return f"]({os.path.relpath(found_at, Path(page).parent)}{anchor})"

    parts = re.split(r"(```.*?```|`[^`\n]+`)", text, flags=re.DOTALL)
    parts[::2] = [re.sub(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)", follow, part) for part in parts[::2]]
    return "".join(parts)


def place(path: Path, site: Site) -> str:
    """The page or file of the site that shows `path`; made when it is first asked for."""
    name = path.relative_to(ROOT).as_posix()
    page = WRITTEN.get(name, name.removeprefix("docs/"))
    if page in site.pages or page in site.files:
        return page
    if not path.exists():
        raise FileNotFoundError(path)
    if path.is_dir():
        page, text = f"source/{name}/index.md", f"# {name}/\n\n"
        files = sorted(p for p in path.iterdir() if p.suffix in CODE and p.is_file())
        text += "\n".join(f"- [{file.name}]({file.name})" for file in files)
    elif path.suffix == ".md":
        page, text = f"source/{name}", path.read_text(encoding="utf-8")
    elif path.suffix in CODE:
        page = f"source/{name}.md"
        code = path.read_text(encoding="utf-8")
        site.pages[page] = f"{NO_SEARCH}# {name}\n\n````{path.suffix[1:]}\n{code}````\n"
        return page
    else:
        site.files[page] = path
        return page
    if page not in site.pages:
        site.pages[page] = ""
        site.pages[page] = NO_SEARCH + link(
            page, text, path if path.is_dir() else path.parent, site
        )
    return page


def page_of(name: str) -> str:
    """The page of a method."""
    return "/".join(method_modules()[name].split(".")[1:]) + ".md"


def method_link(name: str) -> str:
    """A name, with a link to its page if it is that of a method."""
    return f"[{name}](/docs/{page_of(name)})" if name in method_modules() else name


def name_methods(text: str) -> str:
    """`text` with the names of methods, where they stand as code, turned into links."""

    def follow(found: re.Match) -> str:
        return f"[`{found[1]}`](/docs/{page_of(found[1])})" if found[1] in known else found[0]

    known = method_modules()
    parts = re.split(r"(```.*?```)", text, flags=re.DOTALL)
    parts[::2] = [re.sub(r"(?<![\[`])`(\w+)`(?!`)", follow, part) for part in parts[::2]]
    return "".join(parts)


def title_of(folder: str) -> str:
    """How a family is called in headings, such as `Control: offline`."""
    first, *rest = folder.replace("_", " ").split("/")
    return ": ".join([first.capitalize(), *rest])
