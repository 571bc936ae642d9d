"""Tools that an agent calls in turns: simulated, so that nothing outside is reached."""

import abc
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


class AbstractTools(eqx.Module):
    """What tools answer. A text is a question, then in turns a call and what it brings.

    Tokens count questions first, then calls, then answers.
    """

    calls: eqx.AbstractVar[int]
    """How many there are to choose from."""
    answers: eqx.AbstractVar[int]
    """What calls may bring."""

    @property
    @abc.abstractmethod
    def questions(self) -> int:
        """How many there are."""

    @property
    @abc.abstractmethod
    def turns(self) -> int:
        """Calls in a text."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.questions + self.calls + self.answers

    @abc.abstractmethod
    def begin(self, question: Int[Array, " row"]) -> Any:
        """The state of the tools when a question has been asked."""

    @abc.abstractmethod
    def call(self, state: Any, call: Int[Array, " row"]) -> tuple[Any, Int[Array, " row"]]:
        """The state after a call, and the answer, both counted from zero."""


class Procedures(AbstractTools):
    """Questions that need a procedure of calls, which nobody tells.

    What a call brings depends on all calls so far and says nothing about whether they were right.

    **Arguments:** `right`: the right call of each turn, for each question; `calls`: of which there
    are so many; `answers`: what calls may bring.
    """

    right: Int[Array, "question turn"]
    calls: int = eqx.field(static=True, default=6)
    answers: int = eqx.field(static=True, default=4)

    @property
    def questions(self) -> int:
        """How many there are."""
        return self.right.shape[0]

    @property
    def turns(self) -> int:
        """Calls in a procedure."""
        return self.right.shape[1]

    def begin(self, question: Int[Array, " row"]) -> Int[Array, " row"]:
        return question % self.answers

    def call(self, state: Int[Array, " row"], call: Int[Array, " row"]):
        state = (3 * state + call + 1) % self.answers
        return state, state

    def judge(
        self,
        tokens: Int[Array, "*batch position"],
        accuracy: float | Float[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> Bool[Array, "*batch turn"]:
        """Whether a judge who is right so often calls each call right."""
        called = tokens[..., 1::2] - self.questions
        truth = called == self.right[tokens[..., 0]]
        sees = jax.random.uniform(key, truth.shape) < accuracy
        return truth == sees
