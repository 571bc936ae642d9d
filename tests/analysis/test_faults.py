"""Evictions against exhaustive search, and against policies written request by request."""

import itertools
from collections import OrderedDict

import jax
import numpy as np
import pytest

from headwater.analysis.paging.faults import page_faults
from headwater.analysis.paging.flushing import FlushWhenAllZero
from headwater.analysis.paging.marking import MarkAndPredict, Marker, MarkZero, PredictiveMarker
from headwater.analysis.paging.policy import LRU, Belady
from headwater.analysis.paging.requests import perfect_advice, read_requests
from headwater.core.errors import DataError, SpecificationError
from headwater.testing import check_analysis

PAGES = np.random.default_rng(0).integers(0, 6, size=(4, 12))
SIZE = 3


def fewest_faults(pages, size) -> int:
    """By trying every eviction at every fault."""
    reached = {frozenset(): 0}
    for page in pages.tolist():
        following: dict[frozenset, int] = {}
        for cache, cost in reached.items():
            if page in cache:
                choices = [(cache, cost)]
            elif len(cache) < size:
                choices = [(cache | {page}, cost + 1)]
            else:
                choices = [((cache - {gone}) | {page}, cost + 1) for gone in cache]
            for kept, paid in choices:
                following[kept] = min(paid, following.get(kept, paid))
        reached = following
    return min(reached.values())


def least_recently_used(pages, size) -> list[bool]:
    cache: OrderedDict[int, None] = OrderedDict()
    faults = []
    for page in pages.tolist():
        faults.append(page not in cache)
        cache[page] = None
        cache.move_to_end(page)
        if len(cache) > size:
            cache.popitem(last=False)
    return faults


def test_lru_is_an_ordered_dictionary():
    expected = np.asarray([least_recently_used(pages, SIZE) for pages in PAGES], float)

    def found(pages):
        return page_faults(LRU(), pages, cache_size=SIZE).astype(float)

    check_analysis(
        page_faults,
        {"policy": LRU(), "pages": PAGES, "cache_size": SIZE},
        expected,
        rows={"pages": 0},
    )
    # Numbers of pages mean nothing, and one sequence alone is served as among others.
    np.testing.assert_array_equal(found(1_000_000_007 * PAGES), expected)
    np.testing.assert_array_equal(found(PAGES[1]), expected[1])


def test_beladys_faults_are_the_fewest_and_perfect_bits_reach_them():
    fewest = [fewest_faults(pages, SIZE) for pages in PAGES]
    bits = perfect_advice("discard", PAGES, SIZE)
    for policy, advice in ((Belady(), None), (FlushWhenAllZero(), bits), (MarkZero(), bits)):
        faults = page_faults(policy, PAGES, cache_size=SIZE, advice=advice)
        assert faults.sum(-1).tolist() == fewest, type(policy).__name__


def test_without_knowledge_bits_change_nothing():
    """Bits that are all alike leave MARKER; its draws are those of the same key."""
    plain = page_faults(Marker(), PAGES, cache_size=SIZE)
    for bit in (0.0, 1.0):
        said = np.full(PAGES.shape, bit)
        np.testing.assert_array_equal(
            page_faults(MarkAndPredict(), PAGES, cache_size=SIZE, advice=said), plain
        )
    never = page_faults(MarkZero(), PAGES, cache_size=SIZE, advice=np.zeros(PAGES.shape))
    np.testing.assert_array_equal(never, plain)
    assert page_faults(MarkZero(), PAGES, cache_size=SIZE, advice=np.ones(PAGES.shape)).all()
    flushed = page_faults(FlushWhenAllZero(), [0, 1, 2, 0, 1], cache_size=2, advice=[0, 0, 0, 0, 0])
    assert flushed.tolist() == [True, True, True, True, True]


def test_marker_faults_as_often_as_its_draws_do():
    """Two places and three pages: the fourth request misses its page with chance one half."""
    sequence = np.tile([0, 1, 2, 0], (2_000, 1))
    faults = page_faults(Marker(), sequence, cache_size=2, key=jax.random.key(3))
    assert faults[:, :3].all() and abs(faults[:, 3].mean() - 0.5) < 0.05


def predictive_marker(pages, times, size, random) -> list[bool]:
    """Request by request, with chains as lists."""
    cache, marked, old, said, chains, faults = [], set(), set(), {}, [], []
    for page, time in zip(pages.tolist(), times.tolist()):
        faults.append(page not in cache)
        if page not in cache:
            if len(cache) == size:
                if marked == set(cache):
                    marked, old, chains = set(), set(cache), []
                chain = next((c for c in chains if page in old and c[-1] == page), None)
                if chain is None:
                    chain = []
                    chains.append(chain)
                unmarked = [p for p in cache if p not in marked]
                trusted = len(chain) + 1 <= sum(1 / i for i in range(1, size + 1))
                gone = max(unmarked, key=lambda p: said[p]) if trusted else random.choice(unmarked)
                chain.append(gone)
                cache[cache.index(gone)] = page
            else:
                cache.append(page)
        marked.add(page)
        said[page] = time
    return faults


def test_predictive_marker_is_its_pseudocode():
    random = np.random.default_rng(1)
    pages = random.integers(0, 5, size=(8, 40))
    times = random.uniform(0.0, 40.0, size=pages.shape)
    # Two places: chains of at most one eviction are trusted, and one page is left without a mark.
    found = page_faults(PredictiveMarker(), pages, cache_size=2, advice=times)
    expected = [predictive_marker(p, t, 2, random) for p, t in zip(pages, times)]
    np.testing.assert_array_equal(found, expected)
    # Three places: with draws, the mean over keys.
    many = np.repeat(pages[:1], 3_000, 0)
    found = page_faults(
        PredictiveMarker(), many, cache_size=3, advice=np.repeat(times[:1], 3_000, 0)
    )
    expected = [sum(predictive_marker(pages[0], times[0], 3, random)) for _ in range(3_000)]
    assert abs(found.sum(-1).mean() - np.mean(expected)) < 0.15


def test_perfect_bits_are_what_they_say():
    pages = [0, 1, 2, 0, 2, 1]
    assert perfect_advice("next", pages, 2).tolist() == [3, 5, 4, 6, 6, 6]
    # Phases: 0 1 | 2 0 | 2 1 counted anew: 0 1, 2 0 2, 1.
    assert perfect_advice("phase", pages, 2).tolist() == [0, 1, 1, 1, 1, 1]
    assert perfect_advice("discard", pages, 2).tolist() == [0, 1, 0, 1, 0, 0]
    with pytest.raises(SpecificationError, match="no advice of the kind 'exact'"):
        perfect_advice("exact", pages, 2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cache_size": 9}, "cache_size = 9: only 3 different pages are ever requested, so that "),
        ({"cache_size": 0}, "cache_size = 0: it must be at least 1"),
        ({"pages": [0, -4, 2]}, "request 2: page -4 is negative: pages are numbered from 0 on"),
        ({"pages": [[0, 1], [2, 0.5]]}, "request 2 of sequence 2: page 0.5 is not a whole number"),
        ({"pages": []}, r"pages have shape \(0,\) and type float64: whole numbers are needed"),
        ({"advice": [0, 1]}, r"advice has shape \(2,\) and type int64, but requests have shape "
         r"\(5,\): give one number for each"),
        ({"advice": [0, 1, 2, 0, 0]}, "request 3: advice 2 is neither 0 nor 1"),
        ({"advice": None}, "MarkZero reads advice, a bit for each request, 1 where .*: give it"),
        ({"policy": LRU()}, "LRU reads no advice: leave it out"),
        ({"policy": PredictiveMarker(), "advice": [0, 1, np.inf, 0, 0]}, "request 3: advice inf is "
         "not finite"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused(changes, sentence):
    given = {"policy": MarkZero(), "pages": [0, 1, 2, 1, 0], "cache_size": 2, "advice": [0] * 5}
    with pytest.raises((DataError, SpecificationError), match=sentence):
        page_faults(**{**given, **changes})


def test_a_column_of_a_table_is_a_sequence(tmp_path):
    path = tmp_path / "requests.csv"
    names = ["/a", "/b", "/a", "/c"]
    rows = [f"{name},{i % 2}" for i, name in enumerate(names)]
    path.write_text("\n".join(["url,bit", *rows]) + "\n", encoding="utf-8")
    pages, bits = read_requests(path, "url", "bit")
    assert pages.tolist() == [0, 1, 0, 2] and bits is not None and bits.tolist() == [0, 1, 0, 1]
    assert read_requests(path, "bit")[0].tolist() == [0, 1, 0, 1]
    with pytest.raises(DataError, match=r"requests\.csv: unknown column 'urls': did you mean url"):
        read_requests(path, "urls")
    with pytest.raises(DataError, match=r"requests\.csv: column 'url' holds texts, but advice"):
        read_requests(path, "bit", "url")
    path.write_text("page\n3\n-1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"requests\.csv: request 2: page -1 is negative"):
        read_requests(path)


def test_every_policy_serves_every_small_sequence():
    """The page is there, or was let go: at most as many pages as places, and no fault on a hit."""
    pages = np.asarray(list(itertools.product(range(3), repeat=6)))
    optimum = page_faults(Belady(), pages, cache_size=2).sum(-1)
    random = np.random.default_rng(2)
    for policy in (LRU(), Marker(), MarkAndPredict(), MarkZero(), FlushWhenAllZero()):
        advice = None if policy.advice == "none" else random.integers(0, 2, size=pages.shape)
        faults = page_faults(policy, pages, cache_size=2, advice=advice)
        assert np.all(faults.sum(-1) >= optimum) and faults[:, 0].all()
