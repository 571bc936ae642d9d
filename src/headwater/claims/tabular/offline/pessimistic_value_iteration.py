"""Pessimism in narrow logs of finite processes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.evaluation.tuning import choose, held_out_seed
from headwater.evidence.claim import Claim, Criterion, Finding, ratio_of_means
from headwater.evidence.finite_regret import sparse_process
from headwater.methods.tabular.offline.pessimistic_value_iteration import PessimisticValueIteration
from headwater.ops.tabular.planning import expected_return, optimal_values
from headwater.runs.learn import learn
from headwater.sources.episodes import WholeLog, log_episodes


def _narrow_logs(
    seed: int, *, states: int, actions: int, horizon: int, episodes: int, processes: int
) -> Finding:
    methods = {
        f"{penalty}, {scale:g}": PessimisticValueIteration(penalty, scale)
        for penalty in ("hoeffding", "bernstein")
        for scale in (0.1, 0.03, 0.01, 0.003, 0.001)
    }
    methods["greedy"] = PessimisticValueIteration(penalty_scale=0.0)

    @eqx.filter_jit
    def gaps(method, stacked, keys):
        def one(process, key):
            best = optimal_values(process)
            # What is logged does the best most of the time and anything now and then.
            behaviour = 0.9 * best.policy + 0.1 / actions
            data = log_episodes(process, behaviour, episodes=episodes, key=key)
            state = learn(method, process.problem(), WholeLog(data), 1, key=key).state
            policy = method.policy(state, explore=False)
            return jnp.dot(process.initial, best.value[0]) - expected_return(process, policy)

        return eqx.filter_vmap(one)(stacked, keys)

    found = {name: [] for name in methods}
    for place in (held_out_seed(seed), seed):
        each = [
            sparse_process(place * processes + i, states=states, actions=actions, horizon=horizon)
            for i in range(processes)
        ]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *each)
        keys = jax.random.split(jax.random.key(place), processes)
        for name, method in methods.items():
            method = eqx.tree_at(
                lambda m: m.penalty_scale, method, jnp.asarray(method.penalty_scale, jnp.float32)
            )
            found[name].append(np.asarray(gaps(method, stacked, keys), np.float64))
    pessimistic = [name for name in methods if name != "greedy"]
    best = pessimistic[choose(np.stack([found[name][0] for name in pessimistic]))]
    return Finding(
        (
            Criterion(
                "suboptimality gap of the pessimistic policy over the greedy one's",
                ratio_of_means(found[best][1], found["greedy"][1]),
                at_most=0.9,
            ),
        ),
        {
            "chosen": best,
            "suboptimality gap": {name: float(x[1].mean()) for name, x in found.items()},
        },
    )


CLAIMS = (
    Claim(
        name="pessimism-survives-narrow-logs",
        statement="Learned from a log of a good policy that rarely does anything else, the "
        "pessimistic policy falls short of the best by at most 0.9 of what the greedy one does.",
        methods=("PessimisticValueIteration",),
        paper="li2022settling",
        where="a consequence of theorem 1: only the best policy's own steps need to be covered",
        scales={
            "smoke": {"states": 4, "actions": 3, "horizon": 4, "episodes": 50, "processes": 40},
            "small": {"states": 8, "actions": 5, "horizon": 8, "episodes": 200, "processes": 200},
        },
        experiment=_narrow_logs,
        learned="The best multipliers all but follow the log: in narrow logs of good behaviour, "
        "most of the gain is that of imitation. A smaller penalty leaves more to the model and "
        "falls short by more, up to the greedy policy's suboptimality gap without one.",
    ),
)
