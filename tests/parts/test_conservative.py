"""How many rows the conservative penalty looks at together."""

from headwater.parts import conservative


def test_as_many_rows_together_as_a_cache_holds():
    together = conservative._rows_together
    assert together(256, 31) == 32
    assert together(100, 31) == 25
    assert together(8, 31) == 8
    assert together(251, 31) == 251  # nothing near 33 divides a prime
    assert together(256, 5000) == 1
