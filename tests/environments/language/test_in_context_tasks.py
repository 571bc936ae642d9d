"""Labelled points, read as text by hand."""

import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.language.in_context_tasks import LabelledPoints


def read(text):
    """Points with their labels, points that are asked about, and the answers."""
    shown, answers = text[:-1].split(">")
    *pieces, query = shown.split(";")
    labelled = [(ord(piece[0]) - ord("A"), piece[2]) for piece in pieces]
    assert all(piece[1] == "=" for piece in pieces)
    return labelled, {piece[3:] for piece in pieces}, query, answers


def test_a_line_divides_the_points_of_each_text(key):
    data = LabelledPoints(count=12, asked=2).texts(40, key=key)
    directions = np.linspace(0, 2 * np.pi, 721)
    shares = []
    for row, response in zip(np.asarray(data.tokens), np.asarray(data.response)):
        labelled, copies, query, answers = read(LabelledPoints().spell(row))
        assert len(labelled) == 12 and copies == {""} and len(query) == len(answers) == 2
        labelled += [(ord(point) - ord("A"), answer) for point, answer in zip(query, answers)]
        point, label = (np.asarray(x) for x in zip(*labelled))
        # In some direction all points of one label lie beyond those of the other.
        along = (
            np.cos(directions) * (point % 4)[:, None] + np.sin(directions) * (point // 4)[:, None]
        )
        minus = np.where(label[:, None] == "-", along, -np.inf).max(axis=0)
        plus = np.where(label[:, None] == "+", along, np.inf).min(axis=0)
        assert (minus < plus + 1e-2).any()
        shares.append(np.mean(label == "+"))
        assert response.tolist() == [False] * (len(row) - 3) + [True] * 3
    assert 0.3 < np.mean(shares) < 0.7 and np.std(shares) > 0.15


def test_the_points_that_are_asked_about_are_repeated_on_demand(key):
    plain, repeated = LabelledPoints(3, 2), LabelledPoints(3, 2, repeated=True)
    for one, other in zip(plain.texts(5, key=key).tokens, repeated.texts(5, key=key).tokens):
        labelled, _, query, answers = read(plain.spell(one))
        assert read(repeated.spell(other)) == (labelled, {query}, "", answers)
    assert repeated.demonstration_tokens == 6
    with pytest.raises(SpecificationError, match="0 labelled points and 1 without a label"):
        LabelledPoints(count=0)
