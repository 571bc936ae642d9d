"""A proposer without a language model: varies and joins what was tried, by what came of it."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from headwater.environments.reward_programs.language import MOST_TERMS, Term, features_in, terms_in
from headwater.environments.reward_programs.rewarded import StepFeatures
from headwater.runs.recipes.reward_programs.feedback import Attempt, Round

_WEIGHTED = re.compile(r"(-?)(\d+(?:\.\d+)?) \* (.*)")
_HEAVIEST, _WIDTHS = 2.0, (0.05, 2.0)
_FEWEST, _MOST = 1, 3
"""Terms of a program that is written from nothing."""
_ANEW = 2
"""Programs of a round that are written from the feedback alone."""
_KEPT, _JOINED, _TRUSTED, _JITTER = 0.85, 0.5, 0.9, 0.5
"""How often a term of the champion stays, one of the round's best joins it, and a new term pushes
where the judge seems to want it; deviation of the logarithm by which weights change."""


@dataclasses.dataclass(frozen=True, eq=False)
class ScriptedProposer:
    """Varies the champion, joins it with the round's best, and leaves out what the worst has.

    It reads of the feedback what a language model reads, without any knowledge of words: a feature
    that is larger where the judge was pleased than where he was not is paid for, in proportion to
    how clear the difference is over all rounds. Of each round two programs are written from that
    alone, and one from nothing, so that a champion that leads nowhere can be left.

    **Arguments:** `features`: that programs speak of; `random`: what it draws from.
    """

    features: StepFeatures
    random: np.random.Generator

    def propose(self, rounds: Sequence[Round], count: int) -> list[str]:
        """See `Proposer.propose`."""
        if not rounds:
            return [self._fresh() for _ in range(count)]
        wanted = self._wanted(rounds)
        anew = min(_ANEW, count - 1)
        children = [self._child(rounds[-1], wanted) for _ in range(count - 1 - anew)]
        guided = [self._from_feedback(wanted) for _ in range(anew)]
        return [*children, *guided, self._fresh()]

    def _fresh(self) -> str:
        """A program from nothing."""
        count = int(self.random.integers(_FEWEST, _MOST + 1))
        chosen = self.random.choice(len(self.features.names), count, replace=False)
        signs = self.random.choice((-1.0, 1.0), count)
        return _text([self._expression(int(i), sign) for i, sign in zip(chosen, signs)])

    def _from_feedback(self, wanted: np.ndarray) -> str:
        """A program of terms that push features where they seem to be wanted."""
        count = int(self.random.integers(_FEWEST + 1, _MOST + 2))
        return _text([self._guided(wanted) for _ in range(count)])

    def _child(self, last: Round, wanted: np.ndarray) -> str:
        """The champion, varied."""
        poor = self._pushes(last.worst) - self._pushes(last.best)
        kept = [
            self._reweighted(term.expression)
            for term in terms_in(last.champion.text)
            if self.random.random() < _KEPT and not self._pushed(term) & poor
        ]
        if last.best.text != last.champion.text and self.random.random() < _JOINED:
            donors = terms_in(last.best.text)
            kept.append(self._reweighted(donors[self.random.integers(len(donors))].expression))
        for _ in range(1 + int(self.random.integers(2))):
            kept.append(self._guided(wanted))
        return _text(kept[-MOST_TERMS:])

    def _wanted(self, rounds: Sequence[Round]) -> np.ndarray:
        """How clearly the judge wants more of each feature, in deviations between attempts."""

        def means(attempt: Attempt) -> list[float]:
            return [attempt.features[name] for name in self.features.names]

        tried = np.asarray([means(a) for found in rounds for a in found.attempts])
        apart = [np.subtract(means(found.best), means(found.worst)) for found in rounds]
        # The champion is better than all others, the worst of their rounds included.
        ahead = np.sum(apart, axis=0) + len(rounds) * (means(rounds[-1].champion) - tried.mean(0))
        return ahead / (tried.std(axis=0) + 1e-6)

    def _guided(self, wanted: np.ndarray) -> str:
        """A term that pushes a feature where it seems to be wanted, mostly."""
        clear = np.abs(wanted) + 1e-6
        chosen = int(self.random.choice(len(clear), p=clear / clear.sum()))
        sign = 1.0 if wanted[chosen] > 0.0 else -1.0
        return self._expression(chosen, sign if self.random.random() < _TRUSTED else -sign)

    def _expression(self, place: int, sign: float) -> str:
        """A term that pays for more of a feature, or for less of it."""
        name = self.features.names[place]
        weight = sign * self.random.uniform(0.1, _HEAVIEST)
        shape = self.random.integers(3)
        if shape == 0:
            return f"{weight:.2f} * {name}"
        if shape == 1:
            return f"{weight:.2f} * clip({name}, -1, 1)"
        width = np.exp(self.random.uniform(*np.log(_WIDTHS)))
        # This bump is highest where the feature is zero.
        return f"{-weight:.2f} * exp(-square({name}) / {width:.2f})"

    def _reweighted(self, expression: str) -> str:
        parts = _WEIGHTED.fullmatch(expression)
        if parts is None:
            return expression
        weight = float(parts[2]) * np.exp(_JITTER * self.random.normal())
        return f"{parts[1]}{min(weight, 2.0 * _HEAVIEST):.2f} * {parts[3]}"

    def _pushes(self, attempt: Attempt) -> set[tuple[str, str]]:
        return {push for term in terms_in(attempt.text) for push in self._pushed(term)}

    def _pushed(self, term: Term) -> set[tuple[str, str]]:
        """Each feature of a term, with the sign before it and the shape it is paid in."""
        sign = "-" if term.expression.startswith("-") else "+"
        shape = "bump" if "exp(" in term.expression else "line"
        return {(name, sign + shape) for name in features_in(term, self.features.names)}


def _text(expressions: Sequence[str]) -> str:
    return "\n".join(f"term_{i}: {expression}" for i, expression in enumerate(expressions))
