"""Learning rates of language models over time."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from headwater.methods.language.rewards.grpo import GRPO
from headwater.methods.language.texts.sft import SFT
from headwater.parts.fine_tuning import schedule_of
from headwater.runs.feeds.table import settle
from headwater.runs.options import Options


def rates(method, steps) -> list[float]:
    """Adam's first step is as long as the rate, whatever the gradient."""
    found = []
    for step in steps:
        optimiser = schedule_of(method).optimiser(jnp.asarray(step))
        weights = jnp.asarray([1.0])
        change, _ = optimiser.update(jnp.asarray([0.5]), optimiser.init(weights), weights)
        found.append(-float(change[0]))
    return found


def test_a_rate_rises_and_then_falls_along_a_line_or_a_cosine():
    steps = [0, 1, 2, 3, 4, 6, 8, 11, 12, 20]
    rise = [0.25, 0.5, 0.75, 1.0]
    line = SFT(learning_rate=1e-2, warmup_updates=4.0, decay_updates=12.0)
    expected = [*rise, 1.0, 0.75, 0.5, 0.125, 0.0, 0.0]
    np.testing.assert_allclose(rates(line, steps), 1e-2 * np.array(expected), rtol=1e-4)
    curve = SFT(learning_rate=1e-2, warmup_updates=4.0, decay_updates=12.0, decay="cosine")
    cosine = optax.cosine_decay_schedule(1.0, 8)
    expected = [*rise, *(float(cosine(step - 4)) for step in steps[4:])]
    np.testing.assert_allclose(rates(curve, steps), 1e-2 * np.array(expected), rtol=1e-4, atol=1e-9)


def test_a_rate_whose_end_is_left_open_is_constant_until_a_run_sets_it():
    assert rates(SFT(learning_rate=1e-2), [0, 1000]) == pytest.approx([1e-2, 1e-2], rel=1e-4)
    options = Options(updates=30)
    settled, _ = settle(SFT(), options)
    assert isinstance(settled, SFT) and settled.decay_updates == 30.0
    constant, _ = settle(SFT(decay_updates=float("inf")), options)
    assert isinstance(constant, SFT) and constant.decay_updates == float("inf")
    # It is counted in steps, of which there are three in an update.
    several, _ = settle(GRPO(num_epochs=3), options)
    assert isinstance(several, GRPO) and several.decay_updates == 90.0
