"""Tables in Markdown."""

import re
from typing import Any


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A table in Markdown; a bar in an equation or in a cell's text does not end the cell."""

    def without_bars(equation: re.Match) -> str:
        return equation[0].replace(r"\|", r"\Vert ").replace("|", r"\vert ")

    def cell(value: Any) -> str:
        text = " ".join(str(value).split())
        text = re.sub(r"\$[^$]+\$", without_bars, text)
        return text.replace("|", r"\|")

    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def stacked(head: list[str], rows: list[list[Any]], kind: str = "") -> str:
    """A table whose cells stand below each other on a narrow screen."""
    return f'<div class="stacked {kind}" markdown>\n\n{table(head, rows)}\n\n</div>\n'
