"""What observations are worth where changing the arm costs something."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.bandits.bernoulli import BernoulliBandit
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.methods.bandits.batched_hedge import BatchedHedge
from headwater.runs.learn import learn
from headwater.sources.pulls import LivePulls

_ARMS = 5


def _costs(method, gap, seed, key, rounds: int):
    """Regret with one for each change of the arm, and the number of these."""
    bandit = BernoulliBandit(_ARMS, gap, seed=seed)  # pyright: ignore[reportCallIssue]
    source = LivePulls(bandit, shows_all=method.feedback == "full")
    learned = learn(
        method,
        bandit.problem,
        source,
        rounds,
        measure=lambda agent, data: {"regret": data.regret[0]},
        key=key,
    )
    changes = learned.sums["switches"][0]
    # Their logarithms are compared, and a run may be so lucky as to cost nothing.
    return jnp.maximum(learned.sums["regret"][0] + changes, 1.0), changes


def _phases(
    seed: int, *, instances: int, rounds: int, observations: list[int], lengths: list[int]
) -> Finding:
    keys = jax.random.split(jax.random.key(seed), instances)
    seeds = seed * instances + jnp.arange(instances)
    run = eqx.filter_jit(jax.vmap(_costs, in_axes=(None, None, 0, 0, None)))

    def costs(method, gap: float, length: int):
        found = run(method, jnp.float32(gap), seeds, keys, length)
        return tuple(np.asarray(x, np.float64) for x in found)

    by_budget, changes = [], []
    for count in observations:
        gap = 0.5 * np.sqrt(np.log(_ARMS) / count)
        cost, changed = costs(BatchedHedge(rounds, count), gap, rounds)
        by_budget.append(cost)
        changes.append(changed / (2.0 * np.sqrt(count * np.log(_ARMS))))
    slopes = np.polyfit(np.log(observations), np.log(np.stack(by_budget)), 1)[0]
    full, single = [], []
    for length in lengths:
        gap = length ** (-1.0 / 3.0)
        few = round(_ARMS ** (1 / 3) * length ** (2 / 3))
        single.append(costs(BatchedHedge(length, few, feedback="bandit"), gap, length)[0])
        gap = 0.5 * np.sqrt(np.log(_ARMS) / length)
        full.append(costs(BatchedHedge(length, length), gap, length)[0])
    exponents = [
        np.polyfit(np.log(lengths), np.log(np.stack(found)), 1)[0] for found in (single, full)
    ]
    slope, bandit, seen = (mean_of(x) for x in (slopes, *exponents))
    return Finding(
        (
            Criterion("slope in the observations, at least", slope, at_least=-0.6),
            Criterion("slope in the observations, at most", slope, at_most=-0.35),
            Criterion("exponent of bandit feedback, at least", bandit, at_least=0.55),
            Criterion("exponent of bandit feedback, at most", bandit, at_most=0.75),
            Criterion("exponent of full feedback, at least", seen, at_least=0.4),
            Criterion("exponent of full feedback, at most", seen, at_most=0.55),
            Criterion(
                "changes over 2 √(B ln K), the most", mean_of(np.max(changes, axis=0)), at_most=1.0
            ),
        ),
        {"by observations": np.stack(by_budget).tolist(), "bandit": np.stack(single).tolist(),
         "full": np.stack(full).tolist()},
        {"full feedback": (observations, np.stack(by_budget).T)},
        across="observations",
        up="regret and changes of the arm",
        logarithmic="xy",
    )  # fmt: skip


CLAIMS = (
    Claim(
        name="observations-pay-where-switching-costs",
        statement="With five arms and unit costs of changing the arm, the regret falls with B "
        "observations of all losses about as 1/√B; bandit feedback alone grows as T^(2/3), full "
        "feedback as T^(1/2); the arm changes at most 2 √(B ln K) times.",
        methods=("BatchedHedge",),
        paper="cheng2023understanding",
        where="the theorems on the rates; gaps matched to the budget and thresholds are a "
        "reproduction's",
        scales={
            "smoke": {
                "instances": 3,
                "rounds": 512,
                "observations": [16, 64],
                "lengths": [128, 512],
            },
            "small": {
                "instances": 20,
                "rounds": 65_536,
                "observations": [256, 1_024, 4_096, 16_384],
                "lengths": [4_096, 16_384, 65_536],
            },
        },
        experiment=_phases,
    ),
)
