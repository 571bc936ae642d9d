"""Options of a command: how they are shown, read, and refused in one sentence."""

import contextlib
import functools
import inspect
import io
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from headwater.core.errors import HeadwaterError, nearest


class Misused(HeadwaterError):
    """Arguments that a command does not take."""


def option(value: str | None = None, short: str | None = None) -> Any:
    """How an argument is shown.

    **Arguments:** `value`: what stands for its value in the help; `short`: its short name.
    """
    return tyro.conf.arg(
        metavar=value,
        aliases=None if short is None else [short],
        # Where nothing is the default, the text says what that means.
        help_behavior_hint=lambda shown: (
            "" if shown in ("None", "False", "") else f"(default: {shown})"
        ),
    )


Flag = Annotated[bool, option()]
"""Given or not."""
Settings = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(metavar="NAME=VALUE", help_behavior_hint=""),
]
"""Options of the form `NAME=VALUE`, of which there may be any number."""


def read(name: str, command: Callable[..., Any], arguments: Sequence[str]) -> Callable[[], Any]:
    """`command` with its arguments.

    Prints the help and leaves with `SystemExit` if that is what `arguments` ask for. Raises
    `Misused` if they do not fit.
    """

    @functools.wraps(command)
    def bind(*positional: Any, **named: Any) -> Callable[[], Any]:
        return functools.partial(command, *positional, **named)

    # tyro would read the text of the wrapped function instead.
    bind.__signature__ = inspect.signature(command)  # pyright: ignore[reportAttributeAccessIssue]
    del bind.__wrapped__
    bind.__doc__ = _unwrapped(inspect.getdoc(command) or "")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                bind,
                prog=f"headwater {name}",
                args=list(arguments),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if not end.code:
            print(complaint.getvalue(), end="", file=sys.stderr)
            raise
    raise Misused(f"{_sentence(complaint.getvalue(), command)} (see `headwater {name} --help`)")


def _unwrapped(text: str) -> str:
    """`text` with every paragraph and every item of `Args` on one line, however long."""
    return re.sub(r"(?<=\S)\n(?! *\w+: | *$| *Args:)[ ]*(?=\S)", " ", text)


def _sentence(complaint: str, command: Callable[..., Any]) -> str:
    """What is wrong with the arguments, from the box that tyro draws."""
    lines = [line.strip(" │╭╮╰╯") for line in complaint.splitlines()]
    text = re.sub(r"\s+", " ", " ".join(line for line in lines if not re.match("[─-]{4}", line)))
    flag = re.search(r"(--[\w-]+)", text)
    about = f"{flag[1]}: " if flag else ""
    if found := re.search(r"Unrecognized options: (\S+?)(,| |$)", text):
        given = found[1]
        if not given.startswith("-"):
            return f"'{given}' is one argument too many"
        known = [
            "--" + parameter.name.replace("_", "-")
            for parameter in inspect.signature(command).parameters.values()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ]
        return nearest(given, known, "option").rstrip(".")
    if found := re.search(
        r"invalid choice '(.*?)' for argument '.*?'\. Expected one of \((.*?)\)", text
    ):
        choices = sorted(set(re.findall(r"'([^']+)'", found[2])) - {"None"})
        return about + nearest(found[1], choices, "value").rstrip(".")
    for pattern, kind in (
        (r"could not convert string to float: ('.*?')", "a number"),
        (r"invalid literal for int\(\) with base 10: ('.*?')", "a whole number"),
    ):
        if found := re.search(pattern, text):
            return f"{about}{found[1]} is not {kind}"
    if found := re.search(r"valid parse for arguments: \['(.*?)'", text):
        return f"{about}'{found[1]}' is not a value that it takes"
    if found := re.search(r"Missing from headwater [\w ]+?: (\S+)", text):
        return f"{found[1]} is missing"
    if "Missing value" in text or "expected" in text.lower():
        return f"{about}its value is missing"
    return text
