"""PPO against NumPy."""

import pytest

from headwater.methods.language.rewards.ppo import PPO

from ..proximal_twin import expect_proximal_losses


@pytest.mark.parity
def test_losses(key):
    expect_proximal_losses(PPO, key)
