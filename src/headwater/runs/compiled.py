"""Where compiled programs are kept. Imports nothing, since it comes before JAX is loaded."""

import os


def keep_compiled_programs() -> None:
    """Keeps compiled programs in the user's cache directory, unless told otherwise."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(home, "headwater", "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
