"""Comparing segments on a page: what the server keeps and refuses, and a real browser."""

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.api.data.compare_segments import ComparisonServer
from headwater.core.errors import DataError, SpecificationError
from headwater.datasets.read import load
from headwater.datasets.segments.answers import read_answers, write_answers
from headwater.datasets.segments.judges import judge_segments, random_pairs
from headwater.datasets.write import write
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.preferences.oppo import OPPO
from headwater.methods.control.preferences.preference_reward import PreferenceReward

from .problems import cart_pole_log, pendulum_log

TINY = {"seeds": 2, "batch_size": 8, "evaluations": 1, "episodes": 1, "progress": False}


def ask(server, method="GET", path="/pair", body=None, **headers):
    """Status and JSON (or text) of the server's reply."""
    port = int(server.url.rsplit(":", 1)[1].strip("/"))
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    content = None if body is None else json.dumps(body) if not isinstance(body, bytes) else body
    link.request(method, path, content, headers)
    reply = link.getresponse()
    text = reply.read().decode()
    link.close()
    return reply.status, json.loads(text) if reply.getheader("Content-Type") != (
        "text/html; charset=utf-8"
    ) else text


def token_of(server) -> str:
    page = ask(server, path="/")[1]
    return re.search(r'name="token" content="([^"]+)"', page)[1]


def test_answers_are_kept_one_by_one_and_gone_on_with(tmp_path):
    log, path = pendulum_log(), tmp_path / "answers.jsonl"
    first, second = random_pairs(log, 3, 5)
    options = {"pairs": 3, "length": 5}
    with ComparisonServer(log, path, **options) as server:
        token = token_of(server)
        status, pair = ask(server)
        assert status == 200 and (pair["number"], pair["pairs"], pair["length"]) == (0, 3, 5)
        # A pendulum is drawn: its rod stands where the observation says.
        x, y = pair["first"]["lines"][2][0][1]
        cosine, sine, _ = log.observations[first[0] + 2]
        length = np.hypot(cosine, sine)
        np.testing.assert_allclose((x, y), (-sine / length, cosine / length), atol=2e-4)
        status, pair = ask(
            server, "POST", "/answer", {"number": 0, "answer": "second"}, **{"X-Token": token}
        )
        assert status == 200 and pair["number"] == 1
        assert read_answers(path, log).answers == ("second",)
        # Sent twice, as by an impatient reload: kept once.
        status, said = ask(
            server, "POST", "/answer", {"number": 0, "answer": "first"}, **{"X-Token": token}
        )
        assert (status, said["error"]) == (
            409,
            "this pair has been answered elsewhere: reload the page",
        )
        with pytest.raises(DataError, match="is being written by another process"):
            ComparisonServer(log, path, **options)
    with ComparisonServer(log, path, **options) as server:
        token = token_of(server)
        assert ask(server)[1]["number"] == 1 and not server.finished.is_set()
        for number, answer in ((1, "equal"), (2, "skip")):
            body = {"number": number, "answer": answer}
            status, pair = ask(server, "POST", "/answer", body, **{"X-Token": token})
            assert status == 200
        assert "first" not in pair and server.finished.wait(5)
        status, _ = ask(
            server, "POST", "/answer", {"number": 3, "answer": "first"}, **{"X-Token": token}
        )
        assert status == 409
    found = read_answers(path, log)
    assert found.answers == ("second", "equal", "skip")
    np.testing.assert_array_equal([found.first, found.second], [first, second])
    for other in ({"pairs": 2, "length": 5}, {"pairs": 3, "length": 4}, {**options, "seed": 1}):
        with pytest.raises(DataError, match="was begun with another length, seed or more pairs"):
            ComparisonServer(log, path, **other)


def test_only_the_page_itself_may_answer(tmp_path):
    log = cart_pole_log()
    with ComparisonServer(log, tmp_path / "a.jsonl", pairs=2, length=3) as server:
        right = {"X-Token": token_of(server)}
        body = {"number": 0, "answer": "first"}
        for status, method, path, sent, headers in (
            (403, "POST", "/answer", body, {}),
            (403, "POST", "/answer", body, {"X-Token": "guess"}),
            (403, "POST", "/answer", body, {"X-Token": "\u00e9"}),
            (403, "POST", "/answer", body, {**right, "Host": "evil.example"}),
            (403, "GET", "/", None, {"Host": "evil.example"}),
            (403, "POST", "/", body, right),
            (404, "GET", "/../etc", None, {}),
            (409, "POST", "/answer", b"{", right),
            (409, "POST", "/answer", b"\xff", right),
            (409, "POST", "/answer", [1], right),
            (409, "POST", "/answer", {"number": 0, "answer": "left"}, right),
            (409, "POST", "/answer", {"number": True, "answer": "first"}, right),
            (400, "POST", "/answer", b"x" * 20_000, right),
        ):
            assert ask(server, method, path, sent, **headers)[0] == status, (path, sent, headers)
        assert server.answered == 0
        assert ask(server, "POST", "/answer", body, **right)[0] == 200
        port = int(server.url.rsplit(":", 1)[1].strip("/"))
        with pytest.raises(SpecificationError, match=f"port {port} cannot be listened on"):
            ComparisonServer(log, tmp_path / "b.jsonl", port=port, length=3)


class Browser:
    """Chromium, spoken to in its own protocol over two pipes."""

    def __init__(self, program: str, folder):
        orders, self._orders = os.pipe()
        self._reports, reports = os.pipe()

        command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={folder}",
            "about:blank",
        ]  # fmt: skip
        # The shell gives it the pipes as its third and fourth file, which is where it looks.
        shell = f'exec "$@" 3<&{orders} 4>&{reports}'
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "browser", *command],
            pass_fds=(orders, reports),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(orders)
        os.close(reports)
        self._number, self._read, self._session = 0, b"", {}
        pages = self("Target.getTargets")["targetInfos"]
        page = next(found["targetId"] for found in pages if found["type"] == "page")
        found = self("Target.attachToTarget", targetId=page, flatten=True)
        self._session = {"sessionId": found["sessionId"]}

    def __call__(self, method, **parameters):
        """What the browser returns for one order."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while True:
            while b"\0" not in self._read:
                more = os.read(self._reports, 2**16)
                assert more, "the browser has gone"
                self._read += more
            line, self._read = self._read.split(b"\0", 1)
            found = json.loads(line)
            if found.get("id") == self._number:
                assert "error" not in found, found["error"]
                return found["result"]

    def value(self, expression):
        """The value of a JavaScript expression in the page."""
        found = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression):
        """Waits until the expression is true in the page."""
        end = time.monotonic() + 60
        while not self.value(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.05)

    def press(self, key):
        """Presses a key, as a keyboard does."""
        for kind in ("rawKeyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key)

    def close(self):
        """Ends the browser."""
        with contextlib.suppress(AssertionError, OSError):
            self("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        os.close(self._orders)
        os.close(self._reports)


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)


@pytest.mark.slow(reason="a real browser takes seconds to start")
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_a_person_compares_with_the_keyboard_in_a_real_browser(tmp_path):
    log, path = pendulum_log(), tmp_path / "answers.jsonl"
    browser = Browser(CHROMIUM, tmp_path / "profile")
    try:
        with ComparisonServer(log, path, pairs=5, length=5) as server:
            browser("Page.navigate", url=server.url)
            number = "document.body?.dataset.number"
            for i, key in enumerate(("ArrowLeft", "ArrowRight", "=", " ", None)):
                browser.until(f"{number} === '{i}'")
                if i == 0:
                    # Something is drawn, and it moves.
                    picture = "document.getElementById('first').toDataURL()"
                    browser.until(f"(window.seen ??= {picture}) && window.seen !== {picture}")
                    browser.press("x")
                if key is None:
                    browser.value("document.querySelector('[data-answer=equal]').click()")
                else:
                    browser.press(key)
            browser.until("document.body.dataset.done === 'true'")
            assert "All pairs are answered" in browser.value("document.body.innerText")
            assert server.finished.wait(5)
    finally:
        browser.close()
    assert read_answers(path, log).answers == ("first", "second", "equal", "skip", "equal")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A log and a file of answers about it."""
    log = pendulum_log()
    folder = tmp_path_factory.mktemp("compared")
    answers = judge_segments(log, 30, 5)
    return log, str(write_answers(folder / "answers.jsonl", answers, log))


def test_learned_rewards_fill_a_log_and_are_told_apart(compared, tmp_path):
    log, answers = compared
    method = PreferenceReward(hidden_sizes=(8,))
    run = hw.train(method, log, comparisons=answers, updates=3, **TINY)
    assert run.evaluations == []
    filled = hw.label(log, run)
    state = jax.tree.map(lambda leaf: leaf[0], run.state)
    seen, done = jnp.asarray(log.observations), jnp.asarray(log.actions)
    expected, _ = method.rewards(state, seen, done)
    np.testing.assert_allclose(filled.rewards, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(filled.actions, log.actions)
    record = filled.metadata["inferred_rewards"]
    assert record["by"] == "PreferenceReward" and record["rows"] == log.size
    assert record["logged"] and record["comparisons"] == "answers.jsonl"
    again = load(write(filled, tmp_path / "filled.parquet"))
    assert again.metadata["inferred_rewards"] == record
    assert not hw.label(again, run).metadata["inferred_rewards"]["logged"]
    hw.train(BC(hidden_sizes=(8,)), filled, updates=2, env="none", **TINY)
    with pytest.raises(SpecificationError, match="at_least is of inferred actions: leave it out"):
        hw.label(log, run, at_least=0.5)


def test_oppo_learns_from_the_same_answers_and_is_evaluated(compared):
    log, answers = compared
    method = OPPO(hidden_sizes=(8,), width=8, layers=1)
    run = hw.train(method, log, env="pendulum", comparisons=answers, updates=3, **TINY)
    assert run.final_returns is not None and run.final_returns.shape[0] == 2


def test_what_does_not_fit_together_is_said(compared, tmp_path):
    log, answers = compared
    method = PreferenceReward(hidden_sizes=(8,))
    for options, error, sentence in (
        ({}, SpecificationError, "give comparisons .--comparisons FILE., which `headwater data"),
        ({"comparisons": answers, "weights": "return"}, SpecificationError, "leave out weights"),
        ({"comparisons": answers, "top": 0.5}, SpecificationError, "leave out top"),
        ({"comparisons": str(tmp_path / "no.jsonl")}, DataError, "no.jsonl: No such file"),
        (
            {"comparisons": answers, "env": "pendulum"},
            SpecificationError,
            "compared segments of a log: leave out env",
        ),
    ):
        with pytest.raises(error, match=sentence):
            hw.train(method, log, updates=2, **TINY, **options)
    with pytest.raises(DataError, match=r"answers.jsonl is of another log"):
        hw.train(method, cart_pole_log(), comparisons=answers, updates=2, **TINY)
    with pytest.raises(SpecificationError, match="comparisons is one of the segment-comparison"):
        hw.train("BC", log, comparisons=answers, updates=2, **TINY)


def test_answers_that_changed_since_a_run_began_are_noticed(compared, tmp_path):
    log, answers = compared
    path = shutil.copy(answers, tmp_path / "answers.jsonl")
    out = tmp_path / "run"
    hw.train(
        PreferenceReward(hidden_sizes=(8,)), log, comparisons=str(path), updates=3, out=out, **TINY
    )
    for checkpoint in (out / "checkpoints").iterdir():
        shutil.rmtree(checkpoint) if checkpoint.is_dir() else checkpoint.unlink()
    assert hw.resume(out).finished
    for checkpoint in (out / "checkpoints").iterdir():
        shutil.rmtree(checkpoint) if checkpoint.is_dir() else checkpoint.unlink()
    with open(path, "a") as file:
        file.write('{"first": [0, 5], "second": [5, 10], "answer": "first"}\n')
    with pytest.raises(DataError, match=r"answers.jsonl has changed since this run began"):
        hw.resume(out)


def test_commands_do_the_same(tmp_path, capsys):
    from headwater.cli import main

    log = str(write(pendulum_log(), tmp_path / "log.parquet"))
    answers, out = str(tmp_path / "answers.jsonl"), str(tmp_path / "run")
    target = str(tmp_path / "filled.parquet")
    pairs = ("--pairs", "20", "--length", "5")
    assert main(["data", "compare", log, answers, *pairs, "--errors", "0.1"]) == 1
    assert "errors and beyond are of a simulated judge: add --simulate" in capsys.readouterr().err
    assert main(["data", "compare", log, answers, *pairs, "--simulate", "--errors", "0.1"]) == 0
    small = ("--set", "hidden_sizes=8", "--updates", "3", "--seeds", "1")
    train = ["train", "PreferenceReward", "-d", log, "--comparisons", answers, "-o", out, *small]
    assert main(train) == 0
    assert f"headwater data label DATA TARGET --run {out}" in capsys.readouterr().out
    assert main(["data", "label", log, target, "-r", out]) == 0
    assert main(["data", "describe", target]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "all inferred by PreferenceReward from answers.jsonl; in place of logged ones" in shown


def test_the_command_ends_with_the_last_answer_and_goes_on_after_a_kill(tmp_path):
    log = pendulum_log()
    path, answers = str(write(log, tmp_path / "log.parquet")), tmp_path / "answers.jsonl"
    command = [sys.executable, "-m", "headwater", "data", "compare", path, str(answers)]
    command += ["--pairs", "2", "--length", "5", "--no-browser"]
    for number in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline()
            assert f"({number} of 2 answered)" in line

            class At:
                url = line.split()[2]

            body = {"number": number, "answer": "first"}
            ask(At, "POST", "/answer", body, **{"X-Token": token_of(At)})
            if number == 0:
                process.kill()
            else:
                assert "2 pairs are answered" in process.communicate(timeout=60)[0]
                assert process.returncode == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    assert read_answers(answers, log).answers == ("first", "first")
