"""Labels without pairs: what KTO learns from them, and from few desirable ones."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import Agent
from headwater.core.records import CompletionComparisons, LabelledCompletions
from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import every_response
from headwater.evaluation.exact_tokens import log_policy
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.methods.language.comparisons.dpo import DPO
from headwater.methods.language.comparisons.kto import KTO
from headwater.networks.token_table import LogLinearResponses
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay

_RESPONSES, _FEATURES, _PAIRS = 40, 12, 100
_KEPT = 10
"""Desirable rows that are left where nine tenths of them are dropped."""
_RATE = 0.01


def _learn(updates: int, key):
    """Mass on desirable responses after learning from pairs, labels, and few desirable labels."""
    responses = every_response(_RESPONSES, 1)
    own_key, taste_key, pair_key, key = jax.random.split(key, 4)
    features = jax.random.normal(own_key, (_RESPONSES, _FEATURES))
    # Half of the responses are desirable, by a direction that the features show.
    score = features @ jax.random.normal(taste_key, (_FEATURES,))
    order = jnp.argsort(-score)
    desirable = jnp.zeros(_RESPONSES, bool).at[order[: _RESPONSES // 2]].set(True)
    draws = jax.random.randint(pair_key, (2, _PAIRS), 0, _RESPONSES // 2)
    better, worse = order[draws[0]], order[_RESPONSES // 2 + draws[1]]
    rows = lambda at: jax.tree.map(lambda x: x[0, at], responses.data)
    labelled = lambda good, bad: LabelledCompletions(
        rows(_shuffled(jnp.concatenate([good, bad]))),
        _shuffled(jnp.arange(good.size + bad.size) < good.size),
    )
    network = LogLinearResponses(features, jnp.zeros(_FEATURES), jnp.zeros(_RESPONSES))

    def evaluate(agent: Agent):
        mass = jnp.exp(log_policy(agent.network(), responses)[0])
        return jnp.sum(jnp.where(desirable, mass, 0.0))

    def after(method, data):
        source = CompletionReplay(data, rows=None)
        problem = TokenProblem(network)
        return learn(
            method, problem, source, updates, evaluate=evaluate, every=updates, key=key
        ).evaluations[-1]

    return {
        "DPO": after(DPO(learning_rate=_RATE), CompletionComparisons(rows(better), rows(worse))),
        "KTO": after(KTO(learning_rate=_RATE), labelled(better, worse)),
        "KTO, a tenth of the desirable": after(
            KTO(learning_rate=_RATE, desirable_weight=_PAIRS / _KEPT),
            labelled(better[:_KEPT], worse),
        ),
        "before": jnp.mean(desirable.astype(jnp.float32)),
    }


def _shuffled(rows):
    """In another order, always the same: neighbours serve as mismatched responses."""
    return rows[np.random.default_rng(0).permutation(rows.shape[0])]


def _experiment(seed: int, instances: int, updates: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    learned = jax.jit(jax.vmap(partial(_learn, updates)))(keys)
    mass = {name: np.asarray(value, np.float64) for name, value in learned.items()}
    few = mass["KTO, a tenth of the desirable"]
    criteria = (
        Criterion("KTO less before", mean_of(mass["KTO"] - mass["before"]), at_least=0.2),
        Criterion("KTO less DPO", mean_of(mass["KTO"] - mass["DPO"]), at_least=-0.05),
        Criterion(
            "a tenth of the desirable rows less DPO", mean_of(few - mass["DPO"]), at_least=-0.1
        ),
    )
    numbers = {name: {"mass on desirable": float(value.mean())} for name, value in mass.items()}
    return Finding(criteria, numbers)


CLAIMS = (
    Claim(
        name="kto-learns-from-labels-alone",
        statement=(
            "From the same responses with labels instead of pairs, KTO puts at least as much mass "
            "on desirable responses as DPO less 0.05; with nine tenths of the desirable rows "
            "dropped, and those left weighted ten times, at least as much less 0.1."
        ),
        methods=("KTO", "DPO"),
        paper="ethayarajh2024kto",
        where=(
            "section 4.2: matching DPO from unpaired labels, also with up to nine tenths fewer "
            "desirable examples; the log-linear policy, margins and numbers are ours"
        ),
        scales={
            "smoke": {"instances": 6, "updates": 100},
            "small": {"instances": 40, "updates": 300},
        },
        experiment=_experiment,
    ),
)
