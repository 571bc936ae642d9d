"""TSCAC: more watch time from a log of recommendations, and no less of any other response."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from headwater.core.method import AbstractMethod, ActorCriticParts
from headwater.core.records import AuxiliaryTransitions, Transitions
from headwater.core.spaces import Spaces, Statistics
from headwater.datasets.dataset import Dataset
from headwater.environments.interaction import auxiliary_episodes
from headwater.environments.recommendation.short_videos import ShortVideos, Videos, ranker_logits
from headwater.evaluation.off_policy import evaluate_off_policy
from headwater.evaluation.tuning import choose
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.methods.control.offline.awac import AWAC
from headwater.methods.control.offline.offline_rcpo import OfflineRCPO
from headwater.methods.control.offline.tscac import TSCAC
from headwater.runs.learn import learn
from headwater.sources.replay import AuxiliaryReplay, Replay

_REWARDS = ("watch", "like", "share")
_UNIFORM = 0.2
"""How often the policy of the log shows any video at all."""
_PENALTY = 5.0
"""Of a setting, for each share of the log's level by which an auxiliary reward falls short."""

# As many settings of each method, and those of the weighted sum are TSCAC's: with no future the two
# are the same method.
_TSCAC = [
    {"auxiliary_temperature": t, "constraint_multiplier": m}
    for t, m in ((0.15, 0.35), (0.15, 1.0), (0.3, 0.6), (0.5, 0.35), (0.5, 1.0))
]
_SUM = [
    {"advantage_temperature": 2.0 * s["constraint_multiplier"],
     "weight": s["constraint_multiplier"] / s["auxiliary_temperature"]}
    for s in _TSCAC
]  # fmt: skip
_RCPO = [
    {"advantage_temperature": t, "multiplier_learning_rate": rate}
    for t, rate in ((0.7, 0.003), (0.7, 0.03), (1.2, 0.01), (2.0, 0.003), (2.0, 0.03))
]
_WATCH = [{"advantage_temperature": t, "weight": 0.0} for t in (0.35, 0.7, 1.2, 2.0, 3.0)]
_CLONING = [{"advantage_temperature": float("inf"), "weight": 0.0}]


class _Log(NamedTuple):
    """Rows of each instance `[instance, row, …]`, and what the policy that logged them earns."""

    rows: AuxiliaryTransitions
    log_propensity: Float[Array, "instance row"]
    spaces: Spaces
    earns: Float[np.ndarray, "instance reward"]


class _Ranker(eqx.Module):
    """Logits of what logs: what is likely to be watched to its end, and sometimes anything."""

    videos: Videos

    def __call__(self, observation: Array) -> Array:
        environment = ShortVideos(videos=self.videos)
        ranked = jax.nn.log_softmax(ranker_logits(environment, observation, 1.0))
        anything = jnp.log(_UNIFORM / environment.items)
        return jnp.logaddexp(jnp.log(1.0 - _UNIFORM) + ranked, anything)


class _Softmax(eqx.Module):
    """Logits of a policy that was learned."""

    parts: ActorCriticParts

    def __call__(self, observation: Array) -> Array:
        return self.parts.actor(self.parts.normaliser(observation)).logits


@eqx.filter_jit
def _walk(
    policies: _Ranker | _Softmax,
    videos: Videos,
    sessions: int,
    keys: Key[Array, " pair"],
) -> tuple[AuxiliaryTransitions, Bool[Array, "pair step session"]]:
    """Whole sessions with each policy and its videos."""

    def one(given):
        policy, shown, key = given
        environment = ShortVideos(videos=shown)
        act = lambda observation, k: jax.random.categorical(k, policy(observation)).astype(
            jnp.int32
        )
        return auxiliary_episodes(environment, act, episodes=sessions, key=key)

    # One after the other, for less memory.
    return jax.lax.map(one, (policies, videos, keys))


def _earned(rows: AuxiliaryTransitions, lived: Array) -> Float[np.ndarray, "pair reward"]:
    """The mean of each reward over sessions."""
    each = np.concatenate([np.asarray(rows.reward)[..., None], rows.auxiliary], axis=-1)
    return (each * np.asarray(lived)[..., None]).sum(1).mean(1)


def _log(videos: Videos, rows: int, keys: Key[Array, " instance"]) -> _Log:
    """The first `rows` rows of sessions with the ranker, and what it earns in all of them."""
    # Sessions last more than 7 steps on average.
    walked, lived = _walk(_Ranker(videos), videos, rows // 5 + 20, keys)
    in_order = lambda x: np.swapaxes(np.asarray(x), 1, 2)
    alive = in_order(lived)
    found = [np.flatnonzero(each)[:rows] for each in alive]
    kept = jax.tree.map(
        lambda x: np.stack(
            [each.reshape(-1, *each.shape[2:])[at] for each, at in zip(in_order(x), found)]
        ),
        walked,
    )
    # The last session is cut where the rows end.
    kept.truncated[:, -1] |= ~kept.terminal[:, -1]
    kept = jax.tree.map(jnp.asarray, kept)
    logits = eqx.filter_jit(jax.vmap(lambda ranker, seen: jax.vmap(ranker)(seen)))(
        _Ranker(videos), kept.observation
    )
    chance = jnp.take_along_axis(logits, kept.action[..., None], axis=-1)[..., 0]
    earns = _earned(walked, lived)

    def statistics_of(rows: AuxiliaryTransitions, earned: Float[Array, ""]) -> Statistics:
        return Statistics(
            observation_mean=jnp.mean(rows.observation, axis=0),
            observation_std=jnp.std(rows.observation, axis=0),
            return_low=jnp.zeros(()),
            return_high=earned,
            reward_mean=jnp.mean(rows.reward),
            reward_std=jnp.std(rows.reward),
            terminal_share=jnp.mean(rows.terminal.astype(jnp.float32)),
            return_to_go_mean=earned,
        )

    statistics = jax.vmap(statistics_of)(kept, jnp.asarray(earns[:, 0], jnp.float32))
    known = ShortVideos().spaces
    spaces = Spaces(known.observation, known.action, known.horizon, statistics)
    return _Log(kept, chance, spaces, earns)


def _summed(
    rows: AuxiliaryTransitions, spaces: Spaces, weight: Array
) -> tuple[Transitions, Spaces]:
    """Rows whose one reward is a weighted sum, each part in its own deviations, and their level."""
    parts = rows.auxiliary / jnp.maximum(jnp.std(rows.auxiliary, axis=0), 1e-6)[None]
    main = rows.reward / jnp.maximum(jnp.std(rows.reward), 1e-6)
    total = main + weight * jnp.mean(parts, axis=-1)
    place = lambda s: (s.statistics.reward_mean, s.statistics.reward_std)
    spaces = eqx.tree_at(place, spaces, (jnp.mean(total), jnp.std(total)))
    rest = rows.next_observation, rows.terminal, rows.truncated
    return Transitions(rows.observation, rows.action, total, *rest), spaces


def _learned(
    method: AbstractMethod,
    pairs: Sequence[tuple[dict[str, float], int]],
    log: _Log,
    updates: int,
    batch: int,
    key: Key[Array, ""],
) -> Any:
    """The states that each pair of a setting and an instance ends with, `[pair]`."""
    numbers = {n: jnp.asarray([s[n] for s, _ in pairs], jnp.float32) for n in pairs[0][0]}
    which = jnp.asarray([instance for _, instance in pairs])
    rows, spaces = jax.tree.map(lambda x: x[which], (log.rows, log.spaces))
    begin_key, learn_key = jax.random.split(key)
    weights = numbers.pop("weight", None)
    source: AuxiliaryReplay | Replay = AuxiliaryReplay(rows, batch)
    if weights is not None:
        summed, spaces = jax.vmap(_summed)(rows, spaces, weights)
        source = Replay(summed, batch)
    # Not compiled as one, which takes longer than all the rest.
    begun = [
        method.init(jax.tree.map(lambda x, i=i: x[i], spaces), key=jax.random.fold_in(begin_key, i))
        for i in range(len(pairs))
    ]
    begun = jax.tree.map(lambda *x: jnp.stack(x), *begun)
    keys = jax.random.split(learn_key, len(pairs))
    return _all_learned(method, numbers, spaces, source, begun, updates, keys)


@eqx.filter_jit
def _all_learned(method, numbers, spaces, source, begun, updates, keys) -> Any:
    def one(numbers, spaces, source, state, key):
        configured = with_numbers(method, **numbers)
        return learn(configured, spaces, source, updates, state=state, key=key).state

    return jax.vmap(one)(numbers, spaces, source, begun, keys)


def _tuned(
    method: AbstractMethod,
    settings: Sequence[dict[str, float]],
    score: Callable[[np.ndarray], np.ndarray],
    instances: int,
    run: Callable[..., tuple[Any, np.ndarray]],
) -> tuple[dict[str, float], Any, np.ndarray]:
    """The setting that is best on the instance held out, and how it does on the others."""
    chosen = 0
    if len(settings) > 1:
        # The first instance judges nobody.
        earned = run(method, [(setting, 0) for setting in settings])[1]
        chosen = choose(score(np.asarray(earned))[:, None], largest=True)
    judged = [(settings[chosen], 1 + i) for i in range(instances)]
    state, earned = run(method, judged)
    return settings[chosen], state, np.asarray(earned, np.float64)


def _estimated(method: AbstractMethod, state: Any, log: _Log, at: int) -> dict[str, dict[str, Any]]:
    """What weighted importance sampling says from the log of one instance, of each reward."""
    rows = jax.tree.map(lambda x: np.asarray(x[at]), log.rows)
    found = {}
    for name, reward in zip(_REWARDS, (rows.reward, *rows.auxiliary.T)):
        data = Dataset.from_arrays(
            rows.observation,
            rows.action,
            reward,
            rows.terminal,
            rows.truncated,
            rows.next_observation,
            action_count=log.spaces.action_size,
            horizon=log.spaces.horizon,
            log_propensities=np.asarray(log.log_propensity[at]),
        )
        judged = evaluate_off_policy(data, method, state, estimators=("wis",), discount=1.0)
        found[name] = judged["wis"].to_json()
    return found


def _several_rewards(
    seed: int,
    *,
    instances: int,
    rows: int,
    updates: int,
    sessions: int,
    width: int = 32,
    batch: int = 128,
) -> Finding:
    """Watch, like and share of what each method learns, over those of the log's own policy."""
    log_key, learn_key, walk_key = jax.random.split(jax.random.key(seed), 3)
    seeds = 1_000 * seed + jnp.arange(1 + instances)
    videos = eqx.filter_jit(jax.vmap(lambda s: ShortVideos(seed=s).shown))(seeds)
    log = _log(videos, rows, jax.random.split(log_key, len(seeds)))
    logged = log.earns.astype(np.float64)
    sizes = {"hidden_sizes": (width, width), "learning_rate": 1e-3, "discount": 0.95}

    def run(method, pairs):
        state = _learned(method, pairs, log, updates, batch, learn_key)
        policies = _Softmax(jax.vmap(method.parts)(state))
        which = jnp.asarray([instance for _, instance in pairs])
        there = jax.tree.map(lambda x: x[which], videos)
        keys = jax.random.split(walk_key, len(pairs))
        return state, _earned(*_walk(policies, there, sessions, keys))

    def within(earned: np.ndarray) -> np.ndarray:
        ratio = earned / logged[0]
        return ratio[..., 0] - _PENALTY * np.maximum(0.0, 1.0 - ratio[..., 1:]).sum(-1)

    def watched(earned: np.ndarray) -> np.ndarray:
        return earned[..., 0] / logged[0, 0]

    # Rewards are divided before they are summed.
    summing = AWAC(reward_scale=1.0, **sizes)
    tried = {
        "TSCAC": (TSCAC(**sizes), _TSCAC, within),
        "weighted sum": (summing, _SUM, within),
        "RCPO": (OfflineRCPO(**sizes), _RCPO, within),
        "watch time alone": (summing, _WATCH, watched),
        "cloning": (summing, _CLONING, within),
    }
    ratios, chosen, last = {}, {}, {}
    for name, (method, settings, score) in tried.items():
        chosen[name], last[name], earned = _tuned(method, settings, score, instances, run)
        ratios[name] = earned / logged[1:]
    ours, alone = ratios["TSCAC"], ratios["watch time alone"]
    first = jax.tree.map(lambda x: x[0], last["TSCAC"])
    return Finding(
        (
            Criterion("watch time of TSCAC over the log's", mean_of(ours[:, 0]), at_least=1.05),
            *(
                Criterion(f"{name}s of TSCAC over the log's", mean_of(ours[:, i]), at_least=1.0)
                for i, name in enumerate(_REWARDS[1:], start=1)
            ),
            Criterion(
                "the lower of likes and shares over the log's, of one critic of watch time",
                mean_of(alone[:, 1:].min(axis=1)),
                at_most=1.0,
            ),
        ),
        {
            "over the log's": {
                name: {r: mean_of(table[:, i]) for i, r in enumerate(_REWARDS)}
                for name, table in ratios.items()
            },
            "settings": {name: dict(s) for name, s in chosen.items()},
            "TSCAC in the first instance": {
                "earns": dict(zip(_REWARDS, (ours[0] * logged[1]).tolist())),
                "estimated from the log": _estimated(TSCAC(**sizes), first, log, 1),
            },
        },
    )


CLAIMS = (
    Claim(
        "tscac-gains-watch-time-and-loses-no-other-response",
        "From 100,000 logged steps of sessions with 50 short videos TSCAC learns a policy that "
        "earns at least 5 % more watch time than the log's own, and no fewer likes and shares; one "
        "critic of watch time alone loses likes or shares. Judged by fresh sessions; settings of "
        "each method are chosen among five in sessions with other videos.",
        ("TSCAC", "OfflineRCPO", "AWAC"),
        "cai2023two",
        "a consequence of its tables: more watch time, and better interactions, than the ranker "
        "that is in place",
        {
            "smoke": {
                "instances": 5,
                "rows": 400,
                "updates": 20,
                "sessions": 40,
                "width": 8,
                "batch": 16,
            },
            "small": {"instances": 5, "rows": 100_000, "updates": 3_000, "sessions": 2_000},
        },
        _several_rewards,
        learned=(
            "Seed 0: 3.7 times the log's watch time, 2.0 times its likes and 1.7 times its "
            "shares, in the mean of five instances; watch time alone brings 5.1 times the watch "
            "time and 0.6 of the shares. The ranker that logs knows nothing of lengths, so that "
            "the bound of 5 % is easily kept. The weighted sum brings more watch time (4.3) and "
            "fewer likes (1.5) and shares (1.0); RCPO 3.7, 1.2 and 0.9. The settings chosen for "
            "TSCAC are the least temperature and multiplier that were tried. Weighted importance "
            "sampling refuses to judge what the first instance taught: 4 of 13,416 sessions count."
        ),
    ),
)
