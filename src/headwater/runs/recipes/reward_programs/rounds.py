"""In-context preference learning: rewards are proposed, tried, judged, and proposed anew."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import DataError, SpecificationError
from headwater.environments.reward_programs.language import terms_in, translate
from headwater.environments.reward_programs.machine import RewardProgram, terms_of
from headwater.environments.reward_programs.rewarded import StepFeatures
from headwater.runs.recipes.reward_programs.feedback import Attempt, Proposer, Round
from headwater.runs.recipes.reward_programs.practice import Learner, Practice

Judge = Callable[[Any, Any], float]
"""Says which of two things is better: 1 the first, 0 the second, 0.5 neither. Those of
`analysis/rankings/judges.py` are of this kind."""

_TIMES = 3
"""Comparisons with the champion: to lose it by one mistake is to lose what all rounds found."""


class PreferredReward(NamedTuple):
    """What the rounds left.

    **Arguments:** `text`, `program`: the reward whose policies the judge preferred; `practice`: of
    these policies, along a first axis; `rounds`: what was tried; `comparisons`: that the judge was
    asked for.
    """

    text: str
    program: RewardProgram
    practice: Practice
    rounds: tuple[Round, ...]
    comparisons: int


def reward_from_preferences(
    proposer: Proposer,
    features: StepFeatures,
    learner: Learner,
    judge: Judge,
    shown: Callable[[Practice], Any],
    *,
    rounds: int = 5,
    programs: int = 6,
    policies: int = 2,
    key: PRNGKeyArray,
) -> PreferredReward:
    """ICPL (Yu et al., 2024, arXiv:2410.17233): a reward, from comparisons of what comes of it.

    In each round the proposer writes programs; policies are trained with all of them, in one
    compiled program; the judge says which policies are best and which are worst, and from the
    second round on whether the best are better than the best of all rounds before: the majority of
    three comparisons. The proposer is told, with the means of terms and features.

    **Arguments:** `proposer`: a `ScriptedProposer`, a `LanguageModelProposer`, or your own;
    `features`: that programs speak of; `learner`: how policies are trained; `judge`: is given two
    results of `shown`; `shown`: from the practice of one reward's policies, along a first axis in
    NumPy, to what is judged; `policies`: trained with each reward.

    Raises `SpecificationError` for fewer than two programs, no round or no policy, and for a
    program that cannot be translated; `DataError` for an answer of the judge that is none.

    **Differences from the paper:** rewards are not Python, but programs of a small language; terms
    are traced at the end of training, not on the way; what is told of a round does not have the
    differences between rewards of one round and the next.
    """
    if programs < 2 or rounds < 1 or policies < 1:
        raise SpecificationError(
            f"rounds = {rounds}, programs = {programs} and policies = {policies}: take at least "
            "one round, two programs and one policy"
        )
    asked = _Counted(judge)
    told: list[Round] = []
    champion: tuple[Attempt, Practice, Any] | None = None
    for round_key in jax.random.split(key, rounds):
        texts = proposer.propose(tuple(told), programs)
        practices = train_with(learner, texts, features, policies=policies, key=round_key)
        tried = [_attempt(text, p, features) for text, p in zip(texts, practices)]
        seen = [shown(practice) for practice in practices]
        best, worst = best_and_worst(seen, asked)
        if champion is None or _majority(asked, seen[best], champion[2]):
            champion = tried[best], practices[best], seen[best]
        told.append(Round(tuple(tried), tried[best], tried[worst], champion[0]))
    assert champion is not None
    text = champion[0].text
    program = translate(text, features.names)
    return PreferredReward(text, program, champion[1], tuple(told), asked.comparisons)


def train_with(
    learner: Learner,
    texts: Sequence[str],
    features: StepFeatures,
    *,
    policies: int,
    key: PRNGKeyArray,
) -> list[Practice]:
    """What comes of each reward, in NumPy, with an axis of policies in front.

    All are trained in one compiled program, which serves whatever rewards come next.
    Raises `SpecificationError` for a program that cannot be translated.
    """
    each = [translate(text, features.names) for text in texts]
    together = jax.tree.map(lambda *x: jnp.stack(x), *each)
    keys = jax.random.split(key, (len(texts), policies))
    found = jax.tree.map(np.asarray, _trained(learner, together, keys))
    return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(texts))]


def best_and_worst(seen: Sequence[Any], judge: Judge) -> tuple[int, int]:
    """The numbers of the best and the worst of what a judge is shown, two things or more.

    Two by two are compared; then the better ones meet until one is left, and the worse ones
    likewise: seven comparisons of six things. Each meets few others, as a judge who errs now and
    then loses the best on a long way.
    """
    better, worse = [], []
    for i in range(0, len(seen) - 1, 2):
        first = judge(seen[i], seen[i + 1]) > 0.5
        better.append(i if first else i + 1)
        worse.append(i + 1 if first else i)
    alone = [len(seen) - 1] if len(seen) % 2 else []
    better += alone
    while len(better) > 1:
        i, j, *others = better
        better = [*others, i if judge(seen[i], seen[j]) > 0.5 else j]
    worse += [i for i in alone if i != better[0]]
    while len(worse) > 1:
        i, j, *others = worse
        worse = [*others, i if judge(seen[i], seen[j]) < 0.5 else j]
    return better[0], worse[0]


class _Counted:
    """A judge whose answers are checked and counted."""

    def __init__(self, judge: Judge):
        self._judge, self.comparisons = judge, 0

    def __call__(self, first: Any, second: Any) -> float:
        answer = self._judge(first, second)
        if answer not in (0.0, 0.5, 1.0):
            raise DataError(f"the judge answered {answer!r}: 1, 0 or 0.5 is an answer")
        self.comparisons += 1
        return float(answer)


def _majority(judge: Judge, first: Any, second: Any) -> bool:
    """Whether the first of two is better, in most of three comparisons."""
    return sum(judge(first, second) for _ in range(_TIMES)) > _TIMES / 2


# One program after the other, so that an instruction is one branch; policies side by side.
@eqx.filter_jit
def _trained(learner: Learner, programs: RewardProgram, keys: Array) -> Practice:
    def one(given):
        program, keys = given
        return jax.vmap(lambda key: learner(program, key))(keys)

    return jax.lax.map(one, (programs, keys))


def _attempt(text: str, practice: Practice, features: StepFeatures) -> Attempt:
    inside = np.asarray(practice.inside, np.float64)
    seen = _mean(np.asarray(practice.features), inside)
    program = translate(text, features.names)
    terms = _mean(np.moveaxis(np.asarray(_terms(program, practice.features)), 0, -1), inside)
    names = [term.name for term in terms_in(text)]
    return Attempt(
        text,
        {name: float(value) for name, value in zip(names, terms)},
        {name: float(value) for name, value in zip(features.names, seen)},
    )


@eqx.filter_jit
def _terms(program: RewardProgram, features: Array) -> Float[Array, "term *batch"]:
    return terms_of(program, features)


def _mean(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The mean over the steps of episodes, of what lies along the last axis."""
    return (values * inside[..., None]).sum(axis=(0, 1, 2)) / inside.sum()
