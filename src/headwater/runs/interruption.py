"""An interrupt from the keyboard that cannot be lost.

Python raises it wherever it is, and drops it where nothing can be raised: in what is called when an
object is freed, say. Whoever works for long therefore asks now and then whether there was one.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_pressed = threading.Event()


@contextlib.contextmanager
def noticed_interrupts() -> Iterator[None]:
    """Remembers interrupts from here on, if this is where Python would raise them anyway."""
    _pressed.clear()
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupted)
    try:
        yield
    except Exception:
        # Some libraries turn an interrupt into an error of their own, while they are imported, say.
        if _pressed.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _pressed.clear()


def raise_if_interrupted() -> None:
    """Raises `KeyboardInterrupt` if there was one."""
    if _pressed.is_set():
        raise KeyboardInterrupt


def _interrupted(number: int, frame: Any) -> None:
    _pressed.set()
    raise KeyboardInterrupt
