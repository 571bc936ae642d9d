"""What a person sees while a run goes on."""

import sys
import time
from typing import Any

_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """A progress bar with rate and time left on a terminal; one line per note elsewhere.

    **Arguments:** `shown`: `None` shows it only where standard error is a terminal.
    """

    def __init__(self, shown: bool | None = None):
        terminal = sys.stderr.isatty()
        self._lines = bool(shown) and not terminal
        self._name, self._total, self._done, self._printed_at = "", 0, 0, 0.0
        self._bar: Any = None
        self._task: Any = None
        if terminal and shown is not False:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("gone,"),
                TimeRemainingColumn(),
                TextColumn("left"),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )

    def begin(self, name: str, total: int, done: int = 0) -> None:
        """Starts a bar called `name` of `total` updates, `done` of them already made."""
        self._name, self._total, self._done = name, total, done
        self._printed_at = time.monotonic()
        if self._bar is not None:
            if not self._bar.live.is_started:
                self._bar.start()
            self._task = self._bar.add_task(name, total=total, completed=done, rate="", note="")
        elif self._lines:
            begun = f", from {done:,} on" if done else ""
            print(f"{name}: {total:,} updates{begun}", file=sys.stderr, flush=True)

    def advance(self, updates: int, rate: float) -> None:
        """Moves on by `updates`, made at `rate` per second."""
        if self._bar is not None:
            self._bar.update(self._task, advance=updates, rate=f"{rate:,.0f}/s")
        self._done += updates
        if self._lines and time.monotonic() - self._printed_at > _SECONDS_BETWEEN_LINES:
            self._printed_at = time.monotonic()
            line = f"  {self._name}: {self._done:,} of {self._total:,} updates, {rate:,.0f}/s"
            print(line, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Shows a short remark (the latest evaluation, say)."""
        self.tell(text)
        if self._lines:
            print(f"  {text}", file=sys.stderr, flush=True)

    def tell(self, text: str) -> None:
        """Shows a passing remark beside the bar, if there is one."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, note=text)

    def line(self, text: str) -> None:
        """Says something that stays to be seen."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif self._lines:
            print(text, file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
