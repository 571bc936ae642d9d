"""Arms that show what they are worth only when repeated."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.bandits.tallying import TallyingBandit
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.methods.bandits.exp3 import EXP3
from headwater.methods.bandits.tallying_elimination import TallyingElimination
from headwater.methods.bandits.ucb1 import UCB1
from headwater.runs.learn import learn
from headwater.sources.pulls import LivePulls


def _regret(method, seed, key, *, arms: int, memory: int, rounds: int):
    """Reward of the best arm repeated from the first round on, less that of the method."""
    bandit = TallyingBandit(arms, memory, seed)
    learned = learn(
        method,
        bandit.problem,
        LivePulls(bandit),
        rounds,
        measure=lambda agent, data: {"reward": data.reward[0]},
        key=key,
    )
    start = bandit.reset()
    share = jnp.minimum(jnp.arange(1, rounds + 1), memory) / memory
    best = jnp.sum(start.fresh[0] + (start.exposed[0] - start.fresh[0]) * share)
    return best - learned.sums["reward"][0]


def _additive(
    seed: int, *, instances: int, rounds: int, early: int, memories: list[int]
) -> Finding:
    arms = 8
    keys = jax.random.split(jax.random.key(seed), instances)
    seeds = seed * instances + jnp.arange(instances)

    def regrets(method, memory: int, length: int) -> np.ndarray:
        one = functools.partial(_regret, arms=arms, memory=memory, rounds=length)
        run = eqx.filter_jit(jax.vmap(one, in_axes=(None, 0, 0)))
        return np.asarray(run(method, seeds, keys), np.float64)

    criteria: list[Criterion] = []
    numbers: dict[str, list[float]] = {}
    for memory in memories:
        own = TallyingElimination(memory=memory, num_rounds=rounds)
        cautious = TallyingElimination(memory=5 * memory, num_rounds=rounds)
        in_turn = TallyingElimination(num_rounds=rounds, interleaved=True)
        regret = regrets(own, memory, rounds)
        numbers[f"m={memory}"] = regret.tolist()
        for name, other in (("UCB1", UCB1()), ("EXP3", EXP3()), ("elimination in turn", in_turn)):
            other_regret = regrets(other, memory, rounds)
            numbers[f"m={memory}, {name}"] = other_regret.tolist()
            criteria.append(
                Criterion(
                    f"m = {memory}: more than {name}", mean_of(regret - other_regret), at_most=0.0
                )
            )
        more = regrets(cautious, memory, rounds) - regret
        criteria.append(
            Criterion(
                f"m = {memory}: more with M = 5 m, per m K", mean_of(more / (memory * arms)),
                at_most=4.0,
            )
        )  # fmt: skip
        short = TallyingElimination(memory=memory, num_rounds=early)
        numbers[f"m={memory}, T={early}, more than UCB1"] = (
            regrets(short, memory, early) - regrets(UCB1(), memory, early)
        ).tolist()
    return Finding(tuple(criteria), numbers)


CLAIMS = (
    Claim(
        name="repeating-arms-beats-bandits-that-mix-them",
        statement="With eight arms that depend on their share of the last 10 or 100 pulls, "
        "elimination in blocks falls short of the best arm by less than UCB1, EXP3 and elimination "
        "in turn after 16,000 rounds; a memory that is taken for five times as long costs at most "
        "4 m K rewards more.",
        methods=("TallyingElimination", "UCB1", "EXP3"),
        paper="malik2023weighted",
        where="the theorem on complete policy regret, whose cost of memory is additive; sizes and "
        "thresholds are a reproduction's",
        scales={
            "smoke": {"instances": 3, "rounds": 400, "early": 200, "memories": [5]},
            "small": {"instances": 48, "rounds": 16_000, "early": 4_000, "memories": [10, 100]},
        },
        experiment=_additive,
    ),
)
