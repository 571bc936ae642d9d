"""Constrained texts, against counting in Python and against the network's own probabilities."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.tokens import Prompts
from headwater.decoding.constrained import Constrained, Constraint
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.generation import generate

VOCABULARY, WIDTH, END = 5, 7, 4
SOME = (
    Constraint([(1, 2), (3,)], least=1),  # one of two
    Constraint([(0,)], most=2),
    Constraint([(2, 2)], most=0),
    Constraint([(1, 3)], least=1, most=1),
)


def _times(text, phrase):
    return sum(tuple(text[i : i + len(phrase)]) == phrase for i in range(len(text)))


def _kept(text, constraints):
    for each in constraints:
        count = sum(_times(text, tuple(phrase)) for phrase in each.phrases)
        if count < each.least or (each.most is not None and count > each.most):
            return False
    return True


def _written(network, constraints, rows, key, **options):
    prompts = Prompts(
        jnp.broadcast_to(jnp.asarray([0, 2, 9]) % VOCABULARY, (rows, 3)), jnp.full(rows, 2)
    )
    writer = Constrained(network, constraints, end=END)
    found = jax.jit(lambda: generate(writer, prompts, WIDTH - 3, key=key, end=END, **options))()
    texts = [
        [int(t) for i, t in enumerate(row) if i < 2 or mask[i]]
        for row, mask in zip(np.asarray(found.tokens), np.asarray(found.response))
    ]
    return writer, found, texts


@pytest.mark.oracle
def test_every_text_keeps_every_constraint(key):
    network = PrefixTable(VOCABULARY, WIDTH, key=key)
    writer, found, texts = _written(network, SOME, 300, key)
    assert all(_kept(text, SOME) for text in texts)
    assert len({len(text) for text in texts}) > 1 and len({tuple(t) for t in texts}) > 10
    length = jnp.asarray([len(text) for text in texts])
    kept = eqx.filter_jit(writer.kept)
    assert bool(jnp.all(kept(found.tokens, length)))
    # Without them few do: they say something here.
    plain = jax.jit(lambda: generate(
        network, Prompts(found.tokens[:, :2], jnp.full(300, 2)), WIDTH - 2, key=key, end=END
    ))()  # fmt: skip
    stop = 2 + np.sum(np.asarray(plain.response), axis=-1)
    free = [list(map(int, row[:n])) for row, n in zip(np.asarray(plain.tokens), stop)]
    assert 0 < sum(_kept(text, SOME) for text in free) < 100
    np.testing.assert_array_equal(
        kept(plain.tokens, jnp.asarray(stop)), [_kept(text, SOME) for text in free]
    )


@pytest.mark.oracle
def test_a_long_phrase_comes_where_there_is_just_room_for_it(key):
    # A network that would never write it, and ends as soon as it can.
    table = PrefixTable(VOCABULARY, WIDTH)
    row = jnp.asarray([0.0, -30.0, -30.0, -30.0, 5.0])
    network = jax.tree.map(
        lambda x: jnp.broadcast_to(row, x.shape) if x.shape[-1] == VOCABULARY else x, table
    )
    needed = (Constraint([(1, 2, 3), (1, 1, 1, 1)], least=1), Constraint([(2,)], most=3))
    _, _, texts = _written(network, needed, 50, key)
    assert all(text == [0, 2, 1, 2, 3, 4] for text in texts), texts[:3]
    assert all(_kept(text, needed) for text in texts)


@pytest.mark.oracle
def test_probabilities_are_the_networks_among_what_is_allowed(key):
    network = PrefixTable(VOCABULARY, WIDTH, key=key)
    writer = Constrained(network, SOME, end=END)
    tokens = jax.random.randint(key, (20, WIDTH), 0, VOCABULARY, jnp.int32)
    logits, own = (np.asarray(eqx.filter_jit(n.logits)(tokens)) for n in (writer, network))
    own = own - np.log(np.sum(np.exp(own), axis=-1, keepdims=True))
    allowed = np.isfinite(logits)
    assert allowed.any(axis=-1).all() and not allowed.all()
    np.testing.assert_allclose(logits[allowed], own[allowed], atol=1e-5)

    # What the cache knows after reading token by token is what the whole text says.
    @jax.jit
    def one_by_one():
        cache, first = writer.read(tokens[:, :3], jnp.full(20, 3), WIDTH)

        def one(cache, place):
            place = jnp.full(20, place)
            return writer.read_one(cache, tokens[jnp.arange(20), place], place)

        _, others = jax.lax.scan(one, cache, jnp.arange(3, WIDTH))
        return jnp.concatenate([first[None], others])

    np.testing.assert_allclose(one_by_one(), np.moveaxis(logits, 1, 0)[2:], atol=1e-5)


def test_where_constraints_leave_nothing_the_network_writes_as_it_would(key):
    network = PrefixTable(2, 3, key=key)
    writer = Constrained(network, (Constraint([(0,)], most=0), Constraint([(1,)], most=0)))
    tokens = jnp.asarray([[0, 1, 0]])
    own = jax.nn.log_softmax(network.logits(tokens))
    np.testing.assert_allclose(eqx.filter_jit(writer.logits)(tokens), own, atol=1e-6)
    assert not bool(eqx.filter_jit(writer.kept)(tokens, jnp.asarray([3]))[0])


def test_what_makes_no_sense_is_refused(key):
    network = PrefixTable(3, 4, key=key)
    for constraints, reason in (
        ((), "there is no constraint"),
        ((Constraint([()]),), "a phrase of a constraint is empty"),
        ((Constraint([(1, 3)]),), r"has the tokens \[1, 3\], and the network's are 0 to 2"),
        ((Constraint([(1,)], least=2, most=1),), "at least 2 and at most 1 times"),
        ((Constraint([], least=1),), "at least one phrase"),
    ):
        with pytest.raises(SpecificationError, match=reason):
            Constrained(network, constraints)
