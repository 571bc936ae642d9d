"""What every test runs under: checked shapes and types, no silent broadcasting, a warm cache.

The import hook has to be installed before anything of Headwater is imported, so it is first.
"""

import functools
import gc
import os
import resource
import time
from pathlib import Path

import jax
import jaxtyping
import pytest
from jax._src.lru_cache import LRUCache
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

# One folder for all workers and runs: what one has compiled the others read. Processes that tests
# begin have another for each worker, as they write as JAX does: see `_put_whole`.
_CACHE = Path(__file__).parents[1] / ".cache" / "jax"
_OF_PROCESSES = _CACHE.with_name(f"jax-{os.environ.get('PYTEST_XDIST_WORKER', 'one')}")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_OF_PROCESSES)
os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"

# As the commands have them where there are several processors.
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
# Small programs, too: they are compiled again whenever a process has forgotten its programs.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
# Otherwise the folder is part of every key, though nothing here is compiled for a GPU.
jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


def _put_whole(self: LRUCache, key: str, value: bytes) -> None:
    """Writes an entry of the cache beside its place and moves it there, so that another worker
    never reads half of it, nor does anybody after a process has died."""
    place = self.path / f"{key}-cache"
    if key and not place.exists():
        beside = self.path / f"{key}.{os.getpid()}"
        beside.write_bytes(value)
        beside.replace(place)


LRUCache.put = _put_whole


def pytest_collection_finish(session):
    """Looks seldom for garbage, and never through what the imports made.

    Tracing makes so many objects that Python's own pace of looking costs a sixth of the suite.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)


_PASSED = Path(__file__).parent / "passed.json"
_PASSED_AS = "passed as"
_UNITS = [
    Path(__file__).parent / room
    for room in (
        "analysis",
        "api",
        "decoding",
        "environments",
        "evaluation",
        "methods",
        "networks",
        "ops",
        "parts",
        "runs",
        "sources",
        "sweeps",
        "texts",
    )
]
"""What is tested there is named in the tests themselves, so that a fingerprint reaches it; not in
others, whose tests look at files, begin commands, or find readers of data by their folder."""


def pytest_addoption(parser):
    """`--repeat-all` and `--record-passed`, for tests that are repeated when their code changes."""
    group = parser.getgroup("tests that have passed as they are")
    group.addoption("--repeat-all", action="store_true", help="repeat them")
    group.addoption("--record-passed", action="store_true", help=f"write them to {_PASSED.name}")


@functools.cache
def _passed_tests():
    from headwater.evidence.fingerprints.passed import PassedTests

    return PassedTests(_PASSED)


def _source(item) -> str | None:
    """What the test executes, if it need not be repeated while that is the same.

    What these tests cost would grow with the number of methods and claims, and not with what has
    changed. What passed on processors may fail on an accelerator, where all are run.
    """
    from headwater.evidence.fingerprints.passed import source_of_test
    from headwater.evidence.registry import all_claims

    mark = item.get_closest_marker("repeated_on_change")
    concerned = mark is not None or any(map(item.path.is_relative_to, _UNITS))
    if not concerned or jax.default_backend() != "cpu":
        return None
    fixtures = [d.func for found in item._fixtureinfo.name2fixturedefs.values() for d in found]
    given = item.callspec.params if hasattr(item, "callspec") else {}
    of_claim = mark is not None and mark.kwargs.get("claim")
    claim = all_claims()[given["name"]] if of_claim else None
    # Nothing of this is tested by it, and to check types there takes three times as long.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        return source_of_test(item.function, fixtures, given, claim)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Leaves out what has passed as it is, but for a sample."""
    source = _source(item)
    if source is None:
        return
    item.user_properties.append((_PASSED_AS, source))
    passed = _passed_tests()
    repeat = item.config.getoption("repeat_all") or passed.is_in_sample(item.nodeid)
    if passed.holds(item.nodeid, source) and not repeat:
        pytest.skip(f"has passed as it is: {_PASSED.name}")


_BUDGET = 20.0
"""Seconds of processor time, processes included, from which on the summary names a test. It does
not fail: what a test takes depends on the machine."""
_PROCESSOR_SECONDS = "processor seconds"


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Notes what takes long and does not say why: `@pytest.mark.slow(reason="…")`."""
    begun = _processor_seconds()
    result = yield
    took = _processor_seconds() - begun
    mark = item.get_closest_marker("slow")
    if took > _BUDGET and (mark is None or not mark.kwargs.get("reason")):
        item.user_properties.append((_PROCESSOR_SECONDS, took))
    return result


def pytest_terminal_summary(terminalreporter, config):
    """Names the tests that are over the budget, and keeps account of which have passed."""
    if hasattr(config, "workerinput"):
        return  # A worker knows of its own tests alone, and would take the others for gone.

    def noted(outcome, what):
        return {
            report.nodeid: value
            for report in terminalreporter.stats.get(outcome, ())
            for name, value in getattr(report, "user_properties", ())
            if name == what
        }

    # Of one test both may be reported: that it passed, and an error of what it was given.
    failed = {*noted("failed", _PASSED_AS), *noted("error", _PASSED_AS)}
    if failed:
        _passed_tests().withdraw(failed)
    if config.getoption("record_passed"):
        found = noted("passed", _PASSED_AS)
        passed = {test: source for test, source in found.items() if test not in failed}
        whole = config.args_source is config.ArgsSource.TESTPATHS and not config.option.keyword
        known = {*passed, *noted("skipped", _PASSED_AS)} if whole else None
        _passed_tests().record(passed, known)
    over = noted("passed", _PROCESSOR_SECONDS)
    if over:
        terminalreporter.section(f"more than {_BUDGET:.0f} s of processor time", yellow=True)
    for test, seconds in sorted(over.items(), key=lambda each: -each[1]):
        terminalreporter.line(f"{seconds:5.0f} s  {test}", yellow=True)


_MAPS = Path("/proc/self/maps")
_MAPS_ALLOWED = 30_000
"""Half of what Linux allows a process: every compiled program takes some, and one too many ends the
process."""


_LOOKED_AT = [0.0]


def pytest_runtest_teardown(item, nextitem):
    """Forgets compiled programs before there are too many of them in one process.

    Counting them takes longer than most tests, and what took no time has compiled nothing.
    """
    now = time.process_time()
    if now - _LOOKED_AT[0] < 2.0 or not _MAPS.exists():
        return
    _LOOKED_AT[0] = now
    if _MAPS.read_bytes().count(b"\n") > _MAPS_ALLOWED:
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
