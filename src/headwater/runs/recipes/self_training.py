"""An agent that learns from its own texts, of which a judge keeps the best."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod, Agent
from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem
from headwater.environments.language.simulated_tools import AbstractTools
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay
from headwater.sources.language.tool_turns import in_turns

StepJudge = Callable[[Int[Array, "*batch position"], PRNGKeyArray], Bool[Array, "*batch turn"]]
"""Whether each call of a text is good, as a judge sees it, from tokens and a key."""


class SelfTraining(NamedTuple):
    """What self-training left.

    **Arguments:** `states`: of the method after each round; `data`: what the last one was learned
    from; rows that were not kept have no response; `kept`: share of the questions of each round of
    which a text was kept.
    """

    states: list[Any]
    data: Completions
    kept: list[Array]


def self_training(
    method: AbstractMethod,
    problem: TokenProblem,
    tools: AbstractTools,
    judge: StepJudge,
    *,
    rounds: int,
    questions: int,
    updates: int,
    samples: int = 4,
    least_good: int = 3,
    growing: bool = True,
    key: PRNGKeyArray,
) -> SelfTraining:
    """ReST with calls of tools (Aksitov et al., 2023, arXiv:2312.10003), as a pure function.

    In each round the last policy answers questions, each `samples` times; of these the judge keeps
    the text with most good calls, if at least `least_good` are. Then `method` learns from what was
    kept in all rounds, and begins at the first network again.

    **Arguments:** `questions`: of a round, drawn uniformly; `updates`: of a round, each with all
    that was kept; `growing`: if false, only what was kept in the last round is learned from.

    Raises `SpecificationError` if there is no round, or more good calls are asked for than there
    are.
    """
    if rounds < 1:
        raise SpecificationError(f"rounds = {rounds}: take at least 1")
    if not 0 <= least_good <= tools.turns:
        raise SpecificationError(
            f"least_good = {least_good} of {tools.turns} calls: take 0 to {tools.turns}"
        )
    *round_keys, first_key = jax.random.split(key, rounds + 1)
    state = method.init(problem, key=first_key)
    states: list[Any] = []
    batches: list[Completions] = []
    kept: list[Array] = []
    for round_key in round_keys:
        ask_key, write_key, judge_key, learn_key = jax.random.split(round_key, 4)
        asked = jax.random.randint(ask_key, (questions,), 0, tools.questions, jnp.int32)
        network = Agent(method, state).network(explore=True)
        written = in_turns(network, tools, jnp.repeat(asked, samples), key=write_key)
        good = jnp.sum(judge(written.tokens, judge_key), axis=-1).reshape(questions, samples)
        best = jnp.argmax(good, axis=-1) + samples * jnp.arange(questions)
        enough = jnp.max(good, axis=-1) >= least_good
        chosen = jax.tree.map(lambda x, best=best: x[best], written)
        response = chosen.response & jnp.broadcast_to(enough[:, None], chosen.response.shape)
        batches = [*(batches if growing else []), Completions(chosen.tokens, response)]
        kept.append(jnp.mean(enough))
        source = CompletionReplay(_together(batches), rows=None)
        state = learn(method, problem, source, updates, key=learn_key).state
        states.append(state)
    return SelfTraining(states, _together(batches), kept)


def _together(batches: list[Completions]) -> Completions:
    return jax.tree.map(lambda *x: jnp.concatenate(x), *batches)
