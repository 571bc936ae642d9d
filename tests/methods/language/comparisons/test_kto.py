"""KTO against NumPy: losses, gradients and the reference point from mismatched rows."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions, LabelledCompletions
from headwater.core.tokens import TokenProblem
from headwater.evaluation.exact_tokens import log_policy
from headwater.methods.language.comparisons.kto import KTO
from headwater.networks.token_table import PrefixTable

from ..exact_texts import RESPONSES, learn, responses
from ..text_twin import (
    CONTEXT,
    DATA,
    ROWS,
    first_gradient,
    moved,
    ratios,
    slopes,
    update,
)

LABELS = np.asarray([True, False, True, True, False, False])
LABELLED = LabelledCompletions(DATA.chosen, jnp.asarray(LABELS))
METHOD = KTO(beta=0.7, desirable_weight=1.3, undesirable_weight=0.6, max_gradient_norm=np.inf)


def mismatched(data: Completions) -> Completions:
    """Row by row: the prompt of each and the response of the one before it, cut at the width."""
    tokens, response = np.asarray(data.tokens), np.asarray(data.response)
    found, mask = np.zeros_like(tokens), np.zeros_like(response)
    for i in range(len(tokens)):
        prompt = tokens[i, : np.flatnonzero(response[i])[0]]
        text = np.concatenate([prompt, tokens[i - 1][response[i - 1]]])[: tokens.shape[1]]
        found[i, : len(text)] = text
        mask[i, len(prompt) : len(text)] = True
    return Completions(found, mask)


def reference_point(network, reference, data) -> float:
    return max(0.0, ratios(network, reference, mismatched(data)).mean())


def kto_loss(network, reference, data, labels, point):
    """The paper's equation 8, in float64, with the point that rewards are compared with."""
    sign = np.where(labels, 1.0, -1.0)
    weight = np.where(labels, 1.3, 0.6)
    value = weight / (1.0 + np.exp(-0.7 * sign * (ratios(network, reference, data) - point)))
    return (weight - value).mean()


def longer_prompts(data: Completions) -> Completions:
    """The same tokens, of which every other row counts two as its prompt."""
    response = np.asarray(data.response).copy()
    response[:, 2] = True
    response[::2, 1] = False
    return dataclasses.replace(data, response=jnp.asarray(response))


@pytest.mark.parity
@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("prompts", ["one token", "one or two"])
def test_kto_has_the_loss_and_the_gradient_of_the_paper(key, seed, prompts):
    completions = DATA.chosen if prompts == "one token" else longer_prompts(DATA.chosen)
    data = LabelledCompletions(completions, jnp.asarray(LABELS))
    task, network, state = moved(METHOD, seed)
    after, metrics = update(METHOD, state, data, key)
    reference = task.network
    point = reference_point(network, reference, completions)
    loss = kto_loss(network, reference, completions, LABELS, point)
    assert float(metrics["divergence"]) == pytest.approx(point, rel=1e-4, abs=1e-6)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    ratio = ratios(network, reference, completions)
    assert float(metrics["desirable_log_ratio"]) == pytest.approx(ratio[LABELS].mean(), rel=1e-4)
    assert float(metrics["undesirable_log_ratio"]) == pytest.approx(ratio[~LABELS].mean(), rel=1e-4)
    # The point is held fixed: no gradient goes through it.
    expected = slopes(
        lambda t: kto_loss(SimpleNamespace(table=t), reference, completions, LABELS, point),
        network.table,
    )
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(first_gradient(after), expected, rtol=1e-4, atol=1e-6)


def test_points_on_both_sides_of_zero_are_among_these_cases():
    """Else the bound at zero, or what it leaves, would not be compared with anything."""
    means = []
    for seed in (0, 2):
        task, network, _ = moved(METHOD, seed)
        for data in (DATA.chosen, longer_prompts(DATA.chosen)):
            means.append(ratios(network, task.network, mismatched(data)).mean())
    assert min(means) < -0.05 and max(means) > 0.05


@pytest.mark.oracle
def test_labels_move_responses_up_and_down(key):
    """Of three kinds of responses to one prompt the unlabelled ones end between the others."""
    task = TokenProblem(PrefixTable(3, 3, key=key))
    data = LabelledCompletions(responses(np.asarray([0, 4])), jnp.asarray([True, False]))
    method = KTO(beta=1.0, learning_rate=0.05)
    state, metrics = learn(method, task, data, key=key, updates=60)
    change = (log_policy(state.network, RESPONSES) - log_policy(task.network, RESPONSES))[0]
    assert float(change[0]) > 0.5 and float(change[4]) < -0.5
    assert float(change[4]) < float(change[8]) < float(change[0])
    assert float(metrics["loss"][-1]) < 0.4 < float(metrics["loss"][0])


@pytest.mark.oracle
def test_it_begins_with_half_the_loss_and_a_quarter_of_the_slope(key):
    """At the reference every σ is 1/2, and the point is zero."""
    task = TokenProblem(PrefixTable(3, CONTEXT, key=key))
    after, metrics = update(METHOD, METHOD.init(task, key=key), LABELLED, key)
    weight = np.where(LABELS, 1.3, 0.6)
    assert float(metrics["loss"]) == pytest.approx(0.5 * weight.mean(), rel=1e-6)
    assert float(metrics["divergence"]) == 0.0
    signed = weight * np.where(LABELS, 1.0, -1.0) / ROWS
    expected = slopes(
        lambda t: (
            -0.25 * 0.7 * (signed @ ratios(SimpleNamespace(table=t), task.network, DATA.chosen))
        ),
        task.network.table,
    )
    np.testing.assert_allclose(first_gradient(after), expected, rtol=1e-4, atol=1e-6)


def test_a_single_row_has_no_other_to_be_put_behind(key):
    _, _, state = moved(METHOD)
    one = jax.tree.map(lambda x: x[:1], LABELLED)
    with pytest.raises(SpecificationError, match="give batches of at least 2 rows"):
        METHOD.update(state, one, key=key)
