"""Logs of decisions from the command line: looked at, learned from, judged on."""

import numpy as np

from .asking import done


def test_from_decisions_to_a_judgement(tmp_path):
    draw = np.random.default_rng(0)
    age, item = draw.normal(size=400), draw.integers(3, size=400)
    click = (draw.random(400) < 0.2 + 0.6 * (item == (age > 0.0))).astype(int)
    lines = ["age,item,click,pscore,day"]
    lines += [f"{x},{arm},{y},{1 / 3},{at}" for at, (x, arm, y) in enumerate(zip(age, item, click))]
    path = tmp_path / "shop.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = ("--column", "arm=item", "--column", "context=age")
    described = done("data", "describe", path, *columns)
    for sentence in ("400 / 3", "read as context", "day", "all arms alike would earn"):
        assert sentence in described
    run = tmp_path / "run"
    printed = done(
        "train", "CRM", "-d", path, *columns, "-o", run, "--updates", 200, "--seeds", 1,
        "--set", "learning_rate=0.05",
    )  # fmt: skip
    assert f"evaluate {run} --data ROUNDS" in printed
    judged = done("evaluate", run, "-d", path, "--estimators", "wis")
    # Whoever shows the right item to each is clicked at four times of five.
    estimate = next(line.split() for line in judged.splitlines() if line.split()[:1] == ["wis"])
    assert 0.6 < float(estimate[2]) < 0.9 and click.mean() < 0.5
