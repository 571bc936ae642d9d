"""Q-learning against the textbook's rule."""

import numpy as np
import pytest

from headwater.core.finite import FiniteProblem
from headwater.methods.tabular.online.q_learning import QLearning

from ..random_episodes import KEY, A, H, S, episodes_of


@pytest.mark.parity
def test_q_learning_is_the_textbook_rule():
    method = QLearning(learning_rate=0.3, initial_value=0.5)
    state = method.init(FiniteProblem(S, A, H), key=KEY)
    expected = np.full((H + 1, S, A), 0.5)
    expected[H] = 0.0
    for seed in range(5):
        data = episodes_of(1, seed)
        old = expected.copy()
        for h in range(H):
            at = h, int(data.state[0, h]), int(data.action[0, h])
            target = float(data.reward[0, h]) + old[h + 1, int(data.state[0, h + 1])].max()
            expected[at] += 0.3 * (target - old[at])
        state, _ = method.update(state, data, key=KEY)
    np.testing.assert_allclose(np.asarray(state.action_value), expected[:H], rtol=1e-5)
    table = np.asarray(method.policy(state, explore=True))
    np.testing.assert_allclose(table.min(-1), 0.05, rtol=1e-5)
