"""Options of a command: how they are shown, read, and refused in one sentence."""

import contextlib
import dataclasses
import difflib
import functools
import inspect
import io
import re
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from headwater.core.errors import HeadwaterError, nearest
from headwater.runs.options import GROUPS, TRAIN, Options, Verb


class Misused(HeadwaterError):
    """Arguments that a command does not take."""


def option(value: str | None = None, short: str | None = None) -> Any:
    """How an argument is shown.

    **Arguments:** `value`: what stands for its value in the help; `short`: its short name.
    """
    return tyro.conf.arg(
        metavar=value,
        aliases=None if short is None else [short],
        help_behavior_hint=_default_shown,
    )


def _default_shown(shown: str) -> str:
    # Where nothing is the default, the text says what that means.
    return "" if shown in ("None", "False", "") else f"(default: {shown})"


Flag = Annotated[bool, option()]
"""Given or not."""
Settings = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(metavar="NAME=VALUE", help_behavior_hint=""),
]
"""Options of the form `NAME=VALUE`, of which there may be any number."""


_OPTIONS = "options"
"""A parameter of this name gets the options that were given, by name: those of `train`, or of the
verb in its annotation."""


def _groups(verb: Verb) -> dict[str, type]:
    """A class for each group of options of a verb, whose fields are declared by `Options`."""
    hints = typing.get_type_hints(Options)
    found: dict[str, type] = {}
    for group in verb.groups:
        fields = []
        for field in verb.fields(group):
            metadata, default = field.metadata, verb.default(field)
            # A list of seeds would be taken for one seed after the other.
            hint = int | None if field.name == "seeds" else hints[field.name]
            shown = tyro.conf.arg(
                metavar=metadata["value"] or None,
                aliases=None if metadata["short"] is None else [metadata["short"]],
                help=verb.text(field),
                help_behavior_hint=_default_shown,
            )
            hint = hint | None if default is None else hint
            fields.append((field.name, Annotated[hint, shown], default))
        found[GROUPS[group]] = dataclasses.make_dataclass(group, fields, frozen=True)
    return found


def _verb_of(command: Callable[..., Any]) -> Verb | None:
    """The verb whose options a command takes, if it takes any."""
    if _OPTIONS not in inspect.signature(command).parameters:
        return None
    hint = typing.get_type_hints(command, include_extras=True)[_OPTIONS]
    marks = getattr(hint, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Verb)), TRAIN)


def _parameters(command: Callable[..., Any]) -> tuple[list[inspect.Parameter], list[str]]:
    """The parameters that tyro sees, and which of them are groups of options."""
    hints = typing.get_type_hints(command, include_extras=True)
    verb = _verb_of(command)
    parameters, groups = [], []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name != _OPTIONS or verb is None:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        for title, cls in _groups(verb).items():
            name = "options_" + title.replace("-", "_")
            shown = tyro.conf.arg(name=title, help="")
            annotation = Annotated[cls, tyro.conf.OmitArgPrefixes, shown]
            kind = parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(name, kind, annotation=annotation, default=cls()))
            groups.append(name)
    # Groups stand behind everything else.
    parameters.sort(key=lambda parameter: parameter.kind)
    return parameters, groups


def read(name: str, command: Callable[..., Any], arguments: Sequence[str]) -> Callable[[], Any]:
    """`command` with its arguments.

    Prints the help and leaves with `SystemExit` if that is what `arguments` ask for. Raises
    `Misused` if they do not fit.
    """

    parameters, groups = _parameters(command)
    verb = _verb_of(command)
    usual = {} if verb is None else {f.name: verb.default(f) for f in verb.fields()}

    @functools.wraps(command)
    def bind(*positional: Any, **named: Any) -> Callable[[], Any]:
        if groups:
            parts = [vars(named.pop(group)) for group in groups]
            given = {name: value for part in parts for name, value in part.items()}
            named[_OPTIONS] = {n: v for n, v in given.items() if v != usual[n]}
        return functools.partial(command, *positional, **named)

    # tyro would read the text of the wrapped function instead.
    bind.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    bind.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
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
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name != _OPTIONS
        ]
        # A default that is a group of options stands for its fields.
        known += [
            "--" + field.name.replace("_", "-")
            for parameter in inspect.signature(command).parameters.values()
            if dataclasses.is_dataclass(parameter.default)
            for field in dataclasses.fields(parameter.default)
        ]
        if (verb := _verb_of(command)) is not None:
            known += ["--" + field.name.replace("_", "-") for field in verb.fields()]
        said = nearest(given, known, "option").rstrip(".")
        if "--set" not in known or difflib.get_close_matches(given, known, cutoff=0.75):
            return said
        name = given.lstrip("-").replace("-", "_")
        return f"{said}; hyper-parameters of methods are given as --set {name}=…"
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
