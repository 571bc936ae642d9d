"""Chat templates: programs of somebody else's, which reach nothing and must come to an end."""

import datetime
import functools
import json
import re
import secrets
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from headwater.core.errors import DataError, SpecificationError

_LONGEST = 1_000_000
"""Characters that one step of a template may make, and the largest number that it may be told."""


class Rendered(NamedTuple):
    """A conversation as one text.

    **Arguments:** `text`; `answers`: where what the assistant says begins and ends in it, if the
    template marks that (`{% generation %}`).
    """

    text: str
    answers: tuple[tuple[int, int], ...]


def rendered(template: str, **values: Any) -> Rendered:
    """What a template in Jinja's language makes of `values`.

    Raises `DataError` if it refuses them, cannot be read, or takes too much time or memory;
    `SpecificationError` if Jinja is not installed.
    """
    try:
        compiled, marks = _compiled(template)
        # Nobody can know it, so no message can hold it.
        marks.mark = secrets.token_hex(8)
        with _Budget():
            text = compiled.render(**values)
        return _without_marks(text, marks.mark)
    except SpecificationError:
        raise
    # A template is a program of somebody else's, which may trip over anything.
    except Exception as error:
        raise DataError(f"the model's chat template refuses this conversation: {error}") from None


def marks_answers(template: str) -> bool:
    """Whether a template says what the assistant's part of a conversation is."""
    return re.search(r"\{%-?\s*generation\b", template) is not None


class _Marks:
    """What stands around the assistant's part while a template is rendered."""

    mark = ""

    def around(self, text: str) -> str:
        return f"<{self.mark}>{text}</{self.mark}>"


def _without_marks(text: str, mark: str) -> Rendered:
    plain, answers, begin = "", [], 0
    for piece in re.split(f"(</?{mark}>)", text):
        if piece == f"<{mark}>":
            begin = len(plain)
        elif piece == f"</{mark}>":
            answers.append((begin, len(plain)))
        else:
            plain += piece
    return Rendered(plain, tuple(answers))


@functools.lru_cache(maxsize=64)
def _compiled(template: str) -> tuple[Any, _Marks]:
    """The program that a template is: what takes time is to read it, so it is read once."""
    try:
        from jinja2 import nodes
        from jinja2.exceptions import TemplateError
        from jinja2.ext import Extension
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise SpecificationError(
            "the model's chat template needs the package jinja2: install headwater[language], or "
            "give texts instead of conversations"
        ) from None
    marks = _Marks()

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("_marked", [])
            return nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _marked(self, caller: Any) -> str:
            return marks.around(caller())

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = lambda value, ensure_ascii=False, **options: json.dumps(
        value, ensure_ascii=ensure_ascii, **options
    )
    for name, function in environment.filters.items():
        environment.filters[name] = _guarded(name, function)
    environment.globals["raise_exception"] = raise_exception
    # One step of a template may not take for ever either.
    environment.intercepted_binops = frozenset(("*", "**", "%"))
    environment.binop_table |= {"*": _product, "**": _power, "%": _remainder}
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    call = environment.call

    def guarded_call(context: Any, function: Any, /, *given: Any, **named: Any) -> Any:
        _refuse_growth(function, *given, *named.values())
        return call(context, function, *given, **named)

    environment.call = guarded_call
    return environment.from_string(template), marks


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    # Jinja's marks for what a filter is passed besides are attributes, which `wraps` copies.
    @functools.wraps(function)
    def guarded(*given: Any, **named: Any) -> Any:
        values = [*given, *named.values()]
        at = next((i for i, value in enumerate(values) if isinstance(value, str)), None)
        text = "" if at is None else values.pop(at)
        if name == "format":
            _refuse_padding(text)
        _refuse_growth(None if name == "format" else getattr(text, name, None), *values)
        return function(*given, **named)

    return guarded


def _refuse_growth(function: Any, *given: Any) -> None:
    """Raises `DataError` where a call would make a very long text of short ones."""
    for value in given:
        if isinstance(value, int) and abs(value) > _LONGEST:
            raise DataError(f"it asks for {value:,} of something")
    # The sandbox wraps the methods of texts that format.
    method = getattr(function, "__wrapped__", function)
    text, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    if not isinstance(text, str):
        return
    others = [value for value in given if isinstance(value, str)]
    longest = max(map(len, others), default=0)
    if name in ("format", "format_map") and re.search(r"\{[^}]*[0-9]{5}", text):
        raise DataError("it pads a text too far")
    if name == "replace" and others and text.count(others[-2:][0]) * longest > _LONGEST:
        raise DataError("it replaces a text too often")
    if name == "join":
        parts = [value for value in given if isinstance(value, str | list | tuple)]
        if max(map(len, parts), default=0) * max(len(text), longest) > _LONGEST:
            raise DataError("it joins texts into one that is too long")


def _refuse_padding(form: str) -> None:
    if re.search(r"%[^a-zA-Z%]*([0-9]{4}|\*)", form):
        raise DataError("it pads a text too far")


def _product(left: Any, right: Any) -> Any:
    for text, times in ((left, right), (right, left)):
        several = isinstance(text, str | list | tuple) and isinstance(times, int)
        if several and len(text) * times > _LONGEST:
            raise DataError("it repeats a text too often")
    return left * right


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int):
        if exponent > 0 and exponent * abs(base).bit_length() > 1000:
            raise DataError("it makes too large a number")
        return base**exponent
    return float(base) ** float(exponent)


def _remainder(left: Any, right: Any) -> Any:
    if isinstance(left, str):
        _refuse_padding(left)
    return left % right


class _Budget:
    """Ends a template that takes too many steps or too much memory, as an endless one would.

    The sandbox keeps templates from reaching anything, but not from going on for ever.
    """

    _STEPS = 200_000
    _KIBIBYTES = 32 * 1024

    def __enter__(self):
        self._steps, self._most = 0, _peak_kibibytes() + self._KIBIBYTES
        self._before = sys.gettrace()
        sys.settrace(self._called)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _called(self, frame: Any, event: str, argument: Any) -> Any:
        return self._step if frame.f_code.co_filename == "<template>" else None

    def _step(self, frame: Any, event: str, argument: Any) -> Any:
        self._steps += 1
        if self._steps > self._STEPS or _peak_kibibytes() > self._most:
            raise DataError("it does not come to an end")
        return self._step


def _peak_kibibytes() -> int:
    import resource

    # Counted in bytes there.
    unit = 1024 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
