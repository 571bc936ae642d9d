"""Bitrate control beside a player that walks through a trace second by second, in plain Python."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.environments.check import check_environment
from headwater.environments.systems.bandwidth import markov_bandwidth, read_bandwidth_traces
from headwater.environments.systems.bitrate_control import (
    BITRATES,
    LOOKAHEAD,
    MEASUREMENTS,
    BitrateControl,
    playback,
    transfer_seconds,
)

TRACES = np.asarray([[1.0, 0.0, 3.0, 0.5, 0.0, 0.0, 2.0], [0.2, 6.0, 0.1, 0.0, 1.0, 4.0, 0.3]])


def _seconds(trace, start, megabits):
    """As a player waits: to the end of each second, or until all has arrived in it."""
    time = start
    while True:
        rate = trace[int(time) % len(trace)]
        left = math.floor(time) + 1 - time
        if rate > 0.0 and rate * left >= megabits:
            return time + megabits / rate - start
        megabits -= rate * left
        time = math.floor(time) + 1


def _play(trace, time, sizes, levels):
    """Rewards, buffers and throughputs of a whole video."""
    buffer, before, found = 0.0, 0.75, []
    for size, level in zip(sizes, levels):
        megabits = BITRATES[level] * 4.0 * size
        delay = 0.08 + _seconds(trace, time, megabits / 0.95)
        stalled = max(delay - buffer, 0.0)
        buffer = max(buffer - delay, 0.0) + 4.0
        wait = max(buffer - 60.0, 0.0)
        buffer -= wait
        time = (time + delay + wait) % len(trace)
        reward = BITRATES[level] - 4.3 * stalled - abs(BITRATES[level] - before)
        before = BITRATES[level]
        found.append((reward, buffer, megabits / delay, before))
    return np.asarray(found)


@pytest.mark.parametrize("rate", [1.0, 30.0])
def test_a_video_is_what_a_plain_player_makes_of_it(rate):
    # With thirty times the bandwidth the buffer is full, and the player waits.
    task = BitrateControl(traces=rate * TRACES)

    @jax.jit
    def walk(key):
        state, first = task.reset(key=key)
        levels = jax.random.randint(jax.random.fold_in(key, 1), (48,), 0, 6)
        step = lambda state, level: task.step(state, level, key=key)
        return state, first, levels, jax.lax.scan(step, state, levels)[1]

    for seed in range(4):
        start, first, levels, seen = walk(jax.random.key(seed))
        trace = np.asarray(start.trace, np.float64)
        sizes = np.asarray(start.sizes, np.float64)
        assert ((sizes >= 0.8) & (sizes <= 1.2)).all() and sizes.std() > 0.05
        known = _play(trace, float(start.time), sizes, np.asarray(levels))
        shown = jax.tree.map(np.asarray, playback(seen.observation))
        np.testing.assert_allclose(seen.reward, known[:, 0], rtol=2e-4, atol=2e-3)
        np.testing.assert_allclose(shown.buffer, known[:, 1], rtol=2e-4, atol=2e-3)
        np.testing.assert_allclose(shown.throughputs[:, -1], known[:, 2], rtol=2e-4, atol=2e-3)
        np.testing.assert_allclose(shown.throughputs[-1], known[-MEASUREMENTS:, 2], rtol=2e-3)
        np.testing.assert_allclose(shown.bitrate, known[:, 3], rtol=1e-6)
        np.testing.assert_array_equal(shown.chunks_left, np.arange(47, -1, -1))
        np.testing.assert_allclose(shown.sizes[9], sizes[10 : 10 + LOOKAHEAD], rtol=1e-6)
        assert not shown.sizes[-1].any()
        assert np.asarray(seen.terminal).tolist() == 47 * [False] + [True]
        assert playback(first).buffer == 0.0 and playback(first).bitrate == 0.75
        if rate == 30.0:
            assert known[:, 1].max() == 60.0


def test_a_transfer_takes_as_long_as_in_a_loop():
    transfer = jax.jit(transfer_seconds)
    for trace in TRACES:
        for start in (0.0, 0.25, 1.0, 3.75, 6.5):
            for megabits in (0.01, 0.5, 2.0, 6.5, 40.0):
                given = jnp.asarray(trace), jnp.cumsum(jnp.asarray(trace))
                found = transfer(*given, jnp.asarray(start), jnp.asarray(megabits))
                known = _seconds(trace, start, megabits)
                np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-4)


def _chain(traces: int, seconds: int) -> np.ndarray:
    """The chain as it is documented, in NumPy."""
    draw = np.random.default_rng(0)
    levels, found = np.geomspace(0.4, 5.0, 8), np.empty((traces, seconds))
    for trace in found:
        level = draw.integers(8)
        for second in range(seconds):
            trace[second] = levels[level] * max(1.0 + 0.1 * draw.normal(), 0.1)
            if draw.random() >= 0.9:
                level = int(np.clip(level + draw.choice([-1, 1]), 0, 7))
    return found


def test_traces_that_are_made_up_are_the_chain_that_is_documented():
    keys = jax.random.split(jax.random.key(0), 400)
    made = np.asarray(jax.jit(jax.vmap(lambda key: markov_bandwidth(200, key=key)))(keys))
    known = _chain(400, 200)
    for of in (
        lambda traces: np.log(traces).mean(axis=1),
        lambda traces: np.log(traces[:, 0]),
        lambda traces: np.abs(np.diff(np.log(traces), axis=1)).mean(axis=1),
        lambda traces: np.log(traces).std(axis=1),
        lambda traces: np.abs(np.log(traces[:, -1] / traces[:, 0])),
    ):
        ours, theirs = of(made), of(known)
        error = np.sqrt((ours.var() + theirs.var()) / 400)
        assert abs(ours.mean() - theirs.mean()) < 4.0 * error
        assert 0.8 < ours.std() / theirs.std() < 1.25


def test_measured_traces_are_read_second_by_second(tmp_path):
    file = tmp_path / "traces.csv"
    file.write_text(
        "trace,seconds,megabits_per_second\na,10,1\na,11.5,2\na,13,3\na,14,4\nb,0,5\nb,5,6\nb,9,7\n"
    )
    found = read_bandwidth_traces(file, seconds=6)
    np.testing.assert_array_equal(found, [[1, 1, 2, 3, 1, 1], [5, 5, 5, 5, 5, 6]])
    check_environment(BitrateControl(traces=found, chunks=5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trace,seconds\na,1\n", "there is no column megabits_per_second"),
        ("trace,seconds,megabits_per_second\n", "holds no traces"),
        ("trace,seconds,megabits_per_second\na,0,x\n", "line 2: there are no two numbers"),
        ("trace,seconds,megabits_per_second\na,0,-1\n", "line 2: -1 megabits per second at 0 s"),
        (
            "trace,seconds,megabits_per_second\na,1,1\na,1,1\n",
            "line 3: time goes from 1 to 1 s in one trace",
        ),
        ("trace,seconds,megabits_per_second\na,0,0\na,5,0\n", "nothing passes in trace a"),
    ],
)
def test_files_that_are_no_traces_are_refused(tmp_path, text, message):
    file = tmp_path / "traces.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_bandwidth_traces(file)


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_bandwidth_traces(tmp_path / "none.csv")
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"chunks": 0}, "chunks = 0 must be at least 1"),
        ({"round_trip": -1.0}, "round_trip = -1 must not be below 0"),
        ({"size_spread": 1.0}, "size_spread = 1 must be below 1"),
        ({"traces": [1.0, 2.0]}, r"the shape \(2,\) instead of \[trace, second\]"),
        ({"traces": [[1.0, -2.0]]}, "negative or not finite"),
        ({"traces": [[1.0], [0.0]]}, "nothing passes in trace 1"),
        ({"traces": "fast"}, "no array of numbers"),
    )
    for options, message in cases:
        with pytest.raises(SpecificationError, match=message):
            BitrateControl(**options)
