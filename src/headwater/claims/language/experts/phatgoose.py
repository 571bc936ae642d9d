"""Whether gates that learned apart from each other route tokens to the right experts."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.decoding.merging import with_adapters_of
from headwater.environments.language.recall_tasks import AlphabetCiphers
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, ratio_of_means
from headwater.evidence.language.experts import each_run
from headwater.evidence.language.routed_experts import (
    KINDS,
    cipher_experts,
    each_expert,
    right_letters,
    texts_by_kind,
    texts_of_two_kinds,
    together,
)
from headwater.networks.adapters.gated import routed


def _experiment(
    seed: int, runs: int, width: int, copying: int, tuning: int, gating: int, rows: int
) -> Finding:
    def one(key):
        task_key, test_key, mixed_key, key = jax.random.split(key, 4)
        task = AlphabetCiphers(key=task_key)
        stacked = cipher_experts(task, width, copying, tuning, gating, rows, key=key)
        experts = each_expert(stacked)
        mixed, _, _ = texts_of_two_kinds(task, 384, key=mixed_key)
        data = together(texts_by_kind(task, 128, key=test_key), mixed)
        own = 128 * KINDS

        def judged(network):
            return right_letters(network.logits(data.tokens), data)

        each = jax.lax.map(lambda expert: judged(expert.adapted), stacked)
        of_own = each[:, :own].reshape(KINDS, KINDS, 128)[jnp.arange(KINDS), jnp.arange(KINDS)]
        found = {
            "own expert": jnp.mean(of_own),
            "best expert, two kinds": jnp.max(jnp.mean(each[:, own:], axis=1)),
        }
        networks = {
            "routed": routed(experts),
            "not standardised": routed(experts, standardised=False),
            "average": with_adapters_of([e.adapted for e in experts], [1.0 / KINDS] * KINDS),
        }
        for name, network in networks.items():
            right = judged(network)
            found[name], found[f"{name}, two kinds"] = (
                jnp.mean(right[:own]),
                jnp.mean(right[own:]),
            )
        return found

    found = {name: np.asarray(x, np.float64) for name, x in each_run(one, seed, runs).items()}
    criteria = (
        Criterion(
            "accuracy of routing over that of each text's own expert",
            ratio_of_means(found["routed"], found["own expert"], seed=seed),
            at_least=0.9,
        ),
        Criterion(
            "accuracy of routing less that of the average of all adapters",
            mean_of(found["routed"] - found["average"]),
            at_least=0.2,
        ),
        Criterion(
            "accuracy of routing less that without standardised tokens and gates",
            mean_of(found["routed"] - found["not standardised"]),
            at_least=0.0,
        ),
        Criterion(
            "accuracy of routing less that of the best expert, on texts of two kinds",
            mean_of(found["routed, two kinds"] - found["best expert, two kinds"]),
            at_least=0.0,
        ),
    )
    numbers = {name: float(values.mean()) for name, values in found.items()}
    return Finding(criteria, {"share of letters right": numbers})


CLAIMS = (
    Claim(
        name="gates-learned-apart-route-tokens",
        statement=(
            "Six experts for ciphers with letters of their own, each with gates that learned "
            "without the others, write at least 0.9 of the letters right that each text's own "
            "expert does, and 0.2 more than the average of their adapters; without standardised "
            "tokens and gates they write fewer; and on texts that mix two ciphers, which no "
            "expert has seen, they write more than the best single expert."
        ),
        methods=("PHATGOOSE", "SFT"),
        paper="muqeeth2024learning",
        where="section 3 and table 1, which compares with the oracle and with merges",
        scales={
            "smoke": {"runs": 3, "width": 8, "copying": 0, "tuning": 0, "gating": 0, "rows": 4},
            "small": {
                "runs": 5,
                "width": 32,
                "copying": 600,
                "tuning": 300,
                "gating": 100,
                "rows": 32,
            },
        },
        experiment=_experiment,
    ),
)
