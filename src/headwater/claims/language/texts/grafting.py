"""How few numbers of a tuned decoder its new skill is in, and what grafting them alone leaves."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.analysis.grafting import skill_mask
from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem
from headwater.decoding.merging import grafted, largest, largest_changes
from headwater.environments.language.recall_tasks import Facts
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, ratio_of_means
from headwater.evidence.language.experts import each_run, trained
from headwater.methods.language.texts.ef21 import EF21
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.runs.learn import learn
from headwater.sources.language.completions import CompletionReplay

_KNOWN, _RATE, _BINS = 4, 2e-3, 10


def _judged(network: Decoder, data: Completions):
    """Whether the value of each fact is the likeliest token, and how probable that token is."""
    chances = jax.nn.softmax(network.logits(data.tokens)[:, 3])
    right = jnp.argmax(chances, axis=-1) == data.tokens[:, 4]
    return right.astype(jnp.float32), jnp.max(chances, axis=-1)


def _calibration_error(right, sure):
    """The distance of accuracy from confidence, averaged over bins of confidence."""
    which = jax.nn.one_hot(jnp.minimum((sure * _BINS).astype(jnp.int32), _BINS - 1), _BINS)
    apart = jnp.einsum("rb,r->b", which, right - sure)
    return jnp.sum(jnp.abs(apart)) / right.shape[0]


def _rows(data: Completions, rows) -> Completions:
    return Completions(data.tokens[rows], data.response[rows])


def _in_both(first, second):
    """The share of the first mask that is in the second, and over that by chance."""
    one, other = (
        jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(m)]) for m in (first, second)
    )
    share = jnp.sum(one & other) / jnp.sum(one)
    return share, share / jnp.mean(other)


def _experiment(
    seed: int,
    runs: int,
    facts: int,
    updates: int,
    tuning: int,
    steps: int,
    width: int,
    share: float,
) -> Finding:
    architecture = Architecture(38, 6, width, 2, 2, hidden=2 * width)

    def one(key):
        task_key, random_key, key = jax.random.split(key, 3)
        task = Facts(key=task_key, domains=_KNOWN + 2, count=facts)
        every = task.every_text()
        place = lambda t: (t.keys, t.values)
        known = eqx.tree_at(place, task, tuple(x[:_KNOWN] for x in place(task)))
        base = trained(SFT(), architecture, known, updates, 64, rate=_RATE, key=key).network
        part = lambda domain: _rows(every, np.arange(facts) + domain * facts)
        # With one worker whose messages hold everything this is gradient descent, as the paper's
        # tuning is: Adam would change all numbers alike.
        method = EF21(learning_rate=0.1, num_workers=1, message_size=10**9)

        def skill(domain):
            source = CompletionReplay(part(domain), rows=None)
            after = learn(method, TokenProblem(base, task.end), source, tuning, key=key)
            tuned = after.state.network
            mask = skill_mask(base, tuned, part(domain), share=share, steps=steps)
            return eqx.filter(tuned, eqx.is_array), mask

        # One after the other in one compiled program, as the judging below.
        tuned, masks = jax.lax.map(skill, _KNOWN + jnp.arange(2))
        tuned = eqx.combine(jax.tree.map(lambda x: x[0], tuned), base)
        mask, other = (jax.tree.map(lambda x, i=i: x[i], masks) for i in range(2))
        drawn = jax.tree.map(
            lambda x: jax.random.uniform(jax.random.fold_in(random_key, x.size), x.shape), mask
        )
        networks = {
            "before": base,
            "tuned": tuned,
            "grafted": grafted(base, tuned, mask),
            "largest changes": grafted(base, tuned, largest_changes(base, tuned, share)),
            "random": grafted(base, tuned, largest(drawn, share)),
        }
        judged = jax.lax.map(
            lambda network: _judged(eqx.combine(network, base), every),
            jax.tree.map(
                lambda *x: jnp.stack(x),
                *(eqx.filter(network, eqx.is_array) for network in networks.values()),
            ),
        )
        share_in_both, overlap = _in_both(mask, other)
        found = {"share of a mask in the other": share_in_both, "overlap of two masks": overlap}
        known = _KNOWN * facts
        for name, right, sure in zip(networks, *judged, strict=True):
            found[f"{name}, new domain"] = jnp.mean(right[known : known + facts])
            found[f"{name}, known domains"] = jnp.mean(right[:known])
            found[f"{name}, calibration error"] = _calibration_error(
                right[: known + facts], sure[: known + facts]
            )
        return found

    found = {name: np.asarray(x, np.float64) for name, x in each_run(one, seed, runs).items()}
    gain = found["tuned, new domain"] - found["before, new domain"]
    part = lambda name: found[f"{name}, new domain"] - found["before, new domain"]
    criteria = (
        Criterion(
            "share of the gain", ratio_of_means(part("grafted"), gain, seed=seed), at_least=0.95
        ),
        Criterion(
            "share of the gain of random numbers",
            ratio_of_means(part("random"), gain, seed=seed),
            at_most=0.3,
        ),
        Criterion(
            "calibration error over that of the tuned decoder",
            ratio_of_means(
                found["grafted, calibration error"], found["tuned, calibration error"], seed=seed
            ),
            at_most=0.7,
        ),
        Criterion(
            "overlap of the masks of two domains over that by chance",
            mean_of(found["overlap of two masks"]),
            at_most=2.0,
        ),
    )
    return Finding(criteria, {name: float(values.mean()) for name, values in found.items()})


CLAIMS = (
    Claim(
        name="a-skill-is-in-few-numbers",
        statement=(
            "Of a decoder that knows four domains of facts and is tuned on a fifth by gradient "
            "descent, 1 % of the numbers, found by a learned mask, carry at least 0.95 of the gain "
            "and a random 1 % at most 0.3; grafting them alone leaves at most 0.7 of the "
            "calibration error; and the masks of two domains overlap at most twice as much as by "
            "chance."
        ),
        methods=("EF21", "SFT"),
        paper="panigrahi2023task",
        where="sections 3 and 4: grafting regions, their calibration, and those of several tasks",
        scales={
            "smoke": {
                "runs": 3,
                "facts": 4,
                "updates": 0,
                "tuning": 3,
                "steps": 2,
                "width": 8,
                "share": 0.05,
            },
            "small": {
                "runs": 3,
                "facts": 12,
                "updates": 500,
                "tuning": 200,
                "steps": 200,
                "width": 64,
                "share": 0.01,
            },
        },
        experiment=_experiment,
        learned=(
            "Fails with seeds 0 to 2 by the overlap: 1 % of 87,000 numbers bring 1.00, 0.94 and "
            "0.97 of the gain (the last two undecided), as many at random none, and the "
            "calibration error falls to 0.55, 0.56 and 0.60 of the tuned decoder's (the last "
            "undecided). But masks of two domains share 0.10 to 0.14 of their numbers, 10 to 14 "
            "times what chance would; in pilots with other seeds about half of these were in the "
            "embedding, which the authors' code can leave out (not tried). With a width of 24 "
            "(13,000 numbers, of which 134 are kept for the values of twelve facts) 0.34, 0.50 "
            "and 0.26 of the gain were found."
        ),
    ),
)
