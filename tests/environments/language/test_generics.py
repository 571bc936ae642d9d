"""Statements about concepts, parsed in Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import position_mask
from headwater.environments.language.generics import Generics, critic

WORLD = Generics(key=jax.random.key(3))


def _parsed(text):
    """The property that a plain statement is of, or None."""
    _, _, *words, end = text
    few = [word for word in words if word in WORLD.function_words]
    if end != WORLD.end or not words or len(few) > 1 or [*few, words[-1]] != words:
        return None
    return words[-1] - 60 if 60 <= words[-1] < 68 else None


@pytest.mark.oracle
def test_plain_and_true_statements_are_told_from_others():
    key = jax.random.key(0)
    spoken = WORLD.texts(1_500, key=key)
    # And texts that nobody would write.
    drawn = jax.random.randint(key, (1_500, 4), 58, WORLD.vocabulary, jnp.int32)
    start = WORLD.prompts(25).tokens
    odd = jnp.pad(jnp.concatenate([start, drawn], axis=1), ((0, 0), (0, 3)))
    stop = 3 + jax.random.randint(key, (1_500,), 0, 4)
    odd = Completions(odd, position_mask(jnp.full_like(stop, 2), stop, WORLD.length))
    data = jax.tree.map(lambda *x: jnp.concatenate(x), spoken, odd)
    judge = critic(WORLD, 0.8, key=key)
    plain, number, valid, said = jax.device_get(
        jax.jit(lambda d: (*WORLD.stated(d), WORLD.valid(d), judge(d)))(data)
    )
    true, believed = np.asarray(WORLD.true), np.asarray(judge.believed)
    for row, (tokens, mask) in enumerate(zip(np.asarray(data.tokens), np.asarray(data.response))):
        text = [int(t) for t in tokens[: 2 + mask.sum()]]
        found = _parsed(text)
        assert plain[row] == (found is not None), text
        assert valid[row] == (found is not None and true[text[0], found])
        assert said[row] == (1.0 if found is not None and believed[text[0], found] else -1.0)
        if found is not None:
            assert number[row] == found
    assert 0.6 < plain[:1_500].mean() < 0.8 and plain[1_500:].any()
    np.testing.assert_allclose(valid[:1_500].sum() / plain[:1_500].sum(), 0.85, atol=0.04)
    np.testing.assert_allclose((true == believed).mean(), 0.8, atol=0.06)


def test_concepts_inherit_what_their_family_has():
    true = np.asarray(WORLD.true).reshape(12, 5, 8)
    assert WORLD.concepts == 60 and true.any(axis=-1).all()
    most = true.mean(axis=1) > 0.5
    np.testing.assert_allclose((true == most[:, None]).mean(), 0.9, atol=0.06)
    with pytest.raises(SpecificationError, match="at least one of everything"):
        Generics(key=jax.random.key(0), members=0)
