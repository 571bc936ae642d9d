"""What every test runs under: checked shapes and types, no silent broadcasting, a warm cache.

The import hook has to be installed before anything of Headwater is imported, so it is first.
"""

import gc
import os
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook
from xdist.scheduler import LoadScopeScheduling

# Programs of tests are small and run a few times: compiling them is most of the cost, and these
# halve it. The programs that users run are compiled in XLA's default way, as in the benchmarks.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_multi_thread_eigen=false",
)

install_import_hook("headwater", "beartype.beartype")

# One folder for each worker: two of them writing the same entry could be read half-written.
_CACHE = Path(__file__).parents[1] / ".cache" / "jax" / os.environ.get("PYTEST_XDIST_WORKER", "one")

# As the commands have them where there are several processors.
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

_MAPS = Path("/proc/self/maps")
_MAPS_ALLOWED = 30_000
"""Half of what Linux allows a process: every compiled program takes some, and one too many ends the
process."""


def pytest_runtest_teardown(item, nextitem):
    """Forgets compiled programs before there are too many of them in one process."""
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MAPS_ALLOWED:
        jax.clear_caches()
        gc.collect()


class _Together(LoadScopeScheduling):
    """Gives a worker whole files, so that what tests share is made and compiled once.

    In the two longest files, it is the tests of a method and each claim that share nothing with the
    others. Marks for groups (`xdist_group`) are not seen any more by xdist 3.8 under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        apart = "contract/test_methods.py", "claims/test_smoke.py", "examples/test_examples.py"
        if file.endswith(apart):
            return nodeid
        return file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Shares the tests out among `make test`'s workers."""
    return _Together(config, log)


@pytest.fixture
def key():
    """A fixed random key."""
    return jax.random.key(0)
