"""Choose how well each chunk of a video is encoded while it is downloaded and watched."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import AbstractEnvironment, Step
from headwater.environments.systems.bandwidth import markov_bandwidth

BITRATES = (0.3, 0.75, 1.2, 1.85, 2.85, 4.3)
"""Megabits per second of the six encodings, from the worst to the best."""
CHUNK_SECONDS = 4.0
"""Of video in a chunk."""
FIRST_LEVEL = 1
"""The encoding that a player is said to have shown before the first chunk."""
MEASUREMENTS, LOOKAHEAD = 10, 5
"""Throughputs of the last chunks, and sizes of the next ones, in an observation."""
_PAYLOAD = 0.95
"""Of the bandwidth, what carries video."""
_SECONDS = 320
"""Of a trace that is made up."""


class BitrateControlState(eqx.Module):
    """The trace and the time in it, the video, and how far the player has come with it.

    `passed` is what the trace has carried by the end of each second, in megabits.
    """

    trace: Float[Array, " second"]
    passed: Float[Array, " second"]
    time: Float[Array, ""]
    sizes: Float[Array, " chunk"]
    chunk: Int[Array, ""]
    level: Int[Array, ""]
    buffer: Float[Array, ""]
    throughputs: Float[Array, " measurement"]


class Playback(NamedTuple):
    """What an observation of `BitrateControl` says.

    **Arguments:** `buffer`: seconds of video that were downloaded and not yet shown; `bitrate`: of
    the last chunk, in megabits per second; `chunks_left`; `throughputs`: of the last chunks in
    megabits per second, the oldest first, zero where there were none; `sizes`: of the next chunks
    over their mean, zero behind the last.
    """

    buffer: Float[Array, "*batch"]
    bitrate: Float[Array, "*batch"]
    chunks_left: Float[Array, "*batch"]
    throughputs: Float[Array, "*batch measurement"]
    sizes: Float[Array, "*batch next"]


def playback(observation: Float[Array, "*batch observation"]) -> Playback:
    """The parts of an observation of `BitrateControl`."""
    measured = 3 + MEASUREMENTS
    return Playback(
        observation[..., 0],
        observation[..., 1],
        observation[..., 2],
        observation[..., 3:measured],
        observation[..., measured : measured + LOOKAHEAD],
    )


class BitrateControl(AbstractEnvironment):
    """Choose one of six bitrates for each chunk of a video (adaptive bitrate streaming).

    A chunk holds four seconds of video in 0.3, 0.75, 1.2, 1.85, 2.85 or 4.3 megabits per second,
    times the chunk's own factor; 95 % of the bandwidth carry video. While it is downloaded the
    buffer is watched; once that is empty the picture stands still. A full buffer (60 s) makes the
    player wait. Observation: buffer, last bitrate, chunks left, throughputs of the last ten chunks
    and sizes of the next five: see `playback`. Reward, the quality of experience: the bitrate, less
    `rebuffer_penalty` for each second of standing still and `change_penalty` for each megabit per
    second of difference to the chunk before. Terminal behind the last chunk.

    **Arguments:** `chunks`: of a video; `rebuffer_penalty`, `change_penalty`: see above;
    `size_spread`: factors of sizes are uniform within so much of one; `round_trip`: seconds before
    a chunk begins to arrive; `traces`: bandwidth in megabits per second, `[trace, second]`, of
    which an episode draws one and where it begins in it, the first second following the last (see
    `read_bandwidth_traces`); by default each episode makes up one of its own (`markov_bandwidth`).

    **Reference:** Mao, Netravali, Alizadeh (2017), Pensieve. **Differences:** a full buffer waits
    exactly as long as it has to instead of in half seconds; all encodings of a chunk share one
    factor, where theirs are those of one video.

    Raises `SpecificationError` for no chunks, a penalty below zero, a spread outside of [0, 1), a
    round trip below zero, or traces that cannot be.
    """

    name: ClassVar[str] = "bitrate-control"
    reference_returns: ClassVar[None] = None

    chunks: int = eqx.field(static=True, default=48)
    rebuffer_penalty: float | Float[Array, ""] = 4.3
    change_penalty: float | Float[Array, ""] = 1.0
    size_spread: float | Float[Array, ""] = 0.2
    round_trip: float | Float[Array, ""] = 0.08
    # An array; from a command line it may be anything.
    traces: Any = None

    def __check_init__(self):
        if self.chunks < 1:
            raise SpecificationError(f"{self.name}: chunks = {self.chunks} must be at least 1")
        for name in ("rebuffer_penalty", "change_penalty", "round_trip", "size_spread"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not 0.0 <= value < float("inf"):
                raise SpecificationError(f"{self.name}: {name} = {value:g} must not be below 0")
        if isinstance(self.size_spread, int | float) and self.size_spread >= 1.0:
            raise SpecificationError(
                f"{self.name}: size_spread = {self.size_spread:g} must be below 1"
            )
        if self.traces is not None and not isinstance(self.traces, Tracer):
            _check_traces(self.name, self.traces)

    @property
    def spaces(self) -> Spaces:
        largest = 1.0 + float(self.size_spread) if isinstance(self.size_spread, float) else 2.0
        high = (60.0, BITRATES[-1], float(self.chunks))
        high = (*high, *(float("inf"),) * MEASUREMENTS, *(largest,) * LOOKAHEAD)
        return Spaces(Box((0.0,) * len(high), high), Discrete(len(BITRATES)), horizon=self.chunks)

    def reset(self, *, key: PRNGKeyArray):
        trace_key, start_key, size_key = jax.random.split(key, 3)
        if self.traces is None:
            trace = markov_bandwidth(_SECONDS, key=trace_key)
        else:
            traces = jnp.asarray(self.traces, jnp.float32)
            trace = traces[jax.random.randint(trace_key, (), 0, traces.shape[0])]
        spread = jax.random.uniform(size_key, (self.chunks,), minval=-1.0, maxval=1.0)
        state = BitrateControlState(
            trace=trace,
            passed=jnp.cumsum(trace),
            time=jax.random.uniform(start_key, (), maxval=float(trace.shape[0])),
            sizes=1.0 + self.size_spread * spread,
            chunk=jnp.zeros((), jnp.int32),
            level=jnp.asarray(FIRST_LEVEL, jnp.int32),
            buffer=jnp.zeros(()),
            throughputs=jnp.zeros(MEASUREMENTS),
        )
        return state, self._observe(state)

    def step(self, state: BitrateControlState, action: Array, *, key: PRNGKeyArray):
        bitrates = jnp.asarray(BITRATES)
        bitrate, before = bitrates[action], bitrates[state.level]
        megabits = bitrate * CHUNK_SECONDS * state.sizes[state.chunk]
        carried = megabits / _PAYLOAD
        transfer = transfer_seconds(state.trace, state.passed, state.time, carried)
        delay = transfer + self.round_trip
        stalled = jnp.maximum(delay - state.buffer, 0.0)
        buffer = jnp.maximum(state.buffer - delay, 0.0) + CHUNK_SECONDS
        wait = jnp.maximum(buffer - 60.0, 0.0)
        reached = BitrateControlState(
            trace=state.trace,
            passed=state.passed,
            time=jnp.mod(state.time + delay + wait, float(state.trace.shape[0])),
            sizes=state.sizes,
            chunk=state.chunk + 1,
            level=action.astype(jnp.int32),
            buffer=buffer - wait,
            throughputs=jnp.append(state.throughputs[1:], megabits / delay),
        )
        reward = bitrate - self.rebuffer_penalty * stalled
        reward = reward - self.change_penalty * jnp.abs(bitrate - before)
        terminal = reached.chunk >= self.chunks
        return reached, Step(self._observe(reached), reward, terminal, jnp.zeros((), bool))

    def _observe(self, state: BitrateControlState) -> Float[Array, " observation"]:
        following = state.chunk + jnp.arange(LOOKAHEAD)
        sizes = jnp.where(following < self.chunks, state.sizes[following % self.chunks], 0.0)
        bitrate = jnp.asarray(BITRATES)[state.level]
        left = (self.chunks - state.chunk).astype(jnp.float32)
        return jnp.concatenate([jnp.stack([state.buffer, bitrate, left]), state.throughputs, sizes])


def transfer_seconds(
    trace: Float[Array, " second"],
    passed: Float[Array, " second"],
    start: Float[Array, ""],
    megabits: Float[Array, ""],
) -> Float[Array, ""]:
    """How long it takes from `start` on, in [0, seconds of the trace), until so much has passed.

    **Arguments:** `trace`: megabits per second, which begins again at its end; somewhere it is
    more than zero; `passed`: its cumulative sum.
    """
    seconds = trace.shape[0]
    now = jnp.minimum(jnp.floor(start), seconds - 1.0).astype(jnp.int32)
    # What has passed since the trace began, until now and then.
    goal = passed[now] - trace[now] * (now + 1.0 - start) + megabits
    rounds = jnp.floor(goal / passed[-1])
    rest = goal - rounds * passed[-1]
    # The first second at whose end as much has passed; rounding may leave none.
    last = jnp.minimum(jnp.sum(passed < jnp.broadcast_to(rest, passed.shape)), seconds - 1)
    missing = rest - (passed[last] - trace[last])
    within = jnp.where(trace[last] > 0.0, missing / jnp.maximum(trace[last], 1e-9), 0.0)
    return rounds * seconds + last + within - start


def _check_traces(name: str, traces: Any) -> None:
    try:
        found = np.asarray(traces, np.float64)
    except (TypeError, ValueError):
        raise SpecificationError(f"{name}: traces are no array of numbers") from None
    if found.ndim != 2 or not found.size:
        raise SpecificationError(
            f"{name}: traces have the shape {found.shape} instead of [trace, second]"
        )
    if not np.isfinite(found).all() or (found < 0.0).any():
        raise SpecificationError(f"{name}: traces hold bandwidths that are negative or not finite")
    if (found.max(axis=1) <= 0.0).any():
        idle = int(np.flatnonzero(found.max(axis=1) <= 0.0)[0])
        raise SpecificationError(
            f"{name}: nothing passes in trace {idle}, so that no chunk arrives"
        )
