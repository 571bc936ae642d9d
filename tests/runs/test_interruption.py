"""Interrupts are not lost, and programs are not kept for ever."""

import os
import signal

import jax
import jax.api_util
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.runs import compiled
from headwater.runs.interruption import noticed_interrupts, raise_if_interrupted

from .tiny import evaluate, finish, stages


@pytest.fixture
def plain_interrupts():
    """As in a process that a person started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _Uninterruptible:
    """Presses Ctrl-C, once, where nobody hears it."""

    def __init__(self, at):
        self.left = at

    def __call__(self, method, states, key):
        self.left -= 1
        if self.left == 0:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                np.linalg.norm(np.ones(10))
            except KeyboardInterrupt:
                pass
        return evaluate(method, states, key)


def test_an_interrupt_that_was_dropped_ends_the_run_after_the_next_chunk(plain_interrupts):
    evaluate = _Uninterruptible(2)
    with noticed_interrupts(), pytest.raises(KeyboardInterrupt):
        finish(stages("replay"), evaluate=evaluate)
    assert evaluate.left == 0
    raise_if_interrupted()  # It is over with the command.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_a_library_took_for_its_own_error_is_one(plain_interrupts):
    with pytest.raises(KeyboardInterrupt), noticed_interrupts():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            np.linalg.norm(np.ones(10))
        except KeyboardInterrupt:
            raise ImportError("half imported") from None
    with pytest.raises(ImportError), noticed_interrupts():
        raise ImportError("nobody interrupted this")


def test_whoever_handles_interrupts_keeps_doing_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noticed_interrupts():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
            raise_if_interrupted()
    finally:
        signal.signal(signal.SIGINT, before)


def test_programs_are_forgotten_when_there_are_many(monkeypatch):
    cleared = []
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(True))
    monkeypatch.setattr(compiled, "_left", 0)
    maps = iter([5_999, 6_001, 700, 6_600, 6_701, 800])
    monkeypatch.setattr(compiled, "_count_maps", lambda: next(maps))
    compiled.forget_programs()
    assert not cleared
    jax.jit(lambda x: x + 1, donate_argnums=0)(jnp.zeros(3))
    # JAX's own clearing leaves these out, which is tested by standing in for it.
    assert jax.api_util.donation_vector.cache_info().currsize > 0
    compiled.forget_programs()  # Leaves 700 behind, from which it counts again.
    assert jax.api_util.donation_vector.cache_info().currsize == 0
    compiled.forget_programs()
    assert len(cleared) == 1
    compiled.forget_programs()
    assert len(cleared) == 2
