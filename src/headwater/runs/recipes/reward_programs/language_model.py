"""A proposer that is any language model: from a text that asks for rewards to a text with them."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

from headwater.core.errors import RunError, SpecificationError
from headwater.environments.reward_programs.language import FUNCTIONS, MOST_TERMS, translate
from headwater.environments.reward_programs.rewarded import StepFeatures
from headwater.runs.recipes.reward_programs.feedback import Attempt, Round

_BLOCK = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_RULES = f"""A reward is a program. Each of its lines, {MOST_TERMS} at most, is a term: a name, a \
colon and an expression. The reward of a step is the sum of the terms. Expressions have numbers, \
the features below, + - * /, brackets, and the functions {", ".join(FUNCTIONS)} (clip takes a \
value, the lower and the upper bound). There is nothing else. An example:
```
near: exp(-square(distance) / 0.5)
gentle: -0.1 * effort
```"""


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModelProposer:
    """Asks a language model for rewards, and tells it what came of those before.

    What it answers is data: it is translated for the machine that evaluates rewards, or refused.

    **Arguments:** `ask`: from a text to the model's answer, whatever model it is; `task`: what the
    policies have to do, in words; `features`: that programs may speak of; `meanings`: of features,
    in words, where the names do not say enough; `attempts`: how often to ask at most until there
    are enough programs that can be translated.
    """

    ask: Callable[[str], str]
    task: str
    features: StepFeatures
    meanings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    attempts: int = 3

    def propose(self, rounds: Sequence[Round], count: int) -> list[str]:
        """See `Proposer.propose`.

        Raises `RunError` if too few programs can be translated, with what was wrong with the last.
        """
        found: list[str] = []
        wrong: list[str] = []
        for _ in range(self.attempts):
            answer = self.ask(self._question(rounds, count - len(found), wrong))
            wrong = []
            for text in _BLOCK.findall(answer):
                try:
                    translate(text, self.features.names)
                except SpecificationError as error:
                    wrong.append(str(error))
                else:
                    found.append(text.strip())
            if len(found) >= count:
                return found[:count]
        reason = wrong[-1] if wrong else "no program stood between lines of ```"
        raise RunError(
            f"the language model wrote {len(found)} of {count} rewards in {self.attempts} answers: "
            f"{reason}"
        )

    def _question(self, rounds: Sequence[Round], count: int, wrong: Sequence[str]) -> str:
        features = [
            f"- {name}{': ' + self.meanings[name] if name in self.meanings else ''}"
            for name in self.features.names
        ]
        parts = [
            f"Write rewards with which policies are trained. The task: {self.task}",
            _RULES,
            "Features of a step:\n" + "\n".join(features),
            *(_told(number, found, rounds) for number, found in enumerate(rounds, 1)),
        ]
        if wrong:
            parts.append("Of your last answer could not be used:\n" + "\n".join(wrong))
        parts.append(
            f"Answer with {count} programs that differ, better than those before, each between "
            "lines of ```."
        )
        return "\n\n".join(parts)


def _told(number: int, found: Round, rounds: Sequence[Round]) -> str:
    """What is told of one round: all of the last one, and of earlier ones what was best."""
    told = f"Round {number}. A judge preferred the policies of this reward:\n{_shown(found.best)}"
    if number == len(rounds):
        told += f"\nand found those of this one the worst:\n{_shown(found.worst)}"
        if found.champion is not found.best:
            told += f"\nBetter than both is this one, of before:\n{_shown(found.champion)}"
    return told


def _shown(attempt: Attempt) -> str:
    terms = ", ".join(f"{name} {value:.3g}" for name, value in attempt.terms.items())
    features = ", ".join(f"{name} {value:.3g}" for name, value in attempt.features.items())
    return (
        f"```\n{attempt.text}\n```\nMeans over the steps of its policies, of terms: {terms}; of "
        f"features: {features}."
    )
