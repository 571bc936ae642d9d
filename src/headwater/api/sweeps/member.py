"""What a worker does: one run of a sweep, from where it stands to its end.

`python -m headwater.api.sweeps.member DIRECTORY TOKEN RUN CORES` answers with one line of JSON.
"""

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

from headwater.runs.compiled import keep_compiled_programs, use_every_processor
from headwater.runs.files import no_link
from headwater.sweeps.workers import Ended, thread_limits

_LONGEST = 2_000


def carry_out(directory: str, token: str, name: str, cores: int | None = None) -> Ended:
    """Begins or continues the run called `name` of the sweep in `directory`.

    **Arguments:** `token`: which sweep that is, since another machine may have something else
    there, or nothing; `cores`: how many to use, if nothing else limits them.
    """
    if cores is not None:
        os.environ.update(thread_limits(cores))
    from headwater.core.errors import DataError, Diverged, HeadwaterError, SpecificationError

    keep_compiled_programs()
    use_every_processor()
    unseen = lacks(directory, token)
    if unseen:
        return Ended("unseen", unseen)
    try:
        _begin_or_resume(Path(directory), name)
    except Diverged as error:
        return Ended("diverged", str(error)[:_LONGEST])
    except (DataError, SpecificationError) as error:
        return Ended("refused", str(error)[:_LONGEST])
    except HeadwaterError as error:
        return Ended("failed", str(error)[:_LONGEST])
    except Exception as error:  # Whatever it is, it is to stop this run alone.
        logs = Path(directory) / "logs"
        logs.mkdir(exist_ok=True)
        with open(logs / f"{name}.log", "a", encoding="utf-8", opener=no_link) as log:
            traceback.print_exc(file=log)
        reason = " ".join(str(error).split())
        return Ended("failed", f"{type(error).__name__}: {reason}"[:_LONGEST])
    return Ended("done")


def lacks(directory: str, token: str) -> str:
    """What to tell if the sweep is not to be seen in `directory` from here; else nothing."""
    import socket

    try:
        stored = json.loads((Path(directory) / "sweep.json").read_text(encoding="utf-8"))
        if stored["token"] == token:
            return ""
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return (
        f"the machine {socket.gethostname()} does not see the files of this sweep in {directory}: "
        "put it, and the data, on a file system that all machines share"
    )


def _begin_or_resume(directory: Path, name: str) -> None:
    from headwater.api.execute import execute, resume
    from headwater.api.specifications.specification import Specification
    from headwater.sweeps.directory import SweepDirectory

    kept = SweepDirectory.open(directory)
    path = kept.run_path(name)
    if (path / "run.json").is_file():
        resume(path, progress=False)
        return
    stored = kept.member(name).specification
    execute(Specification.from_json(stored, str(directory)), out=path, progress=False)


def main(arguments: list[str]) -> None:
    """Carries out one run, and ends as soon as whoever started this does."""
    directory, token, name, cores = arguments
    if sys.platform == "linux" and cores:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # What libraries print goes to the log; the answer alone goes to whoever waits for it.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import warnings

    warnings.simplefilter("ignore")
    ended = carry_out(directory, token, name)
    if ended.message:
        print(f"{ended.kind}: {ended.message}", file=sys.stderr)
    print(json.dumps(ended), file=answer, flush=True)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
