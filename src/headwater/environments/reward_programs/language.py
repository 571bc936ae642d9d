"""The language in which rewards are written, and its translation for the machine.

A program has a line for each of its terms, whose sum is the reward of a step:

    near: exp(-square(distance) / 0.5)
    gentle: -0.1 * effort   # what follows a hash is a remark

In it are numbers, names of features, `+ - * /`, brackets and the functions of `FUNCTIONS`. There is
nothing else: no assignment, no loop, no name but those of features.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from headwater.core.errors import SpecificationError, nearest
from headwater.environments.reward_programs.machine import (
    DEPTH,
    LARGEST,
    LENGTH,
    Operation,
    RewardProgram,
    operands,
)

FUNCTIONS = {
    "abs": Operation.ABS,
    "square": Operation.SQUARE,
    "sqrt": Operation.SQRT,
    "exp": Operation.EXP,
    "tanh": Operation.TANH,
    "min": Operation.MIN,
    "max": Operation.MAX,
    "clip": Operation.CLIP,
}
"""By name; `clip` takes a value, the lower and the upper bound."""
MOST_TERMS = 8
_LONGEST_LINE, _DEEPEST = 400, 20
_BINARY = {
    "+": Operation.ADD,
    "-": Operation.SUBTRACT,
    "*": Operation.MULTIPLY,
    "/": Operation.DIVIDE,
}
_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)|([a-z_][a-z0-9_]*)|([-+*/(),]))")
_LINE = re.compile(r"([a-z_][a-z0-9_]*)\s*:\s*(.*\S)")


class Term(NamedTuple):
    """A line of a program: a name and an expression, as text."""

    name: str
    expression: str


class _Instruction(NamedTuple):
    operation: Operation
    number: float = 0.0
    place: int = 0


def terms_in(text: str) -> list[Term]:
    """The lines of a program, without remarks.

    Raises `SpecificationError`, naming the line, for one that is no term, for a name used twice,
    and for too many lines or none.
    """
    found: list[Term] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        parts = _LINE.fullmatch(line)
        if parts is None or len(line) > _LONGEST_LINE:
            raise SpecificationError(
                f"line {number} of the reward is no term: write a name, a colon and an expression "
                f"of at most {_LONGEST_LINE} characters, in lower case"
            )
        if parts[1] in {term.name for term in found}:
            raise SpecificationError(
                f"line {number} of the reward: there is a term '{parts[1]}' already: take another "
                "name"
            )
        found.append(Term(parts[1], parts[2]))
    if not 1 <= len(found) <= MOST_TERMS:
        raise SpecificationError(
            f"the reward has {len(found)} terms: write 1 to {MOST_TERMS}, each on a line"
        )
    return found


def translate(text: str, features: Sequence[str]) -> RewardProgram:
    """A program for the machine, from its text.

    **Arguments:** `features`: names of what the text may speak of.

    Raises `SpecificationError`, naming the term, for what the language does not have, and for
    what is too long or too deeply nested for the machine.
    """
    instructions: list[_Instruction] = []
    for finished, term in enumerate(terms_in(text)):
        found = _Reader(term, features).read()
        height, highest = finished, 0
        for each in found:
            height += 1 - operands(each.operation)
            highest = max(highest, height)
        if highest > DEPTH:
            raise _wrong(term, "it keeps too many values at once: nest it less deeply")
        instructions += found
    if len(instructions) > LENGTH:
        raise SpecificationError(
            f"the reward takes {len(instructions)} instructions and {LENGTH} is the most: write "
            "it shorter"
        )
    instructions += [_Instruction(Operation.NOTHING)] * (LENGTH - len(instructions))
    return RewardProgram(
        jnp.asarray([each.operation for each in instructions], jnp.int32),
        jnp.asarray([each.number for each in instructions], jnp.float32),
        jnp.asarray([each.place for each in instructions], jnp.int32),
    )


def features_in(term: Term, features: Sequence[str]) -> set[str]:
    """The features that a term speaks of."""
    return {word for word in re.findall(r"[a-z_][a-z0-9_]*", term.expression) if word in features}


class _Reader:
    """Reads one expression from left to right, and writes operands before their operation."""

    def __init__(self, term: Term, features: Sequence[str]):
        self._term, self._features = term, list(features)
        self._tokens, self._at, self._depth = _tokens(term), 0, 0
        self._written: list[_Instruction] = []

    def read(self) -> list[_Instruction]:
        self._sum()
        if self._at < len(self._tokens):
            raise _wrong(self._term, f"'{self._tokens[self._at]}' is not expected where it stands")
        return self._written

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, *wanted: str) -> str:
        """The next token if it is one of these, which is then left behind, else nothing."""
        token = self._next()
        if token not in wanted:
            return ""
        self._at += 1
        return token

    def _expect(self, wanted: str) -> None:
        if not self._take(wanted):
            found = f"'{self._next()}'" if self._next() else "the end of the line"
            raise _wrong(self._term, f"'{wanted}' is expected instead of {found}")

    def _sum(self) -> None:
        self._product()
        while sign := self._take("+", "-"):
            self._product()
            self._written.append(_Instruction(_BINARY[sign]))

    def _product(self) -> None:
        self._signed()
        while sign := self._take("*", "/"):
            self._signed()
            self._written.append(_Instruction(_BINARY[sign]))

    def _signed(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _wrong(self._term, f"it is nested more than {_DEEPEST} deep: write it flatter")
        if self._take("-"):
            self._signed()
            self._written.append(_Instruction(Operation.NEGATE))
        else:
            self._atom()
        self._depth -= 1

    def _atom(self) -> None:
        token = self._next()
        self._at += 1
        if token[:1].isdigit() or token[:1] == ".":
            number = float(token)
            if number > LARGEST:
                raise _wrong(self._term, f"{token} is larger than {LARGEST:g}")
            self._written.append(_Instruction(Operation.NUMBER, number=number))
        elif token == "(":
            self._sum()
            self._expect(")")
        elif token in FUNCTIONS:
            self._call(FUNCTIONS[token])
        elif token in self._features:
            place = self._features.index(token)
            self._written.append(_Instruction(Operation.FEATURE, place=place))
        elif token and token[0] not in "+-*/(),":
            known = [*self._features, *FUNCTIONS]
            raise _wrong(self._term, nearest(token, known, "feature or function"))
        else:
            found = f"'{token}'" if token else "the end of the line"
            raise _wrong(self._term, f"a value is expected instead of {found}")

    def _call(self, operation: Operation) -> None:
        self._expect("(")
        for given in range(operands(operation)):
            if given:
                self._expect(",")
            self._sum()
        self._expect(")")
        self._written.append(_Instruction(operation))


def _tokens(term: Term) -> list[str]:
    found, at = [], 0
    while at < len(term.expression):
        token = _TOKEN.match(term.expression, at)
        if token is None:
            raise _wrong(term, f"'{term.expression[at:].strip()[:1]}' is not in the language")
        found.append(token[0].strip())
        at = token.end()
    return found


def _wrong(term: Term, reason: str) -> SpecificationError:
    return SpecificationError(f"term '{term.name}' of the reward: {reason}")
