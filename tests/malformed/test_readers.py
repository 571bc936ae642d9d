"""What is malformed is refused in one sentence: a sample of `drills/malformed_files.py`."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.core.errors import HeadwaterError

from .damage import make
from .readers import read
from .seeds import SEEDS

# Each is looked at in a process of its own first, which takes longer than all else.
NATIVE = ("hdf5", "hdf5_compressed", "hdf5_numbered", "hdf5_groups", "minari")
# Training the examples takes seconds; the drill has them.
TRAINED = ("run", "reward_run")
# Arrays in memory, whose types tests check before any reader does.
CHECKED = ("process",)
KINDS = [kind for kind in SEEDS if kind not in (*NATIVE, *TRAINED, *CHECKED)]


def outside(folder: Path) -> dict[str, bytes]:
    """What lies beside an input, and must stay as it is."""
    return {p.name: p.read_bytes() for p in sorted((folder / "outside").iterdir())}


def check(kind: str, number: int) -> None:
    """Reads one case; what it does not survive, or changes, fails the test."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        how, path = make(kind, number, folder, bombs=0.0)
        before, here = outside(folder), os.getcwd()
        os.chdir(folder)
        try:
            read(kind, path)
        except HeadwaterError as error:
            assert str(error).isprintable() and len(str(error)) > 10, (how, str(error))
        finally:
            os.chdir(here)
        assert not (folder / "canary").exists(), how
        assert outside(folder) == before, how


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(kind=st.sampled_from(KINDS), number=st.integers(0, 10**6))
def test_what_is_malformed_is_refused_in_a_sentence(kind, number):
    check(kind, number)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(kind=st.sampled_from(NATIVE), number=st.integers(0, 10**6))
def test_so_is_what_only_a_library_can_read(kind, number):
    check(kind, number)


def test_numbers_of_actions_that_nothing_can_count_are_refused():
    # Found by the sample above: a table whose only action is number 2^63 was read.
    check("parquet", 79588)


@pytest.mark.parametrize("kind", [k for k in SEEDS if k not in TRAINED])
def test_what_is_not_malformed_is_read(kind, tmp_path):
    read(kind, SEEDS[kind](tmp_path))
