"""Where DPO sends probability when responses share features, and two terms that keep it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import Agent
from headwater.core.tokens import TokenProblem
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.evidence.similar_responses import similar_responses
from headwater.methods.language.comparisons.dpo import DPO
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay

_METHODS = {"DPO": (1.0, 0.0), "Flex-DPO": (0.5, 0.0), "SFT-DPO": (1.0, 0.02)}
"""Their weights of rejected responses and of cloning."""
_OFFSETS = {"on-policy": 2.5, "off-policy": 0.0}
"""How much likelier the compared responses are than others, beforehand, as a logit."""


def _learn(updates: int, weights, offset, key):
    """Mass on chosen, rejected and other responses, and mean log of chosen, after each update."""
    method = with_numbers(
        DPO(learning_rate=0.01), rejected_weight=weights[0], cloning_weight=weights[1]
    )
    problem_key, key = jax.random.split(key)
    problem = similar_responses(offset, key=problem_key)

    def evaluate(agent: Agent):
        won, lost = problem.logs(agent)
        chosen, rejected = jnp.exp(won).sum(), jnp.exp(lost).sum()
        return {
            "chosen": chosen,
            "rejected": rejected,
            "unseen": 1.0 - chosen - rejected,
            "log of chosen": won.mean(),
        }

    source = CompletionReplay(problem.comparisons, rows=None)
    task = TokenProblem(problem.network)
    return learn(method, task, source, updates, evaluate=evaluate, every=1, key=key).evaluations


def _experiment(seed: int, instances: int, updates: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    criteria, numbers, curves = [], {}, {}
    each = jax.vmap(partial(_learn, updates), (None, None, 0))
    each = jax.vmap(jax.vmap(each, (0, None, None)), (None, 0, None))
    weights, offsets = jnp.asarray(list(_METHODS.values())), jnp.asarray(list(_OFFSETS.values()))
    learned = {
        k: np.asarray(v, np.float64) for k, v in jax.jit(each)(weights, offsets, keys).items()
    }
    for i, kind in enumerate(_OFFSETS):
        found = {name: {k: v[i, j] for k, v in learned.items()} for j, name in enumerate(_METHODS)}
        dpo = found["DPO"]
        fallen = dpo["log of chosen"][:, -1] - dpo["log of chosen"][:, 0]
        excess = dpo["unseen"][:, -1] - dpo["chosen"][:, -1]
        criteria += [
            Criterion(
                f"{kind}: DPO's mass on unseen less on chosen", mean_of(excess), at_least=0.0
            ),
            Criterion(f"{kind}: change of log of chosen under DPO", mean_of(fallen), at_most=0.0),
        ]
        for name in ("Flex-DPO", "SFT-DPO"):
            kept = mean_of(found[name]["chosen"][:, -1])
            criteria.append(Criterion(f"{kind}: {name}'s mass on chosen", kept, at_least=0.7))
        for name, values in found.items():
            masses = {k: float(values[k][:, -1].mean()) for k in ("chosen", "rejected", "unseen")}
            peak = float(values["chosen"].max(axis=1).mean())
            numbers[f"{kind}, {name}"] = {**masses, "highest mass on chosen": peak}
            curves[f"{kind}, {name}"] = (list(range(updates + 1)), values["chosen"])
    return Finding(tuple(criteria), numbers, curves, "updates", "mass on chosen responses")


CLAIMS = (
    Claim(
        name="dpo-loses-what-was-chosen",
        statement=(
            "Where compared responses resemble each other, DPO ends with more mass on responses "
            "that nobody compared than on chosen ones, whose log-probability falls; pushing "
            "rejected responses half as hard (Flex-DPO) or cloning the chosen ones with weight "
            "0.02 (SFT-DPO) ends with at least 0.7 on the chosen ones."
        ),
        methods=("DPO",),
        paper="yan2024properties",
        where=(
            "the abstract's three properties and two regularisers; the log-linear policy and the "
            "numbers are ours"
        ),
        scales={
            "smoke": {"instances": 6, "updates": 300},
            "small": {"instances": 40, "updates": 600},
        },
        experiment=_experiment,
    ),
)
