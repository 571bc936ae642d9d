"""Evaluations of earlier tasks: from rows and files to tables in the unit cube."""

import numpy as np
import pytest

import headwater as hw
from headwater.core.errors import DataError
from headwater.core.problems.search_space import SearchSpace
from headwater.datasets.black_boxes.earlier_tasks import read_earlier_tasks, write_earlier_tasks

SPACE = SearchSpace((1.0, -1.0), (100.0, 1.0), logarithmic=(True, False))
FIRST = [[1.0, 0.0], [10.0, 1.0]], [0.5, -2.0]
SECOND = [[100.0, -1.0]], [3.0]


def test_tables_are_in_the_unit_cube_and_say_which_rows_there_are():
    tasks = hw.EarlierTasks.of(SPACE, [FIRST, SECOND])
    found = tasks.queries
    np.testing.assert_allclose(found.point[0], [[0.0, 0.5], [0.5, 1.0]], atol=1e-6)
    np.testing.assert_allclose(found.point[1, 0], [1.0, 0.0], atol=1e-6)
    assert found.known.tolist() == [[True, True], [True, False]]
    assert found.value.tolist() == [[0.5, -2.0], [3.0, 0.0]]


def test_an_archive_holds_everything(tmp_path):
    tasks = hw.EarlierTasks.of(SPACE, [FIRST, SECOND])
    write_earlier_tasks(tmp_path / "tasks.npz", tasks)
    again = read_earlier_tasks(tmp_path / "tasks.npz")
    assert again.space.mismatch(SPACE) is None or "whole" in again.space.mismatch(SPACE)
    for name in ("point", "value", "known"):
        ours, theirs = getattr(tasks.queries, name), getattr(again.queries, name)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_table_has_a_column_for_the_task(tmp_path):
    path = tmp_path / "tasks.csv"
    path.write_text("task,point_0,value\nb,2.0,1.0\na,4.0,3.0\nb,3.0,2.0\n", encoding="utf-8")
    found = read_earlier_tasks(path)
    assert (found.space.low, found.space.high) == ((2.0,), (4.0,))
    assert found.queries.value.tolist() == [[1.0, 2.0], [3.0, 0.0]]
    np.testing.assert_allclose(found.queries.point[..., 0], [[0.0, 0.5], [1.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([], "there is no earlier task"),
        ([FIRST, ([], [])], "task 2 has points of shape"),
        ([FIRST, (np.zeros((0, 2)), [])], "task 2 has no evaluation"),
        ([([[1.0, 0.0]], [1.0, 2.0])], "task 1 has points of shape"),
        ([([[1.0, 0.0], [2.0, 0.0]], [1.0, np.nan])], "task 1: row 2 has a value that is not"),
        ([([[1.0, 9.0]], [1.0])], "task 1: row 1 lies outside of the space"),
        ([([["a", "b"]], [1.0])], "task 1 is no pair of points and values"),
    ],
)
def test_what_is_no_table_is_said(tables, message):
    with pytest.raises(DataError, match=message):
        hw.EarlierTasks.of(SPACE, tables)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task,value\n1,2.0\n", "there is no 'point_0'"),
        ("point_0,value\n1,2.0\n", "there is no 'task'"),
        ("task,point_0,value\n1,inf,2.0\n", "a point is not finite"),
        ("task,point_0,value\n1,1.0,x\n", "'value' has type"),
    ],
)
def test_what_is_no_file_of_tasks_is_said_with_its_name(text, message, tmp_path):
    path = tmp_path / "tasks.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"tasks\.csv: {message}"):
        read_earlier_tasks(path)
