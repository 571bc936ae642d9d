"""Gives every option of every command values that make no sense.

    python drills/command_line.py

Each case is a command that would do something small, with one option replaced. In one process, as a
person would give it. What counts as a defect: a traceback, an exit status of zero for what is never
right, more than one sentence, more than thirty seconds, or a change to what was there before.
"""

import argparse
import collections
import contextlib
import inspect
import io
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import typing
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 30

HOSTILE = [
    "",
    " ",
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e400",
    "99999999999999999999",
    "1.5",
    "-0.0",
    "٣",
    "x" * 5000,
    "[/bold]",
    "\x1b[31mred",
    "a\nb",
    "{}",
    "[1",
    "null",
    "../..",
    "/",
    "/dev/null",
    "/proc/self/mem",
    "/nonexistent/a/b",
    "folder",
    "noise.npz",
    "pipe",
    "--help-me",
    "-",
    "\udcff",
    "canary:Task-v0",
    "NAME=VALUE",
    "=",
    "learning_rate=nan",
    "learning_rate=",
    "hidden_sizes=1e9",
    "hidden_sizes=",
    "discount=x",
    "__class__=1",
    "polyak_rate=-7",
]
"""What is given in place of a value that makes sense."""

SMALL = {"updates": "2", "steps": "40", "seeds": "1", "batch_size": "4", "evaluations": "1",
         "episodes": "1", "transitions": "20", "snapshots": "2", "samples": "2", "new_tokens": "2",
         "rows": "2", "random_steps": "10", "warm_up_steps": "10"}  # fmt: skip


def commands() -> dict[str, list[str]]:
    """What each command is begun with, so that it has something to do."""
    return {
        "data describe": ["log.npz"],
        "data collect": ["pendulum"],
        "data convert": ["log.npz", "new.npz"],
        "methods": [],
        "train": ["IQL", "--data", "log.npz", "--env", "pendulum", "--set", "hidden_sizes=4"],
        "adapt": ["run", "--env", "pendulum"],
        "resume": ["run"],
        "evaluate": ["run", "--env", "pendulum"],
        "compare": ["run"],
        "export": ["run", "--format", "safetensors"],
        "language generate": ["model", "--prompt", "1+"],
        "language evaluate": ["model", "--data", "sums.jsonl"],
        "claim list": [],
        "claim show": ["ucbvi-regret"],
        "claim report": [],
        "sweep": ["table.toml"],
    }


def options(command) -> dict[str, typing.Any]:
    """Every option of a command, and the type of its value."""
    hints = typing.get_type_hints(command)
    return {
        name: hints[name]
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and hints[name] is not bool
    }


def prepare(folder: Path) -> None:
    """Writes what the commands work on."""
    from tests.cli.asking import write_log
    from tests.malformed.seeds import completions, model

    write_log(folder / "log.npz")
    (folder / "noise.npz").write_bytes(b"PK" + bytes(range(256)))
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    model(folder)
    completions(folder)
    (folder / "table.toml").write_text(
        'methods = ["BC"]\ndatasets = ["log.npz"]\nenvironment = "pendulum"\nupdates = 2\n'
        "seeds = 1\nbatch_size = 4\nevaluations = 1\nepisodes = 1\n[grid]\nwidths = [[4]]\n"
    )
    train = [
        "train",
        "BC",
        "-d",
        "log.npz",
        "-e",
        "pendulum",
        "--set",
        "hidden_sizes=4",
        "-o",
        "run",
    ]
    assert ask([*train, *small("train")])[0] == 0


def small(name: str) -> list[str]:
    """Options that keep a command short."""
    import importlib

    from headwater.cli import COMMANDS

    command = importlib.import_module(f"headwater.cli.{COMMANDS[name][0]}").command
    given = []
    for option in options(command):
        if option in SMALL:
            given += ["--" + option.replace("_", "-"), SMALL[option]]
    return given


class TooSlow(BaseException):
    """Raised by the alarm."""


def _alarm(*_: object) -> None:
    raise TooSlow


def ask(arguments: list[str]) -> tuple[int | None, str, str]:
    """Exit status (nothing if something escaped), and what was printed on both streams."""
    from headwater.cli import main

    # As a terminal would: what cannot be shown must not end the command.
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", write_through=True)
    status: int | None
    signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(arguments)
    except TooSlow:
        status = -1
    except BaseException:
        status = None
        err.write(traceback.format_exc())
    finally:
        signal.alarm(0)
    texts = [stream.buffer.getvalue().decode(errors="replace") for stream in (out, err)]  # pyright: ignore
    return status, texts[0], texts[1]


def listing(folder: Path) -> dict[str, int]:
    """Every file and when it was written."""
    return {
        str(p.relative_to(folder)): p.lstat().st_mtime_ns
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "lock"
    }


def verdict(status: int | None, errors: str) -> str:
    """What is wrong with an answer; nothing, if it is empty."""
    if status is None:
        return "escaped: " + errors.strip().splitlines()[-1][:200]
    if status == -1:
        return "slow"
    if "Traceback" in errors:
        return "traceback"
    lines = [line for line in errors.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error: ")]
    if status != 0 and (len(said) != 1 or lines[-1] != said[0]):
        return f"status {status} with {len(said)} sentences: {errors[-200:]!r}"
    return ""


def main() -> int:
    """Goes through all commands, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--commands", nargs="*", help="only these")
    parser.add_argument("--share", type=float, default=1.0, help="of the values for each option")
    parser.add_argument("--seed", type=int, default=0, help="of which values are left out")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    import importlib
    import json

    from headwater.cli import COMMANDS

    cache = Path.home() / ".cache" / "headwater" / "drills"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    dice = np.random.default_rng(given.seed)
    cases, defects = 0, collections.defaultdict(list)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headwater-command-line-") as name:
        folder = Path(name) / "place"
        folder.mkdir()
        os.chdir(folder)
        prepare(folder)
        before, made = listing(folder), {p.name for p in folder.iterdir()}
        for command, base in commands().items():
            if given.commands and command not in given.commands:
                continue
            module = importlib.import_module(f"headwater.cli.{COMMANDS[command][0]}")
            known = options(module.command)
            places = [("", i) for i in range(len(base)) if not base[i].startswith("--")
                      and (i == 0 or not base[i - 1].startswith("--"))]  # fmt: skip
            for place in [*places, *((option, -1) for option in known)]:
                for value in HOSTILE:
                    if dice.random() > given.share:
                        continue
                    arguments = [*command.split(), *base, *small(command)]
                    option, at = place
                    if at >= 0:
                        arguments[len(command.split()) + at] = value
                    else:
                        flag = "--" + option.replace("_", "-")
                        while flag in arguments:
                            where = arguments.index(flag)
                            del arguments[where : where + 2]
                        arguments.append(f"{flag}={value}")
                    if "out" in known and option != "out":
                        arguments += ["--out", f"new-{cases}"]
                    status, _, errors = ask(arguments)
                    cases += 1
                    wrong = verdict(status, errors)
                    changed = [k for k, t in before.items() if listing(folder).get(k) != t]
                    wrong = wrong or (f"changed {changed[0]}" if changed else "")
                    if wrong:
                        key = f"{command} {option or 'argument'}: {wrong[:160]}"
                        defects[key].append(value)
                        if len(defects[key]) == 1:
                            print(f"{key}   <- {value[:60]!r}", flush=True)
                    for item in list(folder.iterdir()):
                        if item.name not in made:
                            shutil.rmtree(item) if item.is_dir() else item.unlink()
            print(f"{command}: {cases} cases so far", flush=True)
        os.chdir("/")
    print(f"{cases:,} cases in {time.monotonic() - began:.0f} s: {len(defects)} kinds of defects")
    if given.out is not None:
        given.out.write_text(json.dumps({"cases": cases, "defects": defects}, indent=1) + "\n")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
