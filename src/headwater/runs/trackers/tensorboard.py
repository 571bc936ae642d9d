"""Rows of a run for TensorBoard: `tensorboard --logdir RUN/tensorboard`, a curve for each seed."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headwater.core.errors import SpecificationError
from headwater.runs.trackers.tracker import AbstractTracker

_DIRECTORY = "tensorboard"


class Tracker(AbstractTracker):
    """Event files in `directory`, a folder for each seed."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._writers: dict[int, Any] = {}

    @classmethod
    def check(cls) -> None:
        try:
            import tensorboard  # noqa: F401
        except ModuleNotFoundError:
            raise SpecificationError(
                "tracking with tensorboard needs TensorBoard: pip install 'headwater[tensorboard]'"
            ) from None

    @classmethod
    def open(cls, directory: Path) -> "Tracker":
        return cls(directory / _DIRECTORY)

    def log(self, numbers: Mapping[str, float], *, seed: int, update: int) -> None:
        # Protocol buffers make these classes at run time.
        from tensorboard.compat.proto.event_pb2 import (
            Event,  # pyright: ignore[reportAttributeAccessIssue]
        )
        from tensorboard.compat.proto.summary_pb2 import (
            Summary,  # pyright: ignore[reportAttributeAccessIssue]
        )
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if not self._writers:
            # What a run that was stopped wrote after its checkpoint would be shown twice. Not
            # before, since another process may be busy with the run, and then this one is refused.
            shutil.rmtree(self.directory, ignore_errors=True)
        if seed not in self._writers:
            self._writers[seed] = EventFileWriter(str(self.directory / f"seed-{seed}"))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        event = Event(wall_time=time.time(), step=update, summary=Summary(value=values))
        self._writers[seed].add_event(event)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
