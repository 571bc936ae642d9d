"""Reads thousands of malformed files and sees that each is refused in words, at once and cheaply.

    python drills/malformed_files.py --cases 12000

Every case is a valid input of one kind that was spoiled in one way (`tests/malformed/`), and can be
made again from its kind and number: `--only npz:17`. A worker process reads one after the other; it
is replaced when it hangs or crashes. What counts as a defect:

- an exception that is no `HeadwaterError`, or a message of several lines;
- no answer within five seconds, or the death of the process;
- memory: the peak may exceed what was in use before by twice the input's size plus 64 MiB;
- a file written, made, moved or removed outside of the input's folder, a process started, a pickle
  opened, a module of the input's imported.

The exit status is 1 if there is any.
"""

import argparse
import collections
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 5.0
ALLOWANCE = 64 * 2**20

# The worker --------------------------------------------------------------------------------------


def _peak() -> int:
    """The largest resident size of this process so far, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Watch:
    """Notes what is done outside of a folder."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.folder is None:
            return
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
            self._outside("wrote", arguments[0])
        elif event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.link",
                       "os.symlink", "os.chmod", "shutil.rmtree"):  # fmt: skip
            self._outside(event, arguments[0])
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
                       "pickle.find_class", "socket.connect"):  # fmt: skip
            # One reader looks at a file in a process of its own first.
            if "hdf5_walk.py" not in str(arguments[1]):
                self.seen.append(f"{event} {arguments[:2]}")
        elif event == "import" and "canary" in str(arguments[0]):
            self.seen.append(f"import {arguments[0]}")

    def _outside(self, what: str, path) -> None:
        if isinstance(path, int):
            return
        text = os.fsdecode(path)
        # Resolved, since a link may lead out of the folder.
        place = os.path.realpath(text)
        if place.startswith((self.folder + "/input/", "/dev/null", "/proc/self/")):
            return
        if (
            place == self.folder + "/input"
            or "__pycache__" in place
            or place.startswith(os.environ["JAX_COMPILATION_CACHE_DIR"])
        ):
            return
        self.seen.append(f"{what} {text}")


def _outside_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in sorted((folder / "outside").rglob("*"))
    }


def work() -> None:
    """Reads cases named on standard input, one line each; answers with one line of JSON each."""
    sys.path.insert(0, str(ROOT))
    import warnings

    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from tests.malformed.damage import make
    from tests.malformed.readers import read
    from tests.malformed.seeds import SEEDS

    from headwater.core.errors import HeadwaterError

    watch = _Watch()
    # What is imported and compiled once is not the price of any file.
    for kind, write in SEEDS.items():
        with tempfile.TemporaryDirectory(prefix="headwater-drill-") as folder:
            read(kind, write(Path(folder)))

    def say(**answer) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    say(ready=True)
    for line in sys.stdin:
        kind, number = line.split(":")
        # A folder per case: `input` may be touched, `outside` beside it may not.
        top = Path(tempfile.mkdtemp(prefix="headwater-drill-"))
        folder = top / "input"
        folder.mkdir()
        how, path = make(kind, int(number), folder)
        shutil.move(folder / "outside", top / "outside")
        (folder / "outside").symlink_to(top / "outside")
        size = sum(
            p.lstat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()
        )
        before = _outside_of(top)
        os.chdir(folder)
        say(began=True, how=how, folder=str(top))
        Path("/proc/self/clear_refs").write_text("5")
        watch.seen, watch.folder = [], str(top)
        start, base = time.monotonic(), _resident()
        outcome, message = "read", ""
        try:
            read(kind, path)
        except HeadwaterError as error:
            outcome, message = "refused", str(error)
            if "\n" in message or not message:
                outcome = "wordy"
        except (Exception, SystemExit) as error:
            import traceback

            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if "headwater" in f.filename]
            where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
            outcome = f"escaped: {type(error).__name__} at {where}"
            message = str(error)[:300]
        seconds, grown = time.monotonic() - start, _peak() - base
        watch.folder = None
        os.chdir("/")
        touched = list(watch.seen)
        if (folder / "canary").exists() or _outside_of(top) != before:
            touched.append("outside or canary changed")
        shutil.rmtree(top, ignore_errors=True)
        say(outcome=outcome, message=message, seconds=seconds, grown=grown, size=size,
            touched=touched)  # fmt: skip


# The parent --------------------------------------------------------------------------------------


class Worker:
    """A process that reads cases."""

    def __init__(self) -> None:
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache()))
        environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            bufsize=0,  # `select` does not see what was read ahead
        )
        assert self.answer(300) == {"ready": True}, self.said()

    def answer(self, seconds: float) -> dict | None:
        """The next line, or `None` if there is none in time or ever."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def ask(self, case: str) -> dict:
        """What came of a case."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{case}\n".encode())
        self.process.stdin.flush()
        began = self.answer(120)
        if began is None:
            self.end()
            return {"outcome": "could not be made", "message": self.said(), "how": "?"}
        found = self.answer(SECONDS)
        if found is None:
            alive = self.process.poll() is None
            time.sleep(0.05)
            code = self.process.poll()
            outcome = "hung" if alive and code is None else f"crashed: {code}"
            self.end()
            shutil.rmtree(began["folder"], ignore_errors=True)
            return {"outcome": outcome, "message": self.said()[-300:], "how": began["how"]}
        return {**found, "how": began["how"]}

    def said(self) -> str:
        """What it printed as errors."""
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "headwater" / "drills"


def verdict(found: dict) -> str:
    """What is wrong with how a case was read; nothing, if it is empty."""
    if found["outcome"] not in ("read", "refused"):
        return found["outcome"]
    if found["touched"]:
        return f"touched: {found['touched'][0]}"
    if found["grown"] > 2 * found["size"] + ALLOWANCE:
        return f"memory: {found['grown'] / 2**20:.0f} MiB for {found['size'] / 2**20:.2f} MiB"
    if found["seconds"] > SECONDS:
        return f"slow: {found['seconds']:.1f} s"
    return ""


def main() -> int:
    """Reads the cases that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=12_000, help="how many, over all kinds")
    parser.add_argument("--first", type=int, default=0, help="number of the first of each kind")
    parser.add_argument("--kinds", nargs="*", help="only these")
    parser.add_argument("--only", help="one case, KIND:NUMBER, with what is said of it")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work()
        return 0
    sys.path.insert(0, str(ROOT))
    from tests.malformed.seeds import SEEDS

    kinds = given.kinds or sorted(SEEDS)
    each = -(-given.cases // len(kinds))
    cases = [f"{kind}:{given.first + i}" for i in range(each) for kind in kinds]
    if given.only:
        cases = [given.only]
    worker, began = Worker(), time.monotonic()
    counts: collections.Counter[str] = collections.Counter()
    defects: dict[str, list[str]] = collections.defaultdict(list)
    slowest = largest = 0.0
    for number, case in enumerate(cases):
        if worker.process.poll() is not None:
            worker = Worker()
        found = worker.ask(case)
        wrong = verdict(found)
        counts["defect" if wrong else found["outcome"]] += 1
        slowest = max(slowest, found.get("seconds", 0.0))
        largest = max(largest, found.get("grown", 0) - 2 * found.get("size", 0))
        if wrong:
            key = f"{case.split(':')[0]}: {wrong}" if not wrong.startswith("memory") else "memory"
            defects[key].append(case)
            if len(defects[key]) == 1:
                said = found.get("message", "")[-500:]
                print(f"{case} ({found['how']}): {wrong}: {said}", flush=True)
        if given.only:
            print(json.dumps(found, indent=1))
        if number % 1000 == 999:
            print(f"{number + 1:,} of {len(cases):,}: {dict(counts)}", flush=True)
    worker.end()
    print(f"\n{len(cases):,} cases in {time.monotonic() - began:.0f} s: {dict(counts)}")
    print(f"slowest {slowest:.2f} s; most memory beyond twice the input {largest / 2**20:.0f} MiB")
    for key, which in sorted(defects.items(), key=lambda item: -len(item[1])):
        print(f"  {len(which):5d}  {key}   e.g. {' '.join(which[:3])}")
    if given.out is not None:
        figures = {
            "cases": len(cases),
            "counts": dict(counts),
            "slowest_seconds": round(slowest, 3),
            "most_memory_beyond_twice_the_input": int(largest),
            "defects": defects,
        }
        given.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
