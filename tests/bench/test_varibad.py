"""The benchmark of VariBAD at tiny sizes."""

import json

import pytest

from metarl.bench.varibad import COLUMNS
from metarl.cli.main import main

TINY = (
    "bench varibad --family point-nav --tasks 4 --steps 3 --width 4 --minibatches 2 --belief-updates 2 "
    "--belief-trials 3 --rounds 1 --threads 1"
)


def test_an_iteration_is_split_into_its_parts(capsys: pytest.CaptureFixture[str]):
    assert main([*TINY.split(), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["family"] == "point-nav@maml17+horizon=3"
    varibad, rl2 = report["agents"]["varibad"], report["agents"]["rl2"]
    assert rl2["belief_s"] == rl2["belief_steps_per_second"] == 0.0
    assert rl2["iteration_over_rl2"] == 1.0
    assert varibad["belief_steps_per_second"] == pytest.approx(2.0 / varibad["belief_s"])
    for row in (varibad, rl2):
        assert row["ppo_s"] > 0.0
        assert 0.0 < row["policy_share_of_collect"] < 1.0
    whole = [sum(row[part] for part in ("collect_s", "ppo_s", "belief_s")) for row in (varibad, rl2)]
    assert varibad["iteration_over_rl2"] == pytest.approx(whole[0] / whole[1])


def test_the_table_is_explained(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(TINY.split()) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    for column, meaning in COLUMNS.items():
        assert column in shown
        assert meaning in shown
