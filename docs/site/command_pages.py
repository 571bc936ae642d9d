"""The page of commands, from what `--help` prints."""

import contextlib
import importlib
import io
import os
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

from tables import table

from headwater.cli import COMMANDS
from headwater.cli.arguments import read


def commands_page() -> str:
    """Every command with one line, then with what its `--help` says."""
    rows = [
        [f"[headwater {name}](#headwater-{name.replace(' ', '-')})", summary]
        for name, (_, summary) in COMMANDS.items()
    ]
    parts = [
        "# Commands",
        "`headwater COMMAND --help` says the same.",
        table(["command", "what it does"], rows),
    ]
    for name, (file, _) in COMMANDS.items():
        command = importlib.import_module(f"headwater.cli.{file}").command
        parts.append(f"## headwater {name}\n\n```text\n{_help(name, command)}\n```")
    return "\n\n".join(parts) + "\n"


def _help(name: str, command: Callable[..., Any]) -> str:
    """What `--help` prints, without its frames."""
    shown = io.StringIO()
    width, end = mock.patch.dict(os.environ, COLUMNS="84"), contextlib.suppress(SystemExit)
    with width, end, contextlib.redirect_stdout(shown):
        read(name, command, ["--help"])
    lines = [
        re.sub(r"^[│╭╰][ ─]?|[ ─]*[│╮╯]$", "", line).rstrip()
        for line in shown.getvalue().splitlines()
    ]
    return "\n".join(line for line in lines if line.strip("─") or not line).strip()
