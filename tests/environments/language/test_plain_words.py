"""Sentences to be simplified, counted word by word in Python."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import position_mask
from headwater.environments.language.plain_words import PlainWords, Preservation, ShortWords

PAIRS, SIZE = 4, 6


def some(key, **others):
    task = PlainWords(key=key, pairs=PAIRS, others=2, size=SIZE, **others)
    sentence = task.originals(40, key=key)
    width = 2 * SIZE + 2
    written = jax.random.randint(key, (40, SIZE + 1), 0, task.vocabulary, jnp.int32)
    tokens = jnp.concatenate([task.texts(sentence, sentence).tokens[:, : SIZE + 1], written], 1)
    start = jnp.full((40,), SIZE + 1)
    length = jax.random.randint(key, (40,), 0, SIZE + 2)
    return task, Completions(tokens, position_mask(start, start + length, width))


def test_what_is_simplified_and_preserved_is_counted_word_by_word(key):
    task, data = some(key)
    meaning = lambda word: word - PAIRS if PAIRS <= word < 2 * PAIRS else word
    for row in range(40):
        mask = np.asarray(data.response[row])
        tokens = np.asarray(data.tokens[row])
        before = Counter(int(t) for t in tokens[:SIZE])
        after = Counter(int(t) for t in tokens[mask] if t < task.mark)
        hard = sum(n for word, n in before.items() if word < PAIRS)
        done = sum(
            min(n, max(after[word + PAIRS] - before[word + PAIRS], 0))
            for word, n in before.items()
            if word < PAIRS
        )
        one = jax.tree.map(lambda x, row=row: x[row], data)
        assert float(task.simplified(one)) == pytest.approx(done / max(hard, 1))
        meanings = [Counter(map(meaning, c.elements())) for c in (before, after)]
        common = sum((meanings[0] & meanings[1]).values())
        longer = max(sum(c.values()) for c in meanings)
        assert float(Preservation(task)(one)) == pytest.approx(common / longer)
        characters = [float(task.characters[w]) for w in after.elements()]
        assert float(ShortWords(task)(one)) == pytest.approx(
            -np.mean(characters) / 10 if characters else 0.0, rel=1e-5
        )


def test_rewriting_changes_the_shares_that_are_asked_for(key):
    task = PlainWords(key=key)
    sentence = task.originals(2_000, key=key)
    hard = np.asarray(sentence) < 30
    plain = (np.asarray(sentence) < 60) & ~hard
    assert (hard | plain).mean() == pytest.approx(0.5, abs=0.02)
    assert hard.sum() / (hard | plain).sum() == pytest.approx(0.8, abs=0.02)
    changed = np.asarray(task.rewritten(sentence, 0.5, 0.1, key=key)) - np.asarray(sentence)
    assert set(np.unique(changed)) == {-30, 0, 30}
    assert (changed[hard] == 30).mean() == pytest.approx(0.5, abs=0.03)
    assert (changed[plain] == -30).mean() == pytest.approx(0.1, abs=0.03)
    texts = task.texts(sentence, task.rewritten(sentence, 1.0, key=key))
    assert float(task.preserved(texts).min()) == 1.0
    assert set(np.unique(task.simplified(texts))) <= {0.0, 1.0}
    labelled = task.labelled(texts)
    same = np.asarray(labelled.completions.tokens)[2_000:]
    assert np.array_equal(same[:, :8], same[:, 9:17])
    assert np.asarray(labelled.desirable).sum() == 2_000


def test_some_hard_words_are_short(key):
    task = PlainWords(key=key, misleading=0.5)
    hard, plain = task.characters[:30], task.characters[30:60]
    assert np.asarray(hard >= plain).mean() == pytest.approx(0.5, abs=0.1)
    with pytest.raises(SpecificationError, match="take at least one of each"):
        PlainWords(key=key, pairs=0)
