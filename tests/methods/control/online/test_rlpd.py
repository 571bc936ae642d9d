"""RLPD against NumPy, against SAC, and on problems with known answers."""

import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.methods.control.online.rlpd import RLPD
from headwater.methods.control.online.sac import SAC

from .. import identities
from ..numpy_twin import (
    ACTION,
    CHOICES,
    ROWS,
    batch,
    problem,
    update,
)
from ..soft_problems import (
    SMALL,
    expect_best_action,
    expect_soft_optimum,
)
from ..soft_twin import RATES, SoftTwin, columns


@pytest.mark.parity
@pytest.mark.parametrize("discrete", [False, True])
def test_two_updates_of_two_critic_steps(discrete):
    method = RLPD(
        hidden_sizes=(8, 8),
        num_critics=3,
        num_target_critics=2,
        num_critic_updates=2,
        layer_norm="none",
        **RATES,
    )
    state = method.init(problem(discrete), key=jax.random.key(1))
    twin = SoftTwin(state, discrete)
    target_entropy = 0.5 * np.log(CHOICES) if discrete else -0.5 * ACTION
    for i in range(2):
        data, key = batch(i, discrete), jax.random.key(i)
        state, metrics = update(method, state, data, key=key)
        critic_key, actor_key = jax.random.split(key)
        s, a, r, terminal, following = columns(data, lambda x: np.asarray(x, np.float64))
        halves = (slice(0, ROWS // 2), slice(ROWS // 2, ROWS))
        for rows, piece_key in zip(halves, jax.random.split(critic_key, 2)):
            action_key, member_key = jax.random.split(piece_key)
            chosen = np.asarray(jax.random.choice(member_key, 3, (2,), replace=False))
            noise = twin.noise(action_key, ROWS // 2)
            y = twin.target(r[rows], terminal[rows], following[rows], noise, chosen=chosen)
            twin.critic_step(s[rows], a[rows], y)
        loss, entropy = twin.actor_step(s[halves[1]], twin.noise(actor_key, ROWS // 2), "mean")
        np.testing.assert_allclose(metrics["actor_loss"], loss, rtol=1e-4)
        twin.temperature_step(entropy, target_entropy)
    twin.expect(state)


def test_rows_that_cannot_be_shared_out():
    method = RLPD(hidden_sizes=(8,), num_critics=2, num_critic_updates=5)
    state = method.init(problem(False), key=jax.random.key(1))
    with pytest.raises(SpecificationError, match="12 rows cannot be cut into 5 equal pieces"):
        method.update(state, batch(0, False), key=jax.random.key(0))


def test_more_critics_in_the_target_than_there_are():
    with pytest.raises(
        SpecificationError, match="num_target_critics=3 must be between 1 and num_critics=2"
    ):
        RLPD(num_critics=2, num_target_critics=3)


@pytest.mark.equivalence("SAC")
@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(("num_critic_updates", "num_target_critics"), [(1, 3), (2, 2)])
def test_rlpd_is_sac_with_its_settings(discrete, num_critic_updates, num_target_critics):
    fields = {
        **identities.SETTINGS,
        "num_critic_updates": num_critic_updates,
        "num_target_critics": num_target_critics,
        "target_entropy": -0.5,
    }
    rlpd = RLPD(**fields)
    sac = SAC(actor_reduction="mean", actor_rows="last", layer_norm="critics", **fields)
    state = rlpd.init(identities.problem(discrete), key=jax.random.key(3))
    identities.expect_same(state, sac.init(identities.problem(discrete), key=jax.random.key(3)))
    batches = [identities.batch(i, discrete) for i in (0, 1)]
    identities.expect_same(
        identities.learn(rlpd, state, *batches), identities.learn(sac, state, *batches)
    )


@pytest.mark.oracle
def test_soft_optimal_values_and_policy_of_a_chain():
    expect_soft_optimum(RLPD, num_critics=3, num_critic_updates=2, layer_norm="none")


@pytest.mark.oracle
def test_the_best_action_of_a_one_step_problem_is_found(key):
    expect_best_action(RLPD(num_critics=3, num_critic_updates=1, **SMALL), key)
