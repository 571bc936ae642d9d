"""Texts of every built-in task are what they say, read back as a person would."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.environments.language.token_tasks import (
    Addition,
    Assignments,
    Copying,
    ExactMatch,
    Induction,
    ShiftedCopies,
    WordProblems,
    correct,
    everywhere,
    prompts_of,
)

TASKS = (
    Addition(),
    Addition(digits=3, form="reverse"),
    Addition(form="scratchpad"),
    Addition(form="detailed"),
    Addition(digits=3, form="detailed"),
    Copying(longest=4),
    Copying(longest=4, backwards=True),
    ShiftedCopies(size=5),
    Assignments(depth=0),
    Assignments(depth=1),
    Assignments(depth=2),
    Induction(),
    WordProblems(),
    WordProblems(operations=2),
)


def prompts_and_answers(task, data: Completions) -> list[tuple[str, str]]:
    """Prompt and response of each text, without what pads them."""
    found = []
    for tokens, response in zip(np.asarray(data.tokens), np.asarray(data.response)):
        start, stop = np.argmax(response), len(response) - np.argmax(response[::-1])
        assert response[start:stop].all(), "a response is in one piece"
        found.append((task.spell(tokens[:start]), task.spell(tokens[start:stop])))
    return found


def rows_of(tokens) -> set[tuple[int, ...]]:
    return {tuple(row) for row in np.asarray(tokens).tolist()}


def wider(data: Completions, by: int) -> Completions:
    """The same with more padding."""
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, by))), data)


def answer(task, prompt: str) -> str:
    """What a person would say."""
    if isinstance(task, Addition):
        left, right = re.fullmatch(r"(\d+)\+(\d+)=", prompt).groups()
        assert len(left) == len(right) == task.digits
        whole = f"{int(left) + int(right):0{task.digits + 1}d}"
        if task.form == "reverse":
            return whole[::-1]
        steps, carry = "", 0
        if task.form == "detailed":
            for place in range(task.digits):
                a, b = left[: task.digits - place], right[: task.digits - place]
                total = int(a[-1]) + int(b[-1]) + carry
                done = whole[task.digits + 1 - place :]
                steps += f"{a}+{b}={done}|{carry}|{a[-1]}+{b[-1]}+{carry}={total:02d}|"
                carry = total // 10
            return steps + f"+={whole[1:]}|{carry}|{whole}"
        for x, y in zip(left[::-1], right[::-1]):
            carry, digit = divmod(int(x) + int(y) + carry, 10)
            steps += f"{digit}{carry}|"
        return steps + whole if task.form == "scratchpad" else whole
    if isinstance(task, Copying):
        return prompt[:-1][::-1] if task.backwards else prompt[:-1]
    if isinstance(task, ShiftedCopies):
        letters = [task.alphabet.index(c) for c in prompt[:-1]]
        turned = letters[1:] + letters[:1]
        summed = [(x + y) % 22 for x, y in itertools.pairwise(turned)]
        return "".join(task.alphabet[i] for i in turned + summed)
    if isinstance(task, Assignments):
        *given, question = prompt.split(";")
        values = {}
        for each in given:
            name, value = each.split("=")
            assert name not in values, "a variable is given a value once"
            values[name] = values.get(value, value)
        assert all(value.isdigit() for value in values.values()), "given before it is used"
        assert sum(value in "0123456789" for value in (g[-1] for g in given)) == task.chains
        return values[question[0]]
    if isinstance(task, Induction):
        string, cue = prompt.split("=")
        place = string.index(cue) + len(cue)
        return string[place : place + task.continuation]
    counted, question = prompt[:-1].split(":")
    values = dict(zip(counted[::2], map(int, counted[1::2])))
    assert len(values) == task.things and question.count("+") == task.operations
    return str(sum(values[name] for name in question.split("+")) % 10)


@pytest.mark.parametrize("task", TASKS, ids=lambda t: f"{type(t).__name__}")
def test_responses_are_right(task):
    data = task.texts(200, key=jax.random.key(1))
    texts = prompts_and_answers(task, data)
    for prompt, response in texts:
        assert response == answer(task, prompt) + ".", prompt
    assert len(set(texts)) > 30
    again = task.texts(200, key=jax.random.key(1))
    assert np.array_equal(data.tokens, again.tokens)


def test_depth_is_the_number_of_variables_on_the_way():
    task = Assignments(depth=2, chains=3)
    for prompt, _ in prompts_and_answers(task, task.texts(50, key=jax.random.key(0))):
        *given, question = prompt.split(";")
        values, name, steps = dict(each.split("=") for each in given), question[0], 0
        while values[name] in values:
            name, steps = values[name], steps + 1
        assert steps == 2


def test_pairs_of_addition_are_all_there_and_ranges_do_not_overlap():
    every = rows_of(Addition().every_text().tokens)
    assert len(every) == 10_000
    train, test = Addition(count=300), Addition(first=300, count=50)
    seen = {
        tuple(row)
        for row in np.asarray(train.texts(500, key=jax.random.key(0)).tokens)[:, :6].tolist()
    }
    other = rows_of(test.every_text().tokens[:, :6])
    assert len(other) == 50 and not seen & other
    with pytest.raises(SpecificationError, match="cannot be taken"):
        Addition(first=9_990, count=11)


def test_exact_match_rewards_the_whole_response_only():
    task = Addition(count=40)
    right = task.every_text()
    reward = ExactMatch(right)
    assert np.all(np.asarray(reward(right)) == 1.0)
    wrong_digit = right.tokens.at[:, -2].set((right.tokens[:, -2] + 1) % 10)
    assert not np.any(reward(Completions(wrong_digit, right.response)))
    cut = right.response.at[:, -1].set(False)
    assert not np.any(reward(Completions(right.tokens, cut)))
    # The response to another prompt is wrong, even if it is right there.
    moved = jnp.where(right.response, jnp.roll(right.tokens, 1, axis=0), right.tokens)
    other = np.asarray(reward(Completions(moved, right.response)))
    same = np.all(np.where(right.response, moved == right.tokens, True), axis=1)
    assert np.array_equal(other == 1.0, same) and not same.all()
    assert np.all(np.asarray(reward(wider(right, 3))) == 1.0)


def test_prompts_and_what_is_learned_from_scratch():
    task = Copying(longest=3)
    data = task.texts(20, key=jax.random.key(0))
    prompts = prompts_of(data, 4)
    for tokens, length, (prompt, _) in zip(
        prompts.tokens, prompts.length, prompts_and_answers(task, data)
    ):
        assert task.spell(tokens[: int(length)]) == prompt
        assert int(length) == len(prompt)
    whole = everywhere(data)
    assert not np.any(whole.response[:, 0]) and np.all(whole.response[:, 1])
    assert np.array_equal(
        whole.response.sum(1), [len(p) + len(r) - 1 for p, r in prompts_and_answers(task, data)]
    )


def test_correct_compares_what_was_written():
    right = Addition(count=8).every_text()
    written = wider(right, 2)
    assert np.all(correct(written, right))
    worse = Completions(written.tokens.at[0, 7].set(11), written.response)
    assert not correct(worse, right)[0] and np.all(correct(worse, right)[1:])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Assignments(depth=3),
        lambda: Induction(size=4, cue=2, continuation=3),
        lambda: WordProblems(operations=3),
    ],
)
def test_what_does_not_fit_is_said(make):
    with pytest.raises(SpecificationError):
        make()
