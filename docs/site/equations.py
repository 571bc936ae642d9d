"""Equations between dollar signs become MathML while the site is built: nothing to load later."""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import math_core
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

RELATIONS = frozenset("=≤≥<>≈∝∼≡≠∈→←↦:")
SUMS = frozenset("+−,;")
LONG = 24
"""Characters from which on an equation may be broken at a sum, too."""
WIDE = 26
"""Characters from which on a piece may be wider than a telephone, and has to scroll there."""
_CONVERTER = math_core.LatexToMathML()


def mathml(latex: str) -> list[str]:
    """`latex` as MathML, in pieces between which a line may break, as TeX breaks its own.

    Raises `math_core.LatexError` for what is no equation.
    """
    text = _CONVERTER.convert_with_local_state(latex, displaystyle=False)
    children = list(ElementTree.fromstring(text.replace("&ApplyFunction;", "\u2061")))
    pieces: list[list[ElementTree.Element]] = [[]]
    for child in children:
        pieces[-1].append(child)
        sign, binary = child.text or "", "lspace" not in child.attrib and len(pieces[-1]) > 1
        length = sum(len("".join(part.itertext())) for part in pieces[-1])
        if child.tag == "mo" and binary and (sign in RELATIONS or (sign in SUMS and length > LONG)):
            child.set("form", "infix")
            pieces.append([])
    shown = ["".join(ElementTree.tostring(part, "unicode") for part in piece) for piece in pieces]
    return [f"<math>{piece}</math>" for piece in shown if piece]


def _html(pieces: list[str], end: str) -> str:
    """The pieces of an equation and the punctuation after it, which stays with the last."""
    wide = [len(re.sub(r"<.*?>|&\w+;", "", piece)) > WIDE for piece in pieces]
    pieces = [f'<span class="wide">{p}</span>' if w else p for p, w in zip(pieces, wide)]
    if end:
        pieces[-1] = f'<span class="unbroken">{pieces[-1]}{end}</span>'
    return "<wbr>".join(pieces)


class _Equation(InlineProcessor):
    def handleMatch(self, m: re.Match, data: str) -> tuple[Any, int, int]:
        return self.md.htmlStash.store(_html(mathml(m[1]), m[2])), m.start(0), m.end(0)


class Equations(Extension):
    """Markdown's `$…$`, before it takes backslashes and underscores for its own."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(_Equation(r"\$([^$]+)\$([.,;:)]*)", md), "equations", 185)


def makeExtension(**settings: Any) -> Equations:
    """What Markdown calls to load this file by its name."""
    return Equations(**settings)
