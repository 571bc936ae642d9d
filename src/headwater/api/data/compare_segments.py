"""A local page on which a person compares segments of a log."""

import contextlib
import hmac
import http.server
import json
import secrets
import threading
from pathlib import Path
from typing import Any

from headwater.api.inputs import as_task
from headwater.core import json_text
from headwater.core.errors import DataError, SpecificationError
from headwater.datasets.dataset import Dataset
from headwater.datasets.segments.answers import PREFERENCES, AnswerFile
from headwater.datasets.segments.judges import random_pairs
from headwater.reports.segment_clips import clips_of, comparison_page

_MOST_BYTES = 10_000
"""An answer is shorter than this."""


class ComparisonServer:
    """Serves the page to this computer alone, and appends each answer to a file.

    With a file of earlier answers it goes on after them. `url` says where the page is; the server
    answers while it is used as a context, and `finished` is set once all pairs are answered.

    **Arguments:** `dataset`: the log; `path`: the file of answers, new or begun; `pairs`: how many
    in all; `length`: steps of a segment; `seed`: of the pairs that are drawn; `port`: to listen
    on; 0 takes one that is free.

    Raises `DataError` for a file of other pairs or another log, `SpecificationError` if the port is
    taken, and what `random_pairs` raises.
    """

    def __init__(
        self,
        dataset: Dataset,
        path: str | Path,
        *,
        pairs: int = 100,
        length: int = 25,
        seed: int = 0,
        port: int = 0,
    ):
        self._first, self._second = random_pairs(dataset, pairs, length, seed=seed)
        self._length, self.finished = length, threading.Event()
        self._draw = clips_of(dataset, as_task(None, dataset.metadata.get("environment")))
        self._token, self._lock = secrets.token_urlsafe(16), threading.Lock()
        self._file = AnswerFile(path, dataset)
        try:
            self._check_begun()
            name = dataset.metadata.get("name") or "a log"
            title = f"Two pieces of {name}, of {length:,} steps each"
            handler = _handler(self, comparison_page(title, self._token))
            self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError as error:
            self._file.close()
            raise SpecificationError(
                f"port {port} cannot be listened on ({error.strerror}): take another, or 0 for one "
                "that is free"
            ) from None
        except BaseException:
            self._file.close()
            raise
        self._server.daemon_threads = True
        if self.answered == len(self._first):
            self.finished.set()

    @property
    def url(self) -> str:
        """Where the page is, for a browser on this computer."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    @property
    def answered(self) -> int:
        """How many pairs have an answer."""
        return 0 if self._file.answered is None else len(self._file.answered.answers)

    def __enter__(self) -> "ComparisonServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            self._file.close()

    def pair(self) -> dict[str, Any]:
        """The next pair to be compared, drawn, or how many there were."""
        number = self.answered
        found: dict[str, Any] = {
            "number": number,
            "pairs": len(self._first),
            "length": self._length,
        }
        if number < len(self._first):
            found["first"] = self._draw(int(self._first[number]), self._length)
            found["second"] = self._draw(int(self._second[number]), self._length)
        return found

    def answer(self, given: Any) -> dict[str, Any]:
        """Keeps an answer and returns the next pair. Raises `DataError` for what is none.

        An answer to another pair than the next one, as from a page that was left open elsewhere, is
        not kept.
        """
        with self._lock:
            number = given.get("number") if isinstance(given, dict) else None
            if not json_text.fits(number, int):
                raise DataError("this is no answer")
            answer = given.get("answer")
            if answer not in (*PREFERENCES, "skip"):
                raise DataError("the answer is one of first, second, equal and skip")
            if number != self.answered or number == len(self._first):
                raise DataError("this pair has been answered elsewhere: reload the page")
            first, second = int(self._first[number]), int(self._second[number])
            self._file.append(first, second, self._length, answer)
            return self.pair()

    def allows(self, host: str | None, token: str | None = None) -> bool:
        """Whether a request comes from the page itself: other pages could send some too."""
        port = self._server.server_address[1]
        here = host in (f"127.0.0.1:{port}", f"localhost:{port}")
        return here and (token is None or hmac.compare_digest(token.encode(), self._token.encode()))

    def _check_begun(self) -> None:
        """Raises `DataError` if the answers in the file are not to the first of these pairs."""
        found = self._file.answered
        if found is None:
            return
        count = len(found.answers)
        same = (
            found.length == self._length
            and count <= len(self._first)
            and bool((found.first == self._first[:count]).all())
            and bool((found.second == self._second[:count]).all())
        )
        if not same:
            raise DataError(
                f"{self._file.path} was begun with another length, seed or more pairs: say the "
                "same again, or take another file"
            )


def _handler(owner: ComparisonServer, page: str) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        server_version, sys_version = "headwater", ""
        timeout = 30.0

        def do_GET(self) -> None:
            if not owner.allows(self.headers.get("Host")):
                self._send(403, {"error": "this page is for this computer alone"})
            elif self.path == "/":
                self._reply(200, "text/html; charset=utf-8", page.encode())
            elif self.path == "/pair":
                self._send(200, owner.pair())
            else:
                self._send(404, {"error": "there is no such page"})

        def do_POST(self) -> None:
            token = self.headers.get("X-Token") or ""
            if self.path != "/answer" or not owner.allows(self.headers.get("Host"), token):
                self._send(403, {"error": "answers come from the page of the running command"})
                return
            size = self.headers.get("Content-Length") or ""
            if not size.isdecimal() or int(size) > _MOST_BYTES:
                self._send(400, {"error": "this is no answer"})
                return
            try:
                given = json_text.parse(self.rfile.read(int(size)))
                found = owner.answer(given)
            except (DataError, ValueError) as error:
                reason = str(error) if isinstance(error, DataError) else "this is no answer"
                self._send(409, {"error": reason})
            except OSError as error:
                # The disk is full, say: whoever answers has to know that it was not kept.
                self._send(500, {"error": f"the answer could not be kept: {error.strerror}"})
            else:
                self._send(200, found)
                if "first" not in found:
                    # Only now: the command may end at once, and the page is to have its reply.
                    owner.finished.set()

        def _send(self, status: int, found: dict[str, Any]) -> None:
            self._reply(status, "application/json", json.dumps(found, allow_nan=False).encode())

        def _reply(self, status: int, kind: str, content: bytes) -> None:
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing: the command says what there is to say."""

    return Handler
