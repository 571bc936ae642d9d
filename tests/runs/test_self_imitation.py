"""Learning from one's own constrained texts: what is written, kept and learned, by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import AbstractCompletionReward, Prompts, TokenProblem
from headwater.decoding.constrained import Constraint
from headwater.methods.language.texts.sft import SFT
from headwater.networks.token_table import PrefixTable
from headwater.runs.recipes.self_imitation import first_of_equals, self_imitation

END = 3


class _Ends(AbstractCompletionReward):
    """Likes texts whose last token but one is this one."""

    liked: int

    def __call__(self, data: Completions):
        size = jnp.sum(data.response, axis=-1)
        place = jnp.argmax(data.response, axis=-1) + size - 2
        before = jnp.take_along_axis(data.tokens, place[..., None], axis=-1)[..., 0]
        return jnp.where(before == self.liked, 1.0, -1.0)


def _imitated(liked, key, **options):
    network = PrefixTable(4, 5)
    prompts = Prompts(jnp.asarray([[0, 0], [1, 1]]), jnp.asarray([1, 1]))
    settings = {"rounds": 2, "samples": 40, "new_tokens": 3, "updates": 60, "rows": 32, **options}
    run = jax.jit(
        lambda: self_imitation(
            SFT(learning_rate=0.1),
            TokenProblem(network, END),
            prompts,
            _Ends(liked),
            constraints=[Constraint([(2,)], least=1), Constraint([(0, 0)], most=0)],
            key=key,
            **settings,
        )
    )
    return run()


@pytest.mark.oracle
def test_what_the_critic_keeps_is_imitated(key):
    found = _imitated(2, key)
    kept = np.asarray(found.data.response).any(axis=-1)
    rows = zip(*(np.asarray(x)[kept] for x in (found.data.tokens, found.data.response)))
    texts = [tuple(int(t) for t in tokens[: 1 + mask.sum()]) for tokens, mask in rows]
    assert len(texts) == len(set(texts)) > 3
    for text in texts:
        assert text[-2] == 2 and (0, 0) not in itertools.pairwise(text)
    np.testing.assert_allclose(found.kept[1], len(texts) / 80)
    # After 0 and 1, with room for two tokens, only a 2 can be liked.
    last = jax.tree.map(lambda x: x[-1], found.states).network
    assert float(jax.nn.softmax(last.logits(jnp.asarray([[0, 1]])))[0, 1, 2]) > 0.9


def test_where_nothing_is_kept_nothing_is_learned(key):
    found = _imitated(9, key, updates=3)
    assert np.all(np.asarray(found.kept) == 0.0)
    np.testing.assert_array_equal(found.states.network.table, 0.0)


@pytest.mark.oracle
def test_of_equal_texts_the_first_is_told():
    tokens = jnp.asarray([[1, 2, 3, 0], [1, 2, 3, 9], [1, 2, 0, 0], [2, 2, 3, 0], [1, 2, 3, 0]])
    response = jnp.asarray([[0, 1, 1, 0]] * 2 + [[0, 1, 0, 0]] + [[0, 1, 1, 0]] * 2, bool)
    found = jax.jit(first_of_equals)(Completions(tokens, response))
    np.testing.assert_array_equal(found, [True, False, True, True, False])


def test_numbers_that_make_no_sense_are_refused(key):
    with pytest.raises(SpecificationError, match="rounds = 0, samples = 40"):
        _imitated(2, key, rounds=0)
