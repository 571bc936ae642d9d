"""Rules by which players of videos choose bitrates: from the buffer, the rate, or a short plan."""

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from headwater.core.method import AbstractPolicy
from headwater.environments.systems.bitrate_control import (
    BITRATES,
    CHUNK_SECONDS,
    LOOKAHEAD,
    playback,
)

_PAST = 5
"""Throughputs of which the mean is taken."""


class BufferBased(AbstractPolicy):
    """The more video is in the buffer, the better the next chunk (BBA).

    The worst encoding up to `reservoir` seconds, the best one `cushion` seconds above that, and in
    between in proportion. State and key are not looked at.

    **Arguments:** `reservoir`, `cushion`: in seconds; Pensieve's choices.

    **Reference:** Huang et al. (2014), A buffer-based approach to rate adaptation.
    """

    reservoir: float = 5.0
    cushion: float = 10.0

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Int[Array, "*batch"]:
        """The level for an observation of `BitrateControl`."""
        share = (playback(observation).buffer - self.reservoir) / self.cushion
        return jnp.floor(jnp.clip(share, 0.0, 1.0) * (len(BITRATES) - 1)).astype(jnp.int32)

    def act(self, state: PyTree, observation: Array, *, key: PRNGKeyArray, explore: bool):
        return self(observation), ()


class RateBased(AbstractPolicy):
    """The best encoding below the harmonic mean of the last five throughputs.

    The last level where nothing has been measured yet, the worst one where none is below. State and
    key are not looked at.
    """

    def __call__(self, observation: Float[Array, " observation"]) -> Int[Array, ""]:
        """The level for an observation of `BitrateControl`."""
        seen = playback(observation)
        rate = harmonic_mean(seen.throughputs[-_PAST:])
        below = jnp.sum(jnp.asarray(BITRATES) <= rate) - 1
        level = jnp.where(seen.throughputs[-1] > 0.0, jnp.maximum(below, 0), _level(seen.bitrate))
        return level.astype(jnp.int32)

    def act(self, state: PyTree, observation: Array, *, key: PRNGKeyArray, explore: bool):
        return self(observation), ()


class RobustMPC(AbstractPolicy):
    """Plans five chunks ahead as if the throughput were the lowest that is to be expected.

    That is the harmonic mean of the last five, over one plus the largest relative error of such a
    prediction for the last five chunks. All 7,776 plans are compared, and the first level of the
    best one is taken; the last level where nothing has been measured yet. State and key are not
    looked at.

    **Arguments:** `rebuffer_penalty`, `change_penalty`: those of the environment.

    **Reference:** Yin et al. (2015), A control-theoretic approach for dynamic adaptive video
    streaming over HTTP.
    """

    rebuffer_penalty: float = 4.3
    change_penalty: float = 1.0

    def __call__(self, observation: Float[Array, " observation"]) -> Int[Array, ""]:
        """The level for an observation of `BitrateControl`."""
        seen = playback(observation)
        rate = robust_throughput(seen.throughputs)
        plans = jnp.asarray(_PLANS)
        bitrate = jnp.asarray(BITRATES)[plans]
        buffer = jnp.broadcast_to(seen.buffer, plans.shape[:1])
        before = jnp.broadcast_to(seen.bitrate, plans.shape[:1])
        total = jnp.zeros(plans.shape[0])
        for ahead in range(LOOKAHEAD):
            now = bitrate[:, ahead]
            delay = now * CHUNK_SECONDS * seen.sizes[ahead] / jnp.maximum(rate, 1e-6)
            stalled = jnp.maximum(delay - buffer, 0.0)
            gain = now - self.rebuffer_penalty * stalled
            gain = gain - self.change_penalty * jnp.abs(now - before)
            # Behind the last chunk nothing is gained.
            total = total + jnp.where(seen.sizes[ahead] > 0.0, gain, 0.0)
            buffer, before = jnp.maximum(buffer - delay, 0.0) + CHUNK_SECONDS, now
        best = plans[jnp.argmax(total), 0]
        return jnp.where(seen.throughputs[-1] > 0.0, best, _level(seen.bitrate)).astype(jnp.int32)

    def act(self, state: PyTree, observation: Array, *, key: PRNGKeyArray, explore: bool):
        return self(observation), ()


_PLANS = np.asarray(list(itertools.product(range(len(BITRATES)), repeat=LOOKAHEAD)), np.int32)


def harmonic_mean(throughputs: Float[Array, "*batch measurement"]) -> Float[Array, "*batch"]:
    """Of those that are more than zero, or zero if none is."""
    there = throughputs > 0.0
    slowness = jnp.sum(jnp.where(there, 1.0 / jnp.where(there, throughputs, 1.0), 0.0), axis=-1)
    return jnp.sum(there, axis=-1) / jnp.maximum(slowness, 1e-9)


def robust_throughput(throughputs: Float[Array, " measurement"]) -> Float[Array, ""]:
    """The harmonic mean of the last five, over one plus the largest error of the last five times.

    The error is how far such a mean was from the throughput that followed, relative to that.
    """
    ends = range(throughputs.shape[0] - _PAST, throughputs.shape[0])
    errors = jnp.zeros(())
    for end in ends:
        predicted = harmonic_mean(throughputs[max(end - _PAST, 0) : end])
        actual = throughputs[end]
        error = jnp.abs(predicted - actual) / jnp.maximum(actual, 1e-9)
        errors = jnp.maximum(errors, jnp.where(predicted > 0.0, error, 0.0))
    return harmonic_mean(throughputs[-_PAST:]) / (1.0 + errors)


def _level(bitrate: Float[Array, "*batch"]) -> Int[Array, "*batch"]:
    """Which of the encodings this is."""
    known = jnp.asarray(BITRATES)
    return jnp.argmin(jnp.abs(known - jnp.broadcast_to(bitrate, known.shape)))
