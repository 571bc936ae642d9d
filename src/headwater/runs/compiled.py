"""Where compiled programs are kept and run. Imports nothing, as it comes before JAX is loaded."""

import os
import sys
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_MOST_MAPS = 6_000
"""Each program takes some of the 65,530 memory maps that Linux allows a process, and keeps them;
those of one run take about 600, and 30 MB."""
_left = 0


def keep_compiled_programs() -> None:
    """Keeps compiled programs in the user's cache directory, unless told otherwise."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(home, "headwater", "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def use_every_processor() -> None:
    """Makes each processor of this process a device of its own, so that seeds run side by side.

    Has no effect where the environment already says how many there are, or on accelerators.
    """
    # Not everywhere can a process be confined to some of them.
    allowed = getattr(os, "sched_getaffinity", None)
    count = os.cpu_count() if allowed is None else len(allowed(0))
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(count or 1))


def forget_programs() -> None:
    """Forgets compiled programs if this process has come to hold too many of them.

    What a run needs again is compiled anew, or read from where compiled programs are kept.
    """
    global _left
    if _count_maps() <= _left + _MOST_MAPS:
        return
    import gc

    import jax
    import jax.api_util

    jax.clear_caches()
    # That leaves one out, whose keys hold what each program was called with: 100 kB for every run.
    kept = getattr(jax.api_util, "donation_vector", None)
    clear = getattr(kept, "cache_clear", None)
    if clear is not None:
        clear()
    gc.collect()
    _give_memory_back()
    _left = _count_maps()


def _give_memory_back() -> None:
    """Has the C library return what was freed to the system: otherwise it keeps hundreds of MiB."""
    if sys.platform != "linux":
        return
    import ctypes

    # Only glibc has to be asked.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _count_maps() -> int:
    """Memory maps of this process; none where the system does not say."""
    try:
        return _MAPS.read_bytes().count(b"\n")
    except OSError:
        return 0
