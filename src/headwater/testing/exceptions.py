"""Where a method may differ from the contract, and why. Strict: a cured failure must be removed."""

EXPECTED: dict[str, dict[str, str]] = {
    "EnergyAllocation": {
        "check_every_number_matters": "its first 300 evaluations are all in random directions",
    },
    "N2N": {
        "check_every_number_matters": "it learns from architectures that its policies could have "
        "proposed, and these are of others",
    },
    "OptimisticQLearning": {
        "check_row_order_is_irrelevant": "learns from episodes one after the other, as it must: a "
        "step size depends on the visits before it",
    },
    "FTPedel": {
        "check_every_number_matters": "its thresholds are met after thousands of episodes",
    },
    "LinearFTRL": {
        "check_row_order_is_irrelevant": "one episode of each update is learned from, the others "
        "stand for a simulator",
    },
    "TallyingElimination": {
        "check_row_order_is_irrelevant": "pulls are rounds, whose order decides what is judged",
        "check_every_number_matters": "its bounds drop no arm before hundreds of pulls",
    },
    "OLIVE": {
        "check_every_number_matters": "its thresholds are looked at after tens of episodes",
    },
    "BatchedHedge": {
        "check_row_order_is_irrelevant": "pulls are rounds, of which one in a batch is looked at",
        "check_every_number_matters": "its rate acts at the end of a batch of many rounds",
    },
    "PPO": {
        "check_every_number_matters": "its divergence has no weight by default that could decay",
    },
    "OER": {
        "check_every_number_matters": "cloning of earlier tasks begins with the second task",
    },
    "SERENE": {
        "check_every_number_matters": "its patience ends emitters, which take generations for it",
    },
    "TAXONS": {
        "check_every_number_matters": "it is first trained after a thousand evaluations",
    },
    "STAX": {
        "check_every_number_matters": "it is first trained after a thousand evaluations, and its "
        "patience ends emitters, which take generations for it",
    },
}
"""Method to check to reason."""
