"""Where a method may differ from the contract, and why. Strict: a cured failure must be removed."""

EXPECTED: dict[str, dict[str, str]] = {
    "OptimisticQLearning": {
        "check_row_order_is_irrelevant": "learns from episodes one after the other, as it must: a "
        "step size depends on the visits before it",
    },
}
"""Method to check to reason."""
