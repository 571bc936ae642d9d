"""Facts, chains and ciphers, read as text by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.language.recall_tasks import (
    AlphabetCiphers,
    Facts,
    MarkovTexts,
    NoisyCipher,
)


def test_facts_have_one_value_each_and_are_all_drawn(key):
    task = Facts(key=key, domains=3, count=5)
    whole = task.every_text()
    every = [task.spell(row) for row in whole.tokens]
    assert len(set(every)) == 15
    assert len({text[:3] for text in every}) == 15
    assert {text[0] for text in every} == set("ABC")
    assert all(text[3] == "=" and text[5] == "." for text in every)
    drawn = task.texts(300, key=key)
    assert {task.spell(row) for row in drawn.tokens} == set(every)
    np.testing.assert_array_equal(drawn.response, np.broadcast_to(np.arange(6) >= 4, (300, 6)))
    with pytest.raises(SpecificationError, match="9 domains of 5 facts"):
        Facts(key=key, domains=9, count=5)


def test_letters_follow_pairs_as_often_as_the_chain_says(key):
    task = MarkovTexts(key=key, letters=3, size=12)
    data = jax.jit(lambda key: task.texts(4_000, key=key))(key)
    tokens = np.asarray(data.tokens)
    assert (tokens[:, -1] == task.end).all() and tokens[:, :-1].max() == 2
    counts = np.zeros((3, 3, 3))
    for i in range(10):
        np.add.at(counts, (tokens[:, i], tokens[:, i + 1], tokens[:, i + 2]), 1)
    found = counts / counts.sum(-1, keepdims=True)
    logits = np.asarray(task.logits, np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=0.06)
    np.testing.assert_allclose(
        task.entropy, -(expected * np.log(expected)).sum(-1), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(
        np.asarray(data.response)[0], (np.arange(13) >= 2) & (np.arange(13) < 12)
    )


def test_a_cipher_is_chosen_by_the_letter_before(key):
    task = NoisyCipher(key=key, ciphers=2, size=4, noise=0.0)
    data = task.texts(50, key=key)
    table = np.asarray(task.table)
    for row in np.asarray(data.tokens):
        assert task.spell(row)[4] == "=" and task.spell(row)[9] == "."
        for i in range(4):
            cipher = row[max(i - 1, 0)] % 2
            assert row[5 + i] == table[cipher, row[i]]
    noisy = NoisyCipher(key=key, ciphers=2, size=4, noise=0.5).texts(2_000, key=key)
    tokens = np.asarray(noisy.tokens)
    before = np.concatenate([tokens[:, :1], tokens[:, :3]], axis=1)
    wrong = np.mean(tokens[:, 5:9] != table[before % 2, tokens[:, :4]])
    np.testing.assert_allclose(wrong, 0.5 * 15 / 16, atol=0.02)
    assert jnp.all(noisy.response[:, 5:]) and not jnp.any(noisy.response[:, :5])


def test_kinds_of_ciphers_go_on_among_their_own_letters(key):
    task = AlphabetCiphers(key=key, kinds=3, shared=1)
    own = [[(4 * kind + place) % 12 for place in range(5)] for kind in range(3)]
    shift = np.asarray(task.shift)

    def of_kinds(row):
        """For each letter of a text the kinds that would write it as it is written."""
        pairs = list(zip(row[:4], row[5:9], strict=True))
        return [
            {
                kind
                for kind in range(3)
                if a in own[kind] and b == own[kind][(own[kind].index(a) + shift[kind]) % 5]
            }
            for a, b in pairs
        ]

    data = eqx.tree_at(lambda t: t.chosen, task, jnp.asarray([1])).texts(60, key=key)
    for row in np.asarray(data.tokens):
        assert all(1 in kinds for kinds in of_kinds(row.tolist()))
        assert task.spell(row)[4] == "=" and task.spell(row)[9] == "."
    assert set(np.asarray(data.tokens)[:, :4].ravel().tolist()) == set(own[1])
    mixed = task.mixed_texts(jnp.zeros(60, jnp.int32), jnp.full(60, 2), key=key)
    found = [kinds for row in np.asarray(mixed.tokens) for kinds in of_kinds(row.tolist())]
    assert all(kinds & {0, 2} for kinds in found) and {0} in found and {2} in found
    # Letters that two kinds share are never in a mixed text.
    assert not set(np.asarray(mixed.tokens)[:, :4].ravel().tolist()) & {0, 4, 8}
    np.testing.assert_array_equal(data.response[0], np.arange(10) >= 5)
    with pytest.raises(SpecificationError, match="7 kinds of which each shares 0"):
        AlphabetCiphers(key=key, kinds=7)
