"""DR-PO against NumPy."""

import pytest

from headwater.methods.language.rewards.dr_po import DRPO

from ..proximal_twin import expect_proximal_losses


@pytest.mark.parity
def test_losses(key):
    expect_proximal_losses(DRPO, key)
