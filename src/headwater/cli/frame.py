"""What every command shares: reading its options, and saying what went wrong in one sentence."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from headwater.core.errors import HeadwaterError, SpecificationError, printable
from headwater.runs.compiled import keep_compiled_programs, use_every_processor
from headwater.runs.interruption import noticed_interrupts

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses: it could not be done; it was asked wrongly; it was stopped by the user."""

_NO_MEMORY = (
    "error: memory ran out; take fewer seeds or a smaller buffer, or leave the data on disk with "
    "--from-disk"
)


def carry_out(name: str, command: Callable[..., Any], arguments: Sequence[str]) -> int:
    """Runs `command` with options read by tyro; returns the exit status."""
    # Warnings of libraries are for developers; errors are said below.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import warnings

    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    keep_compiled_programs()
    use_every_processor()
    try:
        from headwater.cli.arguments import Misused, read

        if not all(_is_text(argument) for argument in arguments):
            print("error: an argument is no text in UTF-8: rename the file", file=sys.stderr)
            return MISUSED
        try:
            with noticed_interrupts():
                status = read(name, command, arguments)()
        except Misused as error:
            print(f"error: {error}", file=sys.stderr)
            return MISUSED
    except HeadwaterError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as stop:
        # Whoever was stopped and left something behind has noted how to go on.
        print("; ".join(["\ninterrupted", *getattr(stop, "__notes__", ())]), file=sys.stderr)
        return INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:
        # The reader of a pipe has gone, as `head` does: there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except MemoryError:
        print(_NO_MEMORY, file=sys.stderr)
        return FAILED
    except RuntimeError as error:
        # That is how the compiler says that an allocation failed.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(_NO_MEMORY, file=sys.stderr)
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return FAILED
    return status if isinstance(status, int) else 0


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def print_json(value: Any) -> None:
    """Prints `value` for programs."""
    print(json.dumps(value, indent=2, allow_nan=False, default=_plain))


def read_settings(pairs: Sequence[str]) -> dict[str, str]:
    """Options given as `NAME=VALUE`. Raises `SpecificationError` for anything else."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise SpecificationError(f"'{pair}' is not of the form NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def read_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Options of a task given as `NAME=VALUE`, values read as JSON where they are."""
    found: dict[str, Any] = {}
    for name, value in read_settings(pairs).items():
        try:
            found[name] = json.loads(value.lower() if value in ("True", "False") else value)
        except ValueError:
            found[name] = value
    return found


def chosen_task(env: str | None, pairs: Sequence[str]) -> Any:
    """The task called `env`, made with options if there are any; else just the name.

    Raises `SpecificationError` for options of no task.
    """
    options = read_options(pairs)
    if not options:
        return env
    if env in (None, "none"):
        raise SpecificationError("--env-option needs --env: the environment that it is for")
    from headwater.environments.registry import make

    return make(env, **options)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; every column but the first is aligned to the right where it is a number."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    # Names in a file are no markup.
    console = Console(markup=False)
    if not console.is_terminal:
        # A pipe or a file has no width of its own.
        console = Console(width=120, markup=False)
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, title_style="bold")
    for index, column in enumerate(columns):
        # What a row is called can be copied where there is room for it.
        names = [len(row[0]) for row in rows] if index == 0 else [0]
        widest = min(max(names, default=0), console.width // 2)
        table.add_column(_shown(column), overflow="fold", min_width=widest)
    for row in rows:
        table.add_row(*map(_shown, row))
    console.print(table)


def _shown(cell: str) -> str:
    # Nor are they commands for the terminal.
    return "\n".join(map(printable, cell.split("\n")))


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
