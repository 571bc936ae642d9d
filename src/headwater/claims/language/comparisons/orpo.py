"""What a penalty on odds changes about fine-tuning: rejected responses do not rise with chosen."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import Agent
from headwater.core.tokens import TokenProblem
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.evidence.similar_responses import similar_responses
from headwater.methods.language.comparisons.orpo import ORPO
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay

_WEIGHTS = {"fine-tuning": 0.0, "ORPO": 1.0}
"""Of the term that compares: without it, ORPO is fine-tuning on chosen responses."""


def _learn(updates: int, weight, key):
    """Mass on chosen and rejected responses, and their mean logs, before and after."""
    method = with_numbers(ORPO(learning_rate=0.01), beta=weight)
    problem_key, key = jax.random.split(key)
    problem = similar_responses(0.0, key=problem_key)

    def evaluate(agent: Agent):
        won, lost = problem.logs(agent)
        return {"chosen": jnp.exp(won).sum(), "log chosen": won.mean(), "log rejected": lost.mean()}

    source = CompletionReplay(problem.comparisons, rows=None)
    task = TokenProblem(problem.network)
    return learn(method, task, source, updates, evaluate=evaluate, every=1, key=key).evaluations


def _experiment(seed: int, instances: int, updates: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    each = jax.vmap(jax.vmap(partial(_learn, updates), (None, 0)), (0, None))
    learned = jax.jit(each)(jnp.asarray(list(_WEIGHTS.values())), keys)
    learned = {name: np.asarray(value, np.float64) for name, value in learned.items()}
    # [method, instance, evaluation]
    change = {name: value[..., -1] - value[..., 0] for name, value in learned.items()}
    apart = change["log chosen"] - change["log rejected"]
    tuned, ours = 0, 1
    criteria = (
        Criterion(
            "rise of log of rejected under fine-tuning",
            mean_of(change["log rejected"][tuned]),
            at_least=0.0,
        ),
        Criterion(
            "rise of log of chosen under ORPO", mean_of(change["log chosen"][ours]), at_least=0.0
        ),
        Criterion(
            "log of rejected, ORPO less fine-tuning",
            mean_of(change["log rejected"][ours] - change["log rejected"][tuned]),
            at_most=0.0,
        ),
        Criterion(
            "chosen over rejected, ORPO less fine-tuning",
            mean_of(apart[ours] - apart[tuned]),
            at_least=0.0,
        ),
    )
    numbers = {
        name: {
            "mass on chosen": float(learned["chosen"][i, :, -1].mean()),
            **{what: float(change[what][i].mean()) for what in ("log chosen", "log rejected")},
        }
        for i, name in enumerate(_WEIGHTS)
    }
    curves = {
        name: (list(range(updates + 1)), learned["log rejected"][i])
        for i, name in enumerate(_WEIGHTS)
    }
    return Finding(criteria, numbers, curves, "updates", "mean log of rejected responses")


CLAIMS = (
    Claim(
        name="orpo-lowers-what-was-rejected",
        statement=(
            "Where compared responses resemble each other, fine-tuning on the chosen ones makes "
            "the rejected ones likelier too; with the penalty on odds the chosen ones still become "
            "likelier, the rejected ones are less likely than after fine-tuning, and the two are "
            "further apart."
        ),
        methods=("ORPO",),
        paper="hong2024orpo",
        where=(
            "section 3 and figure 3: log-probabilities of rejected responses rise with those of "
            "chosen ones; section 7; the log-linear policy, its numbers and weight 1 are ours"
        ),
        learned=(
            "Fine-tuning to the end does not raise the rejected responses here, although they "
            "resemble the chosen ones: with so few responses the chosen ones take the mass. What "
            "ORPO adds (further apart, rejected less likely, chosen still likelier) holds."
        ),
        scales={
            "smoke": {"instances": 6, "updates": 100},
            "small": {"instances": 40, "updates": 300},
        },
        experiment=_experiment,
    ),
)
