"""How a file is to be read can be said to every command that reads one."""

import json

import numpy as np

from headwater.datasets.read import load

from .asking import TINY, ask, done


def write_visits(path):
    """Three visits of four steps, and nothing that says how they end."""
    draw = np.random.default_rng(0)
    lines = ["visit,glucose,dose,outcome"]
    for row in range(12):
        lines.append(f"{row // 4},{draw.normal():.3f},{row % 3},{draw.normal():.3f}")
    path.write_text("\n".join(lines) + "\n")


def test_commands_take_the_same_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_visits(tmp_path / "log.csv")
    roles = ("observations=glucose", "actions=dose", "rewards=outcome", "episodes=visit")
    said = [part for role in roles for part in ("--column", role)]
    assert (
        "no column says where the process ended"
        in ask("data", "describe", "log.csv", *said[:6]).err
    )
    for end, rows in (("terminal", 12), ("truncated", 9)):
        options = (*said, "--episodes-end", end)
        shown = json.loads(done("data", "describe", "log.csv", "--json", *options))
        assert (shown["episodes"], shown["transitions"]) == (3, rows)
        done("data", "convert", "log.csv", f"{end}.npz", *options)
        assert load(f"{end}.npz").terminals.sum() == (3 if end == "terminal" else 0)
        out = tmp_path / end
        done("train", "BC", "-d", "log.csv", *options, *TINY, "--updates", 2, "-o", out, "--json")
        asked = json.loads((out / "run.json").read_text())
        assert asked["data"]["options"]["episodes_end"] == end
        # The run reads the file again in the same way.
        done("resume", out)
    refused = ask("data", "describe", f"{end}.npz", "--dones", "maybe")
    assert "--dones: unknown value 'maybe'" in refused.err
