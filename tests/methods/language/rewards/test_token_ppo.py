"""TokenPPO against NumPy."""

import pytest

from headwater.methods.language.rewards.token_ppo import TokenPPO

from ..proximal_twin import expect_proximal_losses


@pytest.mark.parity
def test_losses(key):
    expect_proximal_losses(TokenPPO, key)
