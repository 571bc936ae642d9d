"""Learning from one's own calls of tools: what is asked, written, kept and learned, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.tokens import TokenProblem
from headwater.environments.language.simulated_tools import Procedures
from headwater.methods.language.texts.sft import SFT
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.tokens import next_log_probabilities
from headwater.runs.recipes.self_training import self_training
from headwater.sources.language.tool_turns import in_turns

TOOLS = Procedures(right=jnp.asarray([[1, 0], [0, 1]]), calls=2, answers=2)
"""Two questions, two turns: texts of five tokens out of six."""


def test_tools_answer_in_turns_and_are_not_learned(key):
    network = PrefixTable(TOOLS.vocabulary, 5, key=key)
    question = jnp.asarray([0, 1] * 20)
    written = jax.jit(lambda: in_turns(network, TOOLS, question, key=key))()
    logits = np.asarray(network.logits(written.tokens), np.float64)
    for row, text in enumerate(np.asarray(written.tokens)):
        state = text[0] % 2
        for turn in range(2):
            call = text[1 + 2 * turn] - 2
            assert call in (0, 1)
            state = (3 * state + call + 1) % 2
            assert text[2 + 2 * turn] == 4 + state
            chance = np.exp(logits[row, 2 * turn, 2:4])
            np.testing.assert_allclose(
                written.log_probability[row, 1 + 2 * turn],
                np.log(chance[call] / chance.sum()),
                rtol=1e-4,
                atol=1e-6,
            )
        np.testing.assert_array_equal(written.response[row], [False, True] * 2 + [False])


def test_a_judge_is_right_as_often_as_it_is_said(key):
    tokens = jnp.broadcast_to(jnp.asarray([0, 3, 4, 3, 4]), (20_000, 5))
    found = TOOLS.judge(tokens, 0.9, key=key)
    # The first call is right, the second wrong.
    np.testing.assert_allclose(np.mean(found, axis=0), [0.9, 0.1], atol=0.01)


def test_with_a_perfect_judge_only_right_calls_are_learned(key):
    network = PrefixTable(TOOLS.vocabulary, 5)
    method = SFT(learning_rate=0.3)
    judge = lambda tokens, key: TOOLS.judge(tokens, 1.0, key=key)
    run = jax.jit(
        lambda: self_training(
            method,
            TokenProblem(network),
            TOOLS,
            judge,
            rounds=2,
            questions=30,
            samples=4,
            least_good=2,
            updates=40,
            key=key,
        )
    )
    found = run()
    tokens, response = np.asarray(found.data.tokens), np.asarray(found.data.response)
    assert tokens.shape == (60, 5)
    kept = response.any(-1)
    np.testing.assert_allclose(found.kept, [kept[:30].mean(), kept[30:].mean()], rtol=1e-6)
    assert 0.3 < kept[:30].mean() < 1.0 and kept[30:].all()
    right = np.asarray(TOOLS.right)[tokens[:, 0]]
    np.testing.assert_array_equal((tokens[:, 1::2] - 2)[kept], right[kept])
    chances = np.exp(next_log_probabilities(found.states[-1].network.logits(found.data.tokens)))
    for row in np.nonzero(kept)[0]:
        for place in (1, 3):
            assert chances[row, place - 1, 2 + right[row, place // 2]] > 0.9


def test_rounds_and_good_calls_that_cannot_be_are_refused(key):
    method, problem = SFT(), TokenProblem(PrefixTable(TOOLS.vocabulary, 5))
    judge = lambda tokens, key: TOOLS.judge(tokens, 1.0, key=key)
    common = {"questions": 2, "updates": 1, "key": key}
    with pytest.raises(SpecificationError, match="rounds = 0"):
        self_training(method, problem, TOOLS, judge, rounds=0, **common)
    with pytest.raises(SpecificationError, match="least_good = 3 of 2 calls"):
        self_training(method, problem, TOOLS, judge, rounds=1, least_good=3, **common)
