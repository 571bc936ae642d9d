"""GORP against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.methods.tabular.online.gorp import GORP

from ..random_episodes import KEY, A, H, S, episodes_of


@pytest.mark.parity
def test_gorp_fixes_the_action_that_is_followed_by_most():
    method = GORP(lookahead=2, episodes_per_sequence=3)
    problem = FiniteProblem(S, A, H)
    state = method.init(problem, key=KEY)
    table = np.asarray(method.policy(state, explore=True))
    assert table.shape == (12, H, S, A)
    assert sorted({tuple(row[:2, 0].argmax(-1)) for row in table}) == [
        (0, 0), (0, 1), (1, 0), (1, 1)
    ]  # fmt: skip
    np.testing.assert_allclose(table[:, 2], 0.5)
    prefix = []
    for step in range(H + 1):
        data = episodes_of(40, step)
        action, reward = np.asarray(data.action), np.asarray(data.reward)
        state, _ = method.update(state, data, key=KEY)
        if step == H:
            break
        followed = (action[:, :step] == np.asarray(prefix, int)).all(axis=1)
        means = {}
        for sequence in {tuple(row) for row in action[followed, step : step + 2].tolist()}:
            rows = followed & (action[:, step : step + 2] == sequence).all(axis=1)
            means[sequence] = reward[rows, step:].sum(axis=1).mean()
        prefix.append(max(means, key=means.get)[0])
    assert np.asarray(state.prefix).tolist() == prefix and int(state.fixed) == H
    np.testing.assert_allclose(
        np.asarray(method.policy(state, explore=False))[:, 0], np.eye(A)[prefix]
    )


def test_bad_input_is_refused_in_words():
    problem = FiniteProblem(S, A, H, initial=jnp.asarray([1.0, 0.0, 0.0, 0.0]))
    with pytest.raises(SpecificationError, match="lookahead = 4 looks further than an episode"):
        GORP(lookahead=4).init(problem, key=KEY)
    with pytest.raises(
        SpecificationError, match=r"GORP\.episodes_per_sequence = 0: it must be at least 1"
    ):
        GORP(episodes_per_sequence=0).init(problem, key=KEY)
    with pytest.raises(SpecificationError, match="more than fit in memory"):
        GORP(lookahead=3, episodes_per_sequence=2**26).init(problem, key=KEY)
