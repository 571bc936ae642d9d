"""Networks that are fitted too long: bad probabilities, and an order of choices that stays good."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from headwater.analysis.temperature import best_temperature, decision_quality
from headwater.core.method import Agent
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.evidence.digits import CLASSES, SPACES, digits
from headwater.methods.control.imitation.bc import BC
from headwater.runs.learn import learn
from headwater.sources.replay import Replay

_TRAINING, _BATCH = 600, 64


def _noisy(labels, noise: float, key):
    """Labels of which a share is drawn anew."""
    which_key, label_key = jax.random.split(key)
    other = jax.random.randint(label_key, labels.shape, 0, CLASSES, labels.dtype)
    return jnp.where(jax.random.uniform(which_key, labels.shape) < noise, other, labels)


def _experiment(
    seed: int, runs: int, noise: float, width: int, updates: int, looks: int
) -> Finding:
    method = BC(learning_rate=1e-3, normalise_observations=False, hidden_sizes=(width,))

    def one(data, others, key):
        train_key, test_key, key = jax.random.split(key, 3)
        clean = others.action
        labels = _noisy(clean, noise, test_key)
        data = dataclasses.replace(data, action=_noisy(data.action, noise, train_key))
        half = clean.shape[0] // 2

        def evaluate(agent: Agent):
            state = agent.state
            chances = state.actor(others.observation)
            each = [chances.log_density(jnp.full(clean.shape, c)) for c in range(CLASSES)]
            logits = jnp.stack(each, axis=-1)
            # Fitted on one half of the other rows, and everything judged on the rest.
            temperature = best_temperature(logits[:half], labels[:half])
            rest = logits[half:]
            noisy, right = labels[half:], clean[half:]
            raw, cured = (decision_quality(rest, noisy, t) for t in (1.0, temperature))
            seen = decision_quality(rest, right)
            return {
                "loss": raw.loss,
                "cured loss": cured.loss,
                "best": seen.best_accuracy,
                "sampled": seen.sampling_accuracy,
                "temperature": temperature,
            }

        return learn(
            method,
            SPACES,
            Replay(data, _BATCH),
            updates,
            evaluate=evaluate,
            every=updates // looks,
            key=key,
        ).evaluations

    rows = [digits(1_000 * seed + run, _TRAINING) for run in range(runs)]
    data, others = (jax.tree.map(lambda *x: jnp.stack(x), *part) for part in zip(*rows))
    keys = jax.random.split(jax.random.key(seed), runs)
    each = jax.jit(lambda *given: jax.lax.map(lambda one_run: one(*one_run), given))
    found = {n: np.asarray(x, np.float64) for n, x in each(data, others, keys).items()}
    run = np.arange(runs)
    early = found["loss"].argmin(axis=1)
    least, last = found["loss"][run, early], found["loss"][:, -1]
    fall = found["best"][run, early] - found["best"][:, -1]
    # Where nothing rose there is nothing to undo.
    rise = np.maximum(last - least, 1e-9)
    recovered = (last - found["cured loss"][:, -1]) / rise
    criteria = (
        Criterion(
            "rise of the loss, as a share of the least", mean_of(last / least - 1.0), at_least=0.8
        ),
        Criterion("fall of the accuracy of the highest score", mean_of(fall), at_most=0.05),
        Criterion("share of the rise that a temperature undoes", mean_of(recovered), at_least=0.85),
    )
    numbers = {
        "accuracy of draws at the least loss and at the end": [
            float(found["sampled"][run, early].mean()),
            float(found["sampled"][:, -1].mean()),
        ],
        "accuracy of the highest score at the least loss and at the end": [
            float(found["best"][run, early].mean()),
            float(found["best"][:, -1].mean()),
        ],
        "temperature at the end": float(found["temperature"][:, -1].mean()),
    }
    steps = [updates // looks * i for i in range(looks + 1)]
    curves = {name: (steps, found[name]) for name in ("loss", "cured loss")}
    return Finding(criteria, numbers, curves, "updates", "nats")


CLAIMS = (
    Claim(
        name="scores-outlast-the-probabilities-that-they-were-fitted-as",
        statement=(
            "On digits of which a tenth is labelled at random, a network fitted too long loses at "
            "least 0.8 of its least loss again, while the accuracy of its highest score falls by "
            "at most 0.05; one temperature, which changes no order, undoes at least 0.85 of the "
            "rise."
        ),
        methods=(),
        paper="huang2023utility",
        where="the abstract: networks as ordinal utilities; the phenomenon only, since the paper's "
        "equation for probabilities was not found",
        scales={
            "smoke": {"runs": 3, "noise": 0.1, "width": 8, "updates": 20, "looks": 4},
            "small": {"runs": 5, "noise": 0.1, "width": 100, "updates": 4_000, "looks": 40},
        },
        experiment=_experiment,
    ),
)
