"""Sentences about people, counted."""

import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.language.biographies import Biographies

TASK = Biographies()
ROWS = 4_000


@pytest.fixture(scope="module")
def people():
    draw = lambda key: TASK.people(ROWS, key=key, by_group=0.9, by_pastime=0.8)
    return jax.device_get(jax.jit(draw)(jax.random.key(0)))


def _kind(token):
    """What a token is: of which axis and group, profession, or pastime's axis and group."""
    if token < 12:
        return "name", token // 6, token // 3 % 2
    if token < 28:
        return "word", (token - 12) // 4, None
    if token == 44:
        return "end", None, None
    return "pastime", (token - 28) // 8, (token - 28) // 4 % 2


def test_sentences_are_of_what_they_are_said_to_be(people):
    texts, profession, group, age = people
    assert TASK.vocabulary == 45 and TASK.length == texts.tokens.shape[1] == 10
    own, fitting = [], []
    for tokens, job, *groups in zip(texts.tokens, profession, group, age):
        kinds = [_kind(int(t)) for t in tokens]
        assert {k[0] for k in kinds[:2]} == {"name"} and kinds[-1][0] == "end"
        assert {(axis, which) for _, axis, which in kinds[:2]} == set(enumerate(map(int, groups)))
        words = [k[1] for k in kinds if k[0] == "word"]
        assert len(words) == 3 and set(words) <= {job, job ^ 1}
        own += [word == job for word in words]
        pastimes = [k for k in kinds if k[0] == "pastime"]
        assert sorted(axis for _, axis, _ in pastimes) == [0, 0, 1, 1]
        fitting += [which == groups[axis] for _, axis, which in pastimes]
    for found, right in (
        (np.mean(own), 0.75),
        (np.mean(fitting), 0.8),
        (np.mean(group == profession % 2), 0.9),
        (np.mean(age == profession % 2), 0.5),
        (np.mean(profession < 2), 0.5),
    ):
        np.testing.assert_allclose(found, right, atol=0.03)
    assert not texts.response[:, 0].any() and texts.response[:, 1:].all()


def test_counterfactuals_are_about_the_other_group_of_one_axis(people):
    both = TASK.with_counterfactuals(people.texts, 1)
    before, after = np.split(np.asarray(both.tokens), 2)
    np.testing.assert_array_equal(before, people.texts.tokens)
    changed = before != after
    np.testing.assert_array_equal(changed, (before >= 6) & (before < 12))
    np.testing.assert_array_equal((after - before)[changed], np.where(before[changed] < 9, 3, -3))


def test_labels_tell_the_professions_of_a_pair_apart():
    people = TASK.people(50, key=jax.random.key(1), pair=1)
    np.testing.assert_array_equal(TASK.labelled(people).desirable, people.profession == 3)
    assert set(np.asarray(people.profession).tolist()) == {2, 3}
    with pytest.raises(SpecificationError, match="at least one word of each kind"):
        Biographies(told=0)
    with pytest.raises(SpecificationError, match="clarity = 2 is a probability"):
        Biographies(clarity=2.0)
