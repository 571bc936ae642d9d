"""`headwater advise` prints what Python is told."""

import json

from .asking import ask, done, write_log


def test_advise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "log.npz")
    shown = json.loads(done("advise", "log.npz", "--json"))
    # Forty rows of three observations and one action: ten for each.
    assert shown["measures"]["rows_per_number"] == 10 and shown["worth_learning_from"]
    assert shown["recommendations"][0]["command"].startswith("headwater train IQL --data log.npz")
    text = done("advise", "log.npz")
    assert "worth learning from" in text and "1. IQL" in text
    assert "--env-option needs --env" in ask("advise", "log.npz", "--env-option", "a=1").err
