"""Answers about segments: kept through kills, and refused with the line that is wrong."""

import json
import os

import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.datasets.dataset import Dataset
from headwater.datasets.segments.answers import (
    AnswerFile,
    SegmentAnswers,
    possible_begins,
    read_answers,
    write_answers,
)
from headwater.datasets.segments.judges import judge_segments, random_pairs


def log(rewards=None) -> Dataset:
    """Three episodes of 5, 3 and 8 steps."""
    terminals = np.zeros(16, bool)
    terminals[[4, 7, 15]] = True
    return Dataset.from_arrays(
        np.arange(16.0)[:, None],
        np.zeros((16, 1)),
        np.arange(16.0) if rewards is None else rewards,
        terminals,
    )


def test_segments_lie_within_episodes():
    np.testing.assert_array_equal(possible_begins(log(), 4), [0, 1, 8, 9, 10, 11, 12])
    np.testing.assert_array_equal(possible_begins(log(), 8), [8])
    with pytest.raises(DataError, match=r"no episode has 9 steps \(the longest has 8\)"):
        possible_begins(log(), 9)
    with pytest.raises(SpecificationError, match="only one segment of 8 steps"):
        random_pairs(log(), 3, 8)


def test_pairs_are_drawn_from_all_segments_and_never_twice_the_same():
    first, second = random_pairs(log(), 2_000, 4, seed=3)
    assert np.all(first != second)
    # 7 places: all 42 ordered pairs occur.
    assert len(set(zip(first.tolist(), second.tolist()))) == 42
    few = random_pairs(log(), 5, 4, seed=3)
    np.testing.assert_array_equal(few, [first[:5], second[:5]])


def test_a_judge_goes_by_the_rewards_and_errs_as_often_as_it_is_told():
    def share_right(beyond, **more):
        found = judge_segments(log(), 2_000, 2, beyond=beyond, seed=1, **more)
        ends = np.asarray([5] * 5 + [8] * 3 + [16] * 8)
        worth = lambda b: np.arange(16.0)[b : min(b + 2 + beyond, ends[b])].sum()
        larger = np.asarray([worth(a) > worth(b) for a, b in zip(found.first, found.second)])
        told = np.asarray([a != "equal" for a in found.answers])
        said = np.asarray([a == "first" for a in found.answers])
        return np.mean(said[told] == larger[told])

    assert share_right(0) == 1.0
    assert share_right(3) == 1.0
    assert abs(share_right(0, errors=0.2) - 0.8) < 0.03
    close = judge_segments(log(), 500, 2, equal_within=2.0)
    near = np.abs(2.0 * (close.first - close.second)) <= 2.0
    assert [answer == "equal" for answer in close.answers] == near.tolist()
    with pytest.raises(SpecificationError, match=r"errors = 1.5 is not in \[0, 1\]"):
        judge_segments(log(), 5, 2, errors=1.5)


def test_answers_are_read_again_and_are_of_one_log(tmp_path):
    data = log()
    answers = judge_segments(data, 20, 3)
    path = write_answers(tmp_path / "answers.jsonl", answers, data)
    found = read_answers(path, data)
    np.testing.assert_array_equal(found.first, answers.first)
    np.testing.assert_array_equal(found.second, answers.second)
    assert (found.length, found.answers) == (3, answers.answers)
    # Other rewards are filled in afterwards; other observations are another log.
    read_answers(path, log(rewards=np.ones(16)))
    other = Dataset.from_arrays(
        np.arange(16.0)[:, None] + 1, np.zeros((16, 1)), np.zeros(16), data.terminals
    )
    with pytest.raises(DataError, match=r"answers.jsonl is of another log, with other obser"):
        read_answers(path, other)
    with pytest.raises(SpecificationError, match=r"answers.jsonl exists: choose another name"):
        write_answers(path, answers, data)


def test_skipped_pairs_teach_nothing():
    places = np.asarray([0, 1, 8])
    found = SegmentAnswers(places, places + 1, 3, ("skip", "second", "equal"))
    np.testing.assert_array_equal(found.preference, [np.nan, 0.0, 0.5])
    decided = found.decided()
    np.testing.assert_array_equal(decided.first, [1, 8])
    with pytest.raises(DataError, match="all 1 pairs were skipped"):
        SegmentAnswers(places[:1], places[1:2], 3, ("skip",)).decided()


PAIR = {"first": [0, 3], "second": [8, 11], "answer": "first"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({**PAIR, "second": [8, 12]}, "the first segment has 3 steps and the second 4: compare "
         "segments of equal length"),
        ({**PAIR, "first": [0, 4], "second": [8, 12]}, "the segments have 4 steps and those before "
         "3: keep another length in another file"),
        ({**PAIR, "answer": "left"}, 'the answer is "left", but it is one of first, second, equal '
         "and skip"),
        ({**PAIR, "answer": 1}, "the answer is 1, but it is one of"),
        ({"first": [0, 3], "answer": "first"}, "the second segment is missing or is no pair of"),
        ({**PAIR, "first": [3, 0]}, "the first segment is missing or is no pair of"),
        ({**PAIR, "first": [0, 3, 4]}, "the first segment is missing or is no pair of"),
        ({**PAIR, "first": [0, 2.5]}, "the first segment is missing or is no pair of"),
        ({**PAIR, "first": [3, 6]}, "the first segment is of rows 3 to 5, but its episode ends at "
         "row 4"),
        ({**PAIR, "second": [15, 18]}, "the second segment is of rows 15 to 17, but the log has 16 "
         "rows"),
        ({**PAIR, "second": [-3, 0]}, "the second segment is of rows -3 to -1, but the log has 16"),
        ([1, 2], "this is no JSON table: remove the line"),
        ("{", "this is no JSON table"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_said_with_its_line(tmp_path, line, sentence):
    path = write_answers(tmp_path / "a.jsonl", judge_segments(log(), 1, 3), log())
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n" + json.dumps(PAIR) + "\n")
    with pytest.raises(DataError) as caught:
        read_answers(path, log())
    assert f"a.jsonl, line 3: {sentence}" in str(caught.value)
    before = path.read_bytes()
    with pytest.raises(DataError, match="line 3"):
        AnswerFile(path, log())
    assert path.read_bytes() == before


def test_what_was_being_written_at_a_kill_is_cut_off_and_nothing_else(tmp_path):
    path = tmp_path / "a.jsonl"
    file = AnswerFile(path, log())
    file.append(0, 8, 3, "first")
    with pytest.raises(DataError, match=r"a.jsonl is being written by another process"):
        AnswerFile(path, log())
    # Synced before it returns: whoever reads now has it.
    assert read_answers(path, log()).answers == ("first",)
    file.append(1, 9, 3, "skip")
    with pytest.raises(DataError, match="its episode ends at row 7"):
        file.append(6, 9, 3, "first")
    file.close()
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        lines = whole[:size].count(b"\n")
        resumed = AnswerFile(path, log())
        held = () if resumed.answered is None else resumed.answered.answers
        assert held == ("first", "skip")[: max(lines - 1, 0)]
        resumed.append(2, 10, 3, "second")
        resumed.close()
        assert read_answers(path, log()).answers == (*held, "second")


@pytest.mark.parametrize("content", [b"my notes", b"PAR1\n\x00\xff", b'{"format": 3}\n{"x'])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(DataError, match="notes is no file of comparisons of segments"):
        AnswerFile(path, log())
    assert path.read_bytes() == content


def test_nothing_half_written_stays_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    file = AnswerFile(path, log())
    file.append(0, 8, 3, "first")
    before = path.read_bytes()
    really = os.write

    def full(handle, content):
        if handle != file._file:
            return really(handle, content)
        if len(content) > 5:
            return really(handle, content[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", lambda h, c: full(h, c if len(c) > 60 else c[:5]))
    with pytest.raises(OSError, match="No space"):
        file.append(1, 9, 3, "second")
    monkeypatch.undo()
    assert path.read_bytes() == before
    file.append(1, 9, 3, "second")
    file.close()
    assert read_answers(path, log()).answers == ("first", "second")
