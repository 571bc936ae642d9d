"""Ends the process in the middle of writing: used by `interruption.py`, inside its victims."""

import os
import signal
from typing import Any


def die_at(number: int, count: str | None = None) -> None:
    """Kills this process at the write, sync or rename of that number, counted from the start.

    Three numbers stand for one call: before it, half-way through it (a write only), after it.
    """
    state = {"calls": 0}

    def dying(function: Any, halve: bool) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            state["calls"] += 1
            which = number - 3 * state["calls"]
            if which == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            if which == 1:
                if halve:
                    _write_half(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **options)
            if which == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    os.fsync = dying(os.fsync, False)
    os.replace = dying(os.replace, False)
    os.rename = dying(os.rename, False)
    os.unlink = dying(os.unlink, False)
    from headwater.runs import checkpoint, directory

    checkpoint.save_file = dying(checkpoint.save_file, True)
    append = directory.RunDirectory.append

    def append_half(self: Any, name: str, rows: Any) -> None:
        state["calls"] += 1
        if number - 3 * state["calls"] in (0, 1, 2):
            with (self.path / f"{name}.jsonl").open("a") as file:
                file.write('{"stage": "half a li')
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, name, rows)

    directory.RunDirectory.append = append_half


def _write_half(arrays: Any, path: Any, **_: Any) -> None:
    with open(path, "wb") as file:
        file.write(b"\x80\x00\x00\x00\x00\x00\x00\x00{" + b"\x00" * 100)
