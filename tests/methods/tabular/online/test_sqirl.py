"""SQIRL against NumPy, and on a lock that its effective horizon says it can open."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.environments.tabular.finite import combination_lock
from headwater.evaluation.instances import ExactReturn, learn_instances
from headwater.methods.tabular.online.sqirl import SQIRL

from ..random_episodes import KEY, A, H, S, episodes_of


@pytest.mark.parity
@pytest.mark.parametrize("reuse", [True, False])
def test_sqirl_fits_means_and_backs_them_up(reuse):
    method = SQIRL(lookahead=2, episodes_per_iteration=4, reuse_samples=reuse)
    state = method.init(FiniteProblem(S, A, H), key=KEY)
    rows: dict[tuple[int, int, int], list[tuple[float, float, int]]] = {}
    expected = np.zeros((H, S, A))
    for iteration in range(H):
        explore = np.asarray(method.policy(state, explore=True))
        assert explore.shape == (4, H, S, A)
        np.testing.assert_allclose(explore[:, iteration:], 0.5)
        np.testing.assert_allclose(
            explore[0, :iteration], np.eye(A)[expected[:iteration].argmax(-1)]
        )
        data = episodes_of(30, iteration)
        state, _ = method.update(state, data, key=KEY)
        rows = rows if reuse else {}
        for e in range(30):
            for h in range(iteration, H):
                at = h, int(data.state[e, h]), int(data.action[e, h])
                reward = np.asarray(data.reward)[e, h:]
                rows.setdefault(at, []).append(
                    (float(reward[0]), float(reward.sum()), int(data.state[e, h + 1]))
                )
        first = np.zeros((H + 1, S, A))
        for at, found in rows.items():
            first[at] = np.mean([x[1] for x in found])
        for (h, s, a), found in rows.items():
            if h == iteration:
                expected[h, s, a] = np.mean([r + first[h + 1, t].max() for r, _, t in found])
        np.testing.assert_allclose(np.asarray(state.action_value), expected, rtol=1e-4, atol=1e-5)


def test_bad_input_is_refused_in_words():
    problem = FiniteProblem(S, A, H, initial=jnp.asarray([1.0, 0.0, 0.0, 0.0]))
    with pytest.raises(SpecificationError, match="lookahead = 4 looks further than an episode"):
        SQIRL(lookahead=4).init(problem, key=KEY)


@pytest.mark.oracle
def test_sqirl_opens_a_lock():
    process = combination_lock(horizon=3, actions=2, key=jax.random.key(0))
    stacked = jax.tree.map(lambda x: jnp.stack([x] * 20), process)
    problems = jax.tree.map(lambda x: jnp.stack([x] * 20), process.problem())
    found = learn_instances(
        SQIRL(lookahead=1, episodes_per_iteration=64), stacked, problems, ExactReturn(stacked),
        updates=3, key=jax.random.key(0),
    )["return"]  # fmt: skip
    assert found[:, -1].mean() > 0.9 and found.shape == (20, 4)
