"""The page: nothing from elsewhere, and what is passed in is shown as it is."""

import base64
import re

import pytest

from headwater.core.errors import RunError
from headwater.reports import page
from headwater.reports.style import new_figure, save


def test_a_page_holds_everything_itself(tmp_path):
    save(new_figure(1.0, 1.0), tmp_path / "figure.png")
    sections = [
        ("", page.text("a < b & c", kind="lead")),
        ("Numbers & more", page.table(["<name>", "x"], [["one", "1 < 2"]])),
        ("Figure", page.picture(tmp_path / "figure.png", 'A "picture"')),
        ("Commands", page.commands("first --a 'b'", "second > file")),
    ]
    path = page.write_page(tmp_path / "page.html", "T <1>", sections)
    shown = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(", shown)
    for escaped in (
        "<h1>T &lt;1&gt;</h1>",
        '<p class="lead">a &lt; b &amp; c</p>',
        "<h2>Numbers &amp; more</h2>",
        "<th>&lt;name&gt;</th><th>x</th>",
        "<tr><td>one</td><td>1 &lt; 2</td></tr>",
        "<figcaption>A &quot;picture&quot;</figcaption>",
        "<pre>first --a &#x27;b&#x27;\nsecond &gt; file</pre>",
    ):
        assert escaped in shown
    (image,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    assert base64.b64decode(image, validate=True) == (tmp_path / "figure.png").read_bytes()
    assert shown.count("<h2>") == 3
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_missing_picture_is_said(tmp_path):
    with pytest.raises(RunError, match=r"gone\.png: No such file"):
        page.picture(tmp_path / "gone.png", "nothing")
