"""Whatever a log says of where its episodes end is put together, or contradictions are refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.core.errors import DataError, SpecificationError
from headwater.datasets.columns.blocks import whole_episodes
from headwater.datasets.columns.finish import finish
from headwater.datasets.columns.options import Options
from headwater.datasets.episodes.ends import EndOptions, Signal, combine
from headwater.datasets.metadata import summed_counts
from headwater.datasets.read import load, load_blocks
from headwater.datasets.reading import reading_rows
from headwater.datasets.write import convert, write

LENGTHS, TERMINAL = (3, 1, 4, 2), (True, False, False, True)


def signals(lengths=LENGTHS, terminal=TERMINAL):
    """Every signal of the same episodes, by the usual name of its column."""
    rows = sum(lengths)
    last, first = np.zeros(rows, bool), np.zeros(rows, bool)
    last[np.cumsum(lengths) - 1] = True
    first[np.cumsum((0, *lengths[:-1]))] = True
    ended = np.repeat(terminal, lengths)
    return {
        "terminals": last & ended,
        "timeouts": last & ~ended,
        "dones": last,
        "is_last": last,
        "is_first": first,
        "eps_id": np.repeat(np.arange(len(lengths))[::-1] * 7 + 3, lengths),
        "step": np.concatenate([np.arange(n) for n in lengths]),
    }


ROLE = {
    "terminals": "terminals",
    "timeouts": "truncations",
    "dones": "dones",
    "is_last": "ends",
    "is_first": "starts",
    "eps_id": "episodes",
    "step": "steps",
}


def combined(columns, **said):
    rows = len(next(iter(columns.values())))
    found = [Signal(ROLE[name], name, values) for name, values in columns.items()]
    return combine(found, rows, EndOptions(**said))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_sufficient_set_of_consistent_signals_gives_the_same_episodes(data):
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    terminal = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    every = signals(lengths, terminal)
    chosen = data.draw(st.sets(st.sampled_from(sorted(every)), min_size=1))
    boundaries = chosen & {"dones", "is_last", "is_first", "eps_id"}
    # A single counter that never restarts says nothing of where its episode ends.
    if "step" in chosen and np.any(every["step"] > 0) and len(lengths) > 1:
        boundaries.add("step")
    # What says that the process ended: a flag, or what is left of the ends without time limits.
    meaning = "terminals" in chosen or ("timeouts" in chosen and chosen & {"dones", "is_last"})
    if not meaning or not (boundaries or {"terminals", "timeouts"} <= chosen):
        return
    ends = combined({name: every[name] for name in chosen})
    np.testing.assert_array_equal(ends.terminals, every["terminals"])
    expected = every["timeouts"]
    truncations = np.zeros_like(expected) if ends.truncations is None else ends.truncations
    np.testing.assert_array_equal(truncations, expected)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_flag_that_is_moved_is_a_contradiction_or_known_to_be_one_cut_more(data):
    """One wrong row among redundant signals never passes as if nothing were wrong."""
    every = signals()
    name = data.draw(st.sampled_from(["terminals", "timeouts", "dones", "is_last", "is_first"]))
    inside = [0, 1, 4, 5, 6, 8] if name != "is_first" else [1, 2, 5, 6, 7, 9]
    row = data.draw(st.sampled_from(inside))
    every[name] = every[name].copy()
    every[name][row] = True
    with pytest.raises(DataError, match="two columns contradict each other on where an episode"):
        combined(every)


def test_done_but_not_terminal_is_truncated():
    every = signals()
    ends = combined({"terminals": np.zeros(10, bool), "dones": every["dones"]})
    assert not ends.terminals.any()
    np.testing.assert_array_equal(ends.truncations, every["dones"])


def test_done_where_others_end_too_means_terminal():
    every = signals()
    ends = combined({"dones": every["terminals"], "is_last": every["is_last"]})
    np.testing.assert_array_equal(ends.terminals, every["terminals"])
    np.testing.assert_array_equal(ends.truncations, every["timeouts"])


def test_dones_that_leave_out_time_limits_are_understood_and_a_mixture_is_not():
    every = signals()
    ends = combined({"dones": every["terminals"], "timeouts": every["timeouts"]})
    np.testing.assert_array_equal(ends.terminals, every["terminals"])
    np.testing.assert_array_equal(ends.truncations, every["timeouts"])
    mixed = every["terminals"].copy()
    mixed[3] = True
    with pytest.raises(DataError, match=r"at row 7: timeouts is true at row 7, but dones is false"):
        combined({"dones": mixed, "timeouts": every["timeouts"]})


@pytest.mark.parametrize("name", ["eps_id", "step", "is_first"])
def test_a_change_without_an_end_is_truncated_or_what_the_user_says(name):
    every = signals()
    alone = {name: every[name]}
    with pytest.raises(
        DataError, match=r"no column says .* episodes_end='terminal' or 'truncated'"
    ):
        combined(alone)
    ends = combined(alone, episodes_end="terminal")
    np.testing.assert_array_equal(ends.terminals, every["dones"])
    assert not np.any(ends.truncations)
    for said in ({"episodes_end": "truncated"}, {"never_terminal": True}):
        ends = combined(alone, **said)
        assert not ends.terminals.any()
        np.testing.assert_array_equal(ends.truncations, every["dones"])
        assert ends.unmarked.sum() == 4
    # Beside a column of terminals only what that leaves open is cut.
    ends = combined({**alone, "terminals": every["terminals"]})
    np.testing.assert_array_equal(ends.truncations, every["timeouts"])
    assert np.flatnonzero(ends.unmarked).tolist() == [3, 7]


def test_every_row_an_episode():
    every = signals()
    ends = combined(every, episode_per_row=True)
    assert ends.terminals.all() and not np.any(ends.truncations) and set(ends.ignored) == set(every)
    ends = combined(every, episode_per_row=True, episodes_end="truncated")
    assert np.all(ends.truncations) and not ends.terminals.any()


def changed(name, row, value):
    every = signals()
    column = every[name].copy()
    column[row] = value
    return {**every, name: column}


@pytest.mark.parametrize(
    ("name", "row", "value", "against", "message"),
    [
        (
            "terminals",
            5,
            True,
            "eps_id",
            "at row 5: terminals is true at row 5, but eps_id is 10 in the next row too; correct "
            "one of them, or leave one out, as in columns={'unused': 'eps_id'} (`--column "
            "unused=eps_id`)",
        ),
        ("dones", 5, True, "step", "dones is true at row 5, but step goes on from 1 to 2"),
        (
            "timeouts",
            0,
            True,
            "is_first",
            "timeouts is true at row 0, but is_first is false at row 1",
        ),
        ("terminals", 1, True, "dones", "terminals is true at row 1, but dones is false at row 1"),
        ("dones", 6, True, "is_last", "dones is true at row 6, but is_last is false at row 6"),
        ("is_first", 5, True, "eps_id", "is_first is true at row 5, but eps_id is 10 in the next"),
        ("step", 5, 0, "eps_id", "step restarts from 0 to 0 after row 4, but eps_id is 10 in the"),
    ],
)
def test_contradictions_are_refused_with_the_row(name, row, value, against, message):
    columns = changed(name, row, value)
    with pytest.raises(DataError) as raised:
        combined({name: columns[name], against: columns[against]})
    assert str(raised.value).startswith("two columns contradict each other on where an episode")
    assert message in str(raised.value)


def test_two_columns_of_one_kind_agree_or_are_refused():
    every = signals()
    both = [Signal("terminals", "terminals", every["terminals"])]
    both.append(Signal("terminals", "terminateds", every["terminals"]))
    assert combine(both, 10, EndOptions()).terminals.sum() == 2
    both[1] = both[1]._replace(values=every["dones"])
    with pytest.raises(
        DataError, match=r"at row 3 \(and at 1 more\): terminals is false there, but"
    ):
        combine(both, 10, EndOptions())
    # Named by the user, either of them is meant.
    either = [signal._replace(declared=True) for signal in both]
    np.testing.assert_array_equal(combine(either, 10, EndOptions()).terminals, every["dones"])


def test_two_numbers_of_an_episode_agree_unless_the_user_names_both():
    worker, number = np.repeat([0, 1], [4, 6]), np.repeat([0, 1, 0, 1], LENGTHS)
    pair = [Signal("episodes", "run_id", worker), Signal("episodes", "episode", number)]
    with pytest.raises(DataError, match="run_id does not change, but episode changes; correct one"):
        combine(pair, 10, EndOptions(never_terminal=True))
    pair = [signal._replace(declared=True) for signal in pair]
    ends = combine(pair, 10, EndOptions(never_terminal=True))
    assert np.flatnonzero(ends.truncations).tolist() == [2, 3, 7, 9]
    with pytest.raises(DataError, match=r"episode 0 begins again at row 4.*column episode\)"):
        combine(pair[1:], 10, EndOptions(never_terminal=True))


def test_a_counter_that_never_restarts_says_nothing():
    every = signals()
    ends = combined({"terminals": every["terminals"], "step": np.arange(10)})
    assert ends.truncations is None and ends.ignored == {"step": "it never restarts"}
    text = np.array([f"at {i % 3}" for i in range(10)])
    ends = combined({"terminals": every["terminals"], "step": text})
    assert ends.ignored == {"step": "it is text and counts no steps"}


def test_a_counter_that_stands_still_is_refused():
    step = np.array([0, 1, 2, 0, 1, 1, 2, 3, 0, 1])
    with pytest.raises(DataError, match="step is 1 at row 4 and at row 5: a counter of steps goes"):
        combined({"step": step}, never_terminal=True)


def test_never_terminal_and_a_terminal_row_contradict_each_other():
    with pytest.raises(DataError, match=r"terminals is true at row 2 \(and 1 more\): correct the"):
        combined(signals(), never_terminal=True)
    with pytest.raises(SpecificationError, match="unknown meaning 'ended': known meanings are"):
        combined(signals(), episodes_end="ended")


def table(path, **changes):
    """A log of four episodes without successors, with reward 1 in every row."""
    every = signals() | changes
    columns = {
        "obs": [[float(i), 0.5] for i in range(10)],
        "action": np.arange(10) % 3,
        "reward": np.ones(10),
    }
    columns |= {name: values for name, values in every.items() if values is not None}
    pyarrow.parquet.write_table(pa.table({k: pa.array(v) for k, v in columns.items()}), path)
    return path


NONE = dict.fromkeys(ROLE)


def test_names_of_other_libraries_are_read_with_their_successors(tmp_path):
    every = signals()
    path = table(
        tmp_path / "log.parquet",
        **NONE
        | {
            "terminateds": every["terminals"],
            "truncateds": every["timeouts"],
            "eps_id": every["eps_id"],
            "t": every["step"],
            "new_obs": [[i + 1.0, 0.5] for i in range(10)],
            "action_logp": np.zeros(10),
        },
    )
    data = load(path)
    assert data.size == 10 and data.episode_lengths().tolist() == list(LENGTHS)
    np.testing.assert_array_equal(data.next_observations[:, 0], np.arange(10) + 1.0)
    np.testing.assert_array_equal(data.truncations, every["timeouts"])
    reading = data.metadata["reading"]
    assert reading["columns"]["steps"] == ["t"] and reading["unused"] == []
    assert reading["columns"]["log_propensities"] == ["action_logp"]


def test_blocks_cut_where_the_whole_is_cut(tmp_path):
    for name in ("eps_id", "step", "is_first"):
        path = table(tmp_path / "log.parquet", **NONE | {name: signals()[name]})
        whole = load(path, episodes_end="terminal")
        assert whole.episode_lengths().tolist() == list(LENGTHS) and whole.terminals.sum() == 4
        blocks = list(load_blocks(path, 2, Options(episodes_end="terminal")))
        assert len(blocks) > 1
        for column in ("terminals", "truncations", "rewards"):
            together = np.concatenate([getattr(block, column) for block in blocks])
            np.testing.assert_array_equal(together, getattr(whole, column))
        assert sum(block.metadata["unmarked_ends"] for block in blocks) == 4


def test_a_column_that_looks_like_a_number_is_asked_for_where_nothing_else_is(tmp_path):
    stays = signals()["eps_id"]
    path = table(tmp_path / "log.parquet", **NONE | {"stay_id": stays})
    with pytest.raises(DataError) as raised:
        load(path, never_terminal=True)
    assert str(raised.value) == (
        f"{path}: all 10 rows would be one episode, but the column 'stay_id' looks like the number "
        "of an episode: say columns={'episodes': 'stay_id'} (`--column episodes=stay_id`), or, if "
        "it is not, columns={'unused': 'stay_id'} (`--column unused=stay_id`)"
    )
    assert load(path, never_terminal=True, columns={"unused": "stay_id"}).episodes == 1
    data = load(path, columns={"episodes": "stay_id"}, episodes_end="terminal")
    assert data.episode_lengths().tolist() == list(LENGTHS) and data.terminals.sum() == 4
    # Where others say where episodes end, it is named.
    path = table(tmp_path / "log.parquet", **{**signals(), "stay_id": stays})
    assert load(path).metadata["reading"]["looks"] == {"stay_id": "the number of an episode"}


def test_what_is_dropped_is_counted_with_its_reward(tmp_path):
    data = load(table(tmp_path / "log.parquet"))
    assert data.size == 8
    counts = {name: data.metadata[name] for name in data.metadata if name.startswith("dropped")}
    assert counts == {"dropped_rows": 2, "dropped_reward_rows": 2, "dropped_reward_sum": 2.0}


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("isLastFrame", "the end of an episode"),
        ("game over", "the end of an episode"),
        ("Discharge", "the end of an episode"),
        ("reset", "the start of an episode"),
        ("session_id", "the number of an episode"),
        ("hadm_id", "the number of an episode"),
        ("next_glucose", "what follows a row"),
        ("next_action", None),
        ("next.success", "the end of an episode"),
        ("timestamps_utc", None),
        ("weekend", None),
        ("item_id", None),
        ("blast", None),
    ],
)
def test_what_names_look_like(tmp_path, name, looks):
    path = table(tmp_path / "log.parquet", **{**signals(), name: np.zeros(10)})
    assert load(path).metadata["reading"]["looks"].get(name) == looks


def test_what_was_read_as_what_is_told_in_words(tmp_path):
    every = signals()
    path = table(
        tmp_path / "log.parquet",
        **NONE | {"terminals": every["terminals"], "eps_id": every["eps_id"], "t": np.arange(10)},
        next_glucose=np.zeros(10),
        charttime=np.zeros(10),
    )
    data = load(path)
    assert reading_rows(data.metadata) == [
        (
            "columns used",
            "observations: obs; actions: action; rewards: reward; terminals: terminals; "
            "episodes: eps_id",
        ),
        ("not used", "charttime"),
        ("not used", "t: it never restarts"),
        (
            "not used",
            "next_glucose, which looks like what follows a row: if it is, say "
            "columns={'next_observations': 'next_glucose'} (`--column "
            "next_observations=next_glucose`)",
        ),
        (
            "ends",
            "2 ends of episodes show in a number, a start or a counter alone, and are taken as "
            "truncated; if the process ended there, say episodes_end='terminal' (`--episodes-end "
            "terminal`)",
        ),
        (
            "dropped",
            "2 last rows of truncated episodes had no known successor and were dropped; 2 of them "
            "had rewards, together 2",
        ),
    ]
    assert (
        "ends",
        "2 ends of episodes show in a number, a start or a counter alone, and are "
        "terminal, as you say",
    ) in reading_rows(load(path, episodes_end="terminal").metadata)
    # What was read of one file is not said of another that is written from it.
    again = load(write(data, tmp_path / "again.npz"))
    assert again.metadata["reading"]["unused"] == []
    assert again.metadata["dropped_rows"] == 2


def test_converting_tells_the_same_whole_or_in_blocks(tmp_path):
    path = table(tmp_path / "log.parquet", **NONE | {"eps_id": signals()["eps_id"]})
    readings = []
    for target, rows in (("whole.npz", 100), ("columns", 2)):
        options = {"never_terminal": True}
        convert(path, tmp_path / target, options=options, rows=rows, tell=readings.append)
    assert reading_rows(readings[0]) == reading_rows(readings[1])
    assert dict(reading_rows(readings[0]))["dropped"].startswith(
        "4 last rows of truncated episodes"
    )


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=8).filter(lambda n: max(n) > 1),
    rows=st.integers(1, 6),
    name=st.sampled_from(["eps_id", "is_first", "is_last"]),
)
def test_blocks_hold_what_the_whole_does_even_where_they_alone_would_hold_nothing(
    lengths, rows, name
):
    values = signals(lengths, [False] * len(lengths))[name]
    chunk = {
        "observations": np.arange(values.size, dtype=np.float32)[:, None],
        "actions": np.zeros(values.size, int),
        "rewards": np.arange(values.size) + 1.0,
        ROLE[name]: values,
    }
    options = Options(never_terminal=True)
    whole = finish(chunk, options)
    pieces = [
        {role: column[i : i + 2] for role, column in chunk.items()}
        for i in range(0, values.size, 2)
    ]
    blocks = [block for _, block in whole_episodes(iter(pieces), options, rows)]
    for column in ("observations", "rewards", "truncations", "next_observations"):
        together = np.concatenate([getattr(block, column) for block in blocks])
        np.testing.assert_array_equal(together, getattr(whole, column))
    counts = summed_counts([block.metadata for block in blocks])
    assert counts == {name: whole.metadata[name] for name in counts}
    assert counts["dropped_rows"] == len(lengths)


CONTINUES = {**ROLE, "masks": "continues", "discount": "continues"}


def continued(columns, *declared, **said):
    found = [
        Signal(CONTINUES[name], name, values, name in declared) for name, values in columns.items()
    ]
    return combine(found, sum(LENGTHS), EndOptions(**said))


def test_a_mask_says_which_ends_are_terminal():
    known = signals()
    masks = 1.0 - known["terminals"]
    found = continued({"dones": known["dones"], "masks": masks})
    np.testing.assert_array_equal(found.terminals, known["terminals"])
    np.testing.assert_array_equal(found.truncations, known["timeouts"])
    found = continued({"is_last": known["is_last"], "discount": 0.99 * masks}, "discount")
    np.testing.assert_array_equal(found.terminals, known["terminals"])


def test_a_mask_that_denies_terminals_is_asked_about():
    known = signals()
    columns = {"terminals": known["dones"], "masks": 1.0 - known["terminals"]}
    with pytest.raises(DataError, match="as in OGBench") as raised:
        continued(columns)
    assert "--column ends=terminals --column continues=masks" in str(raised.value)
    found = continued(columns, "masks")
    np.testing.assert_array_equal(found.terminals, known["terminals"])
    np.testing.assert_array_equal(found.truncations, known["timeouts"])


def test_a_mask_that_says_something_else_is_not_used():
    known = signals()
    columns = {"terminals": known["terminals"], "timeouts": known["timeouts"]}
    for masks, reason in ((np.ones(10), "it is nowhere 0"), (np.zeros(10), "it is 0 at row 0")):
        found = continued({**columns, "masks": masks})
        np.testing.assert_array_equal(found.terminals, known["terminals"])
        assert found.ignored["masks"].startswith(reason)
    with pytest.raises(DataError, match=r"contradict each other.*masks is 0 there"):
        continued({**columns, "masks": np.zeros(10)}, "masks")


@pytest.mark.parametrize(("name", "said"), [("dones", {"dones": "terminal"}), ("eps_id", {})])
def test_a_mask_says_the_same_in_blocks_of_which_some_hold_no_terminal_row(tmp_path, name, said):
    """Also against what is said for want of something better."""
    known = signals(terminal=(True, False, False, False))
    masks = 1.0 - known["terminals"]
    path = table(tmp_path / "log.parquet", **NONE | {name: known[name], "masks": masks})
    whole = load(path, **said)
    assert np.flatnonzero(whole.terminals).tolist() == [2]
    # Of four rows, so that the last block is what is left.
    blocks = list(load_blocks(path, 4, Options(**said)))
    assert len(blocks) > 1
    for column in ("terminals", "truncations", "rewards"):
        together = np.concatenate([getattr(block, column) for block in blocks])
        np.testing.assert_array_equal(together, getattr(whole, column))


def test_a_mask_that_shows_nothing_in_the_first_of_several_blocks_is_asked_about(tmp_path):
    known = signals()
    columns = {"dones": known["dones"], "masks": np.ones(10)}
    path = table(tmp_path / "log.parquet", **NONE | columns)
    with pytest.raises(DataError, match="masks is nowhere 0 in the first") as raised:
        list(load_blocks(path, 2, Options(dones="terminal")))
    assert "--column continues=masks" in str(raised.value)
    assert load(path, dones="terminal").terminals.sum() == 4
    unused = Options(dones="terminal", columns={"unused": "masks"})
    assert sum(block.terminals.sum() for block in load_blocks(path, 2, unused)) == 4


def test_what_looks_like_a_mask_is_named_where_nothing_says_how_episodes_end(tmp_path):
    path = tmp_path / "log.npz"
    known = signals()
    arrays = {
        "observations": np.arange(10.0)[:, None],
        "actions": np.linspace(-1, 1, 10)[:, None],
        "rewards": np.ones(10),
        "eps_id": known["eps_id"],
        "not_done": 1 - known["terminals"],
    }
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="'continues': 'not_done'"):
        load(path)
    np.savez(path, **arrays, last_row=known["is_last"])
    with pytest.raises(DataError, match="'last_row' looks as if it said where an episode is done"):
        load(path)
    data = load(path, columns={"continues": "not_done"})
    assert np.flatnonzero(data.terminals).size == sum(TERMINAL)


def test_flags_named_after_what_comes_next_end_the_step_that_they_stand_in(tmp_path):
    last = np.isin(np.arange(10), (3, 9))
    path = table(
        tmp_path / "log.parquet",
        **NONE,
        **{"next.done": last, "next.truncated": np.arange(10) == 3, "next.success": last},
    )
    data = load(path)
    assert np.flatnonzero(data.terminals).tolist() == [8]
    assert np.flatnonzero(data.truncations).tolist() == [2] and data.size == 9


def test_a_time_is_named_only_where_nothing_counts(tmp_path):
    path = table(tmp_path / "log.parquet", **signals(), timestamp=np.arange(10.0), ep=np.zeros(10))
    reading = load(path, columns={"unused": ["ep"]}).metadata["reading"]
    assert "timestamp" not in reading["looks"] and "timestamp" in reading["unused"]
    only = NONE | {"terminals": signals()["dones"]}
    reading = load(table(path, **only, timestamp=np.arange(10.0))).metadata["reading"]
    assert reading["looks"] == {"timestamp": "the step within an episode"}
