"""Where compiled programs are kept and run. Imports nothing, as it comes before JAX is loaded."""

import os


def keep_compiled_programs() -> None:
    """Keeps compiled programs in the user's cache directory, unless told otherwise."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(home, "headwater", "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def use_every_processor() -> None:
    """Makes each processor of this process a device of its own, so that seeds run side by side.

    Has no effect where the environment already says how many there are, or on accelerators.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(count or 1))
