"""Temperatures and decisions against NumPy, and against scores whose temperature is known."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.analysis.temperature import best_temperature, decision_quality
from headwater.testing import check_analysis


def scores(key):
    logits_key, label_key = jax.random.split(key)
    logits = jax.random.normal(logits_key, (40, 5))
    return logits, jax.random.categorical(label_key, 2.0 * logits).astype(jnp.int32)


def loss_at(logits, labels, temperature):
    scaled = np.asarray(logits, np.float64) / temperature
    logs = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
    return -logs[np.arange(len(labels)), labels]


def test_decisions_are_judged_row_by_row(key):
    logits, labels = scores(key)
    own = loss_at(logits, np.asarray(labels), 2.0)
    best = np.argmax(logits, axis=-1) == labels
    check_analysis(
        decision_quality,
        {"logits": logits, "labels": labels, "temperature": 2.0},
        (own.mean(), best.mean(), np.exp(-own).mean()),
    )


def test_the_best_temperature_is_found_by_trying_many(key):
    logits, labels = scores(key)
    tried = np.geomspace(0.05, 20.0, 20_001)
    losses = [loss_at(logits, np.asarray(labels), t).mean() for t in tried]
    check_analysis(
        best_temperature,
        {"logits": logits, "labels": labels},
        tried[int(np.argmin(losses))],
        rtol=1e-3,
    )


def test_more_labels_come_nearer_to_the_temperature_that_they_were_drawn_at(key):
    logits = jax.random.normal(key, (20_000, 4))
    labels = jax.random.categorical(jax.random.fold_in(key, 1), logits / 0.4)
    np.testing.assert_allclose(best_temperature(logits, labels), 0.4, rtol=0.03)
