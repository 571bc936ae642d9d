"""`make docs`: writes the pages, turns them into `site/`, and checks every link of the result."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from claim_pages import claim_pages, papers_page
from command_pages import commands_page
from links import ROOT, WRITTEN, Site, link, name_methods, page_of
from method_pages import families, family_table, method_pages, methods_of

HERE = Path(__file__).parent
ASSETS = ("site.css", "iframe-worker.js")


def build(work: Path, out: Path, site: Site | None = None) -> None:
    """Builds the site in `out`, with its Markdown in `work`; what was there is replaced.

    **Arguments:** `site`: its pages (default: `make_site`).

    Raises `SystemExit` with one line for each thing that is wrong.
    """
    site = make_site() if site is None else site
    shutil.rmtree(work, ignore_errors=True)
    write(site, work)
    command = [
        sys.executable,
        "-m",
        "zensical",
        "build",
        "--strict",
        "-f",
        str(work / "mkdocs.yml"),
    ]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    if subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode:
        raise SystemExit("the site could not be built: what is wrong is said above")
    if wrong := check(work / "site"):
        raise SystemExit("\n".join(wrong))
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(work / "site", out)
    print(f"{len(site.pages)} pages: {out / 'index.html'}")


def make_site() -> Site:
    """Every page, with links between pages, and to pages of the files that they link to.

    Raises `DeadLink`, naming the page, for a link to what is not there.
    """
    written = {page: ROOT / name for name, page in WRITTEN.items() if name.endswith(".md")}
    written |= {path.name: path for path in sorted((ROOT / "docs").glob("*.md"))}
    texts = {page: path.read_text(encoding="utf-8") for page, path in written.items()}
    texts["choose.md"] = _fill(texts["choose.md"], {"methods": family_table})
    site = Site({page: name_methods(text) for page, text in texts.items()}, {})
    site.pages |= method_pages() | claim_pages()
    site.pages |= {"papers.md": papers_page(), "commands.md": commands_page()}
    origins = {page: path.parent for page, path in written.items()}
    for page in list(site.pages):
        origin = origins.get(page, ROOT / "docs" / Path(page).parent)
        site.pages[page] = link(page, site.pages[page], origin, site)
    return site


def _fill(text: str, makers: dict[str, Callable[[str], str]]) -> str:
    """`text` with every comment `<!-- KIND: NAME -->` replaced by what `makers[KIND]` makes."""
    return re.sub(r"<!-- (\w+): (\S+) -->", lambda found: makers[found[1]](found[2]), text)


def write(site: Site, work: Path) -> None:
    """Writes pages, files and the settings of the site, which are JSON and therefore YAML."""
    for page, text in site.pages.items():
        (work / "pages" / page).parent.mkdir(parents=True, exist_ok=True)
        (work / "pages" / page).write_text(text, encoding="utf-8")
    for place, path in {**site.files, **{name: HERE / name for name in ASSETS}}.items():
        (work / "pages" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, work / "pages" / place)
    settings = tomllib.loads((HERE / "site.toml").read_text(encoding="utf-8"))
    settings |= {"docs_dir": "pages", "site_dir": "site"}
    settings["nav"] = [_filled(entry) for entry in settings["nav"]]
    guides = {page for page in site.pages if "/" not in page}
    settings["nav"] += sorted(guides - set(_listed(settings["nav"])))
    (work / "mkdocs.yml").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _filled(entry: Any) -> Any:
    """An entry of the navigation, with the families and methods where `site.toml` says so."""
    if isinstance(entry, dict):
        return {name: _filled(below) for name, below in entry.items()}
    if isinstance(entry, list):
        return [_filled(below) for below in entry]
    return ["methods/index.md", *_tree("")] if entry == "methods/" else entry


def _listed(entry: Any) -> list[str]:
    """The pages of an entry of the navigation."""
    if isinstance(entry, str):
        return [entry]
    below = entry.values() if isinstance(entry, dict) else entry
    return [page for each in below for page in _listed(each)]


def _tree(folder: str) -> list[Any]:
    found: list[Any] = []
    for other in (f for f in families() if f.rpartition("/")[0] == folder):
        name = other.rpartition("/")[2].replace("_", " ").capitalize()
        methods = [{method: page_of(method)} for method in methods_of(other)]
        found.append({name: [f"methods/{other}/index.md", *_tree(other), *methods]})
    return found


# Links of the built site ------------------------------------------------------------------------


class _Page(HTMLParser):
    """The anchors of a page, what it links to, and what a browser loads to show it."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given.get("href", ""))
        elif "src" in given:
            self.loaded.append(given["src"])


def check(out: Path) -> list[str]:
    """What is wrong with the links of a built site: dead ones, and what loads from elsewhere."""
    pages = {path: _Page(path) for path in sorted(out.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        shown = path.relative_to(out)
        for reference in [*page.links, *page.loaded]:
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                if reference in page.loaded and parts.scheme != "data":
                    wrong.append(f"{shown} loads {reference}")
                continue
            target = (
                Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            )
            if path.name == "404.html":
                continue
            if not target.is_file():
                wrong.append(f"{shown} links to {reference}, which is not there")
            elif (
                parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].anchors
            ):
                wrong.append(f"{shown} links to {reference}, which has no such place")
    for path in out.rglob("*.css"):
        for found in re.findall(
            r"url\(['\"]?(https?:[^)]+)\)|@import[^;]*https?:[^;]+", path.read_text()
        ):
            wrong.append(f"{path.relative_to(out)} loads {found}")
    return wrong


if __name__ == "__main__":
    build(ROOT / "build" / "docs", ROOT / "site")
