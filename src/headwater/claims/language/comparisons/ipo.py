"""What the squared loss is for: labels that are certain do not push a policy to the edge."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.records import CompletionComparisons
from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import every_response
from headwater.evaluation.exact_tokens import log_policy
from headwater.evidence.claim import Claim, Criterion, Finding, exactly, with_numbers
from headwater.methods.language.comparisons.dpo import DPO
from headwater.methods.language.comparisons.ipo import IPO
from headwater.networks.token_table import PrefixTable
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay

_WEIGHTS = (0.1, 0.5, 2.0)
_ARMS = 3


def _learn(method, weight, key, updates: int):
    """Log-policy `[response]` before and after learning from three certain comparisons."""
    responses = every_response(_ARMS, 1)
    table, order_key, key = jax.random.split(key, 3)
    task = TokenProblem(PrefixTable(_ARMS, 2, key=table))
    best, middle, worst = jax.random.permutation(order_key, _ARMS)
    chosen = jnp.stack([best, middle, best])
    rejected = jnp.stack([middle, worst, worst])
    rows = [jax.tree.map(lambda x, at=at: x[0, at], responses.data) for at in (chosen, rejected)]
    method = with_numbers(method, beta=weight)
    source = CompletionReplay(CompletionComparisons(*rows), rows=None)
    state = learn(method, task, source, updates, key=key).state
    order = jnp.stack([best, middle, worst])
    return tuple(
        log_policy(network, responses)[0, order] for network in (task.network, state.network)
    )


def _experiment(seed: int, instances: int, updates: int) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    weights = jnp.asarray(_WEIGHTS)
    found = {}
    for name, method in (
        ("DPO", DPO(learning_rate=3.0)),
        ("IPO", IPO(normalise_lengths=False, learning_rate=0.1, decay_updates=float(updates))),
    ):
        each = jax.vmap(
            lambda key, m=method: jax.vmap(lambda w: _learn(m, w, key, updates))(weights)
        )
        found[name] = [np.asarray(x, np.float64) for x in jax.jit(each)(keys)]
    largest = np.exp(found["DPO"][1]).max(-1)
    ratio = found["IPO"][1] - found["IPO"][0]
    gaps = ratio[..., :-1] - ratio[..., 1:]
    missed = np.abs(gaps * 3 * np.asarray(_WEIGHTS)[:, None] - 1)
    criteria = (
        Criterion("smallest probability of DPO's favourite", exactly(largest.min()), at_least=0.99),
        Criterion("largest error of IPO's gaps, relative", exactly(missed.max()), at_most=0.05),
    )
    kept = np.exp(found["IPO"][1]).max(-1).mean(0)
    numbers = {
        "weights": list(_WEIGHTS),
        "mean probability of the favourite, IPO": kept.tolist(),
        "mean probability of the favourite, DPO": largest.mean(0).tolist(),
        "mean gaps of IPO": gaps.mean(axis=(0, 2)).tolist(),
    }
    curves = {
        "DPO": (list(_WEIGHTS), largest),
        "IPO": (list(_WEIGHTS), np.exp(found["IPO"][1]).max(-1)),
    }
    return Finding(
        criteria, numbers, curves, "weight of the divergence", "probability of the favourite", "x"
    )


CLAIMS = (
    Claim(
        name="ipo-stays-near-the-reference",
        statement=(
            "Where the better of two responses always wins, DPO gives one of three responses a "
            "probability above 0.99 however strong its regularisation (0.1, 0.5 and 2), and IPO "
            "keeps the log-ratios of neighbours 1/(3τ) apart, within 5 %, from any reference."
        ),
        methods=("IPO", "DPO"),
        paper="azar2024general",
        where="the examples with two and three responses; the gap is a consequence of the loss",
        scales={
            "smoke": {"instances": 4, "updates": 600},
            "small": {"instances": 32, "updates": 3000},
        },
        experiment=_experiment,
    ),
)
