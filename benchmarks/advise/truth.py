"""Which method is best on each of 47 logs, by training them: what `headwater advise` is held to.

Every log (`logs.py`) is learned from by five or six learners with three seeds, and what is
learned is worth what the task says exactly. Scores are on the scale from uniformly random actions
(0) to the best policy (1). The result goes to `results/benchmarks/advise_SEED.json`, with what
`advise` measures of each log, and `tests/analysis/test_advice.py` holds the rules to it in
seconds.

The rules were made on the logs of seed 0. They are judged on those of seed 1, whose tasks are
others of the same kinds (other maps, costs, rewards, horizons and functions).

The criterion, written down before anything was trained. On a log from which something can be
learned, a recommendation is right if the mean score of its learner is within 0.1 of the best of
them. Advice is as good as hoped if

- the first recommendation is right on at least 80 % of these logs,
- one of the recommendations (at most three) is right on at least 90 %, and
- for at least 90 % of all logs, it says that the log is not worth learning from just if it was made
  so: random actions without rewards, random actions with equal rewards, or 24 rows.
"""

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from logs import Finite, Log, all_logs

from headwater.analysis.measures import measure
from headwater.core.catalogue import build_method
from headwater.core.method import AbstractPolicy
from headwater.datasets.dataset import Dataset
from headwater.datasets.metadata import lacks_rewards
from headwater.datasets.transform import top_episodes
from headwater.runs.learn import learn
from headwater.sources.replay import Replay

SEEDS, UPDATES, BATCH = 3, 4_000, 64
SMALL = {"hidden_sizes": (64, 64)}
FAST = {**SMALL, "learning_rate": 1e-3}
CONTINUOUS: dict[str, tuple[str, dict[str, Any], float | None]] = {
    "BC": ("BC", FAST, None),
    "BC (top=0.1)": ("BC", FAST, 0.1),
    "IQL": ("IQL", FAST, None),
    "TD3BC": ("TD3BC", FAST, None),
    "SACN": (
        "SACN",
        {**SMALL, "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3},
        None,
    ),
}
DISCRETE: dict[str, tuple[str, dict[str, Any], float | None]] = {
    "BC": ("BC", FAST, None),
    "BC (top=0.1)": ("BC", FAST, 0.1),
    "IQL": ("IQL", FAST, None),
    "DiscreteCQL": ("DiscreteCQL", FAST, None),
    "DiscreteCQL (conservative_weight=0.1)": (
        "DiscreteCQL",
        {**FAST, "conservative_weight": 0.1},
        None,
    ),
    # Without its penalty it is double Q-learning, from the log alone.
    "DiscreteCQL (conservative_weight=0.0)": (
        "DiscreteCQL",
        {**FAST, "conservative_weight": 0.0},
        None,
    ),
}
"""What is trained, as recommendations are called: the method, its settings, and the share of the
best episodes, if not all."""


@functools.cache
def _trained(name: str, settings: tuple) -> Any:
    method = build_method(name, dict(settings))
    assert isinstance(method, AbstractPolicy)

    @eqx.filter_jit
    def train(spaces, rows):
        keys = jax.random.split(jax.random.key(0), SEEDS)
        return jax.vmap(
            lambda key: learn(method, spaces, Replay(rows, BATCH), UPDATES, key=key).state
        )(keys)

    @eqx.filter_jit
    def act(state, seen):
        key = jax.random.key(0)
        return jax.vmap(lambda o: method.act(state, o, key=key, explore=False)[0])(seen)

    return method, train, act


def score(log: Log, learner: tuple[str, dict[str, Any], float | None]) -> list[float]:
    """What each seed learns, from 0 (random) to 1 (best)."""
    name, settings, top = learner
    method, train, act = _trained(name, tuple(settings.items()))
    data: Dataset = log.data
    if top is not None:
        data = top_episodes(data, top)
    transitions = data.transitions(getattr(method, "discount", None))
    # As many rows as the whole has, so that nothing is compiled anew.
    again = np.resize(np.arange(data.size), log.data.size)
    rows = jax.tree.map(lambda column: jnp.asarray(np.asarray(column)[again]), transitions)
    states = train(data.spaces, rows)
    found = []
    for seed in range(SEEDS):
        state = jax.tree.map(lambda leaf, i=seed: leaf[i], states)

        def policy(seen, state=state):
            return np.asarray(act(state, jnp.asarray(seen, jnp.float32)))

        if isinstance(log.task, Finite):
            chosen = policy(log.task.features)
            worth = log.task.worth(np.eye(log.task.reward.shape[1])[chosen])
        else:
            worth = log.task.worth(policy)
        found.append((worth - log.random) / (log.best - log.random))
    return found


def main() -> None:
    """Trains, prints as it goes and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=0, help="of the logs")
    parser.add_argument("--out", type=Path, help="by default results/benchmarks/advise_SEED.json")
    parser.add_argument(
        "--measures", action="store_true", help="measure the logs of a result anew, and train none"
    )
    options = parser.parse_args()
    out = options.out or Path(f"results/benchmarks/advise_{options.seed}.json")
    if options.measures:
        found = json.loads(out.read_text())
        for row, log in zip(found["logs"], all_logs(options.seed), strict=True):
            assert row["log"] == log.name
            row.update(_seen(log))
        out.write_text(_written(found))
        return
    rows = []
    for log in all_logs(options.seed):
        begun = time.perf_counter()
        learners = DISCRETE if log.data.spaces.discrete else CONTINUOUS
        if lacks_rewards(log.data.metadata):
            learners = {"BC": learners["BC"]}
        scores = {name: score(log, learner) for name, learner in learners.items()}
        logged = (log.logged - log.random) / (log.best - log.random)
        known = {"log": log.name, "worthless": log.worthless, "logged": logged}
        rows.append({**known, "scores": scores, **_seen(log)})
        told = ", ".join(f"{n} {np.mean(x):.2f}" for n, x in scores.items())
        print(
            f"{log.name}: log {logged:.2f}, {told} ({time.perf_counter() - begun:.0f} s)",
            flush=True,
        )
        made = {"seed": options.seed, "seeds": SEEDS, "updates": UPDATES, "batch_size": BATCH}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(_written({"settings": made, "logs": rows}))


def _seen(log: Log) -> dict[str, Any]:
    """What `advise` sees of a log."""
    measures = {n: round(v, 4) for n, v in measure(log.data).to_json().items()}
    return {"discrete": log.data.spaces.discrete, "measures": measures}


def _written(found: dict[str, Any]) -> str:
    """The result, a line for each log."""
    for row in found["logs"]:
        row["scores"] = {n: [round(v, 4) for v in x] for n, x in row["scores"].items()}
        row["logged"] = round(row["logged"], 4)
    lines = ",\n".join(json.dumps(row) for row in found["logs"])
    return f'{{"settings": {json.dumps(found["settings"])},\n"logs": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    main()
