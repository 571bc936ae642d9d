"""Where a method may differ from the rules of the catalogue, and why."""

LONGER_FILES: dict[str, str] = {}
"""Methods whose file may exceed 200 lines, with the reason."""

LONGER_UPDATES: dict[str, str] = {}
"""Methods whose `update` may exceed 50 lines, with the reason."""

WELL_KNOWN = {
    "Actor-critic",
    "AWAC",
    "AWR",
    "Behavioural cloning",
    "DDPG",
    "DQN",
    "Decision transformer",
    "Double DQN",
    "Fitted Q iteration",
    "Q-learning",
    "REINFORCE",
    "SAC",
    "SARSA",
    "TD3",
    "TRPO",
}
"""Parents that methods may name though they are not in the catalogue (yet)."""
