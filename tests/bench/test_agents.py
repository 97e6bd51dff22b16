"""The benchmark of whole iterations at tiny sizes."""

import json

import pytest

from metarl.cli.main import main


def test_agents_measures_the_shares_of_an_iteration(capsys: pytest.CaptureFixture[str]):
    tiny = "bench agents --family bandit --horizon 2 --tasks 10 --rounds 2 --threads 1 --agents multitask varibad rma"
    assert main([*tiny.split(), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["agent"] for row in report["agents"]] == ["multitask", "varibad", "rma teacher", "rma student"]
    for row in report["agents"]:
        shares = [row[f"{part}_share"] for part in ("worlds", "policy", "update")]
        assert all(0.0 < share < 1.0 for share in shares)
        assert sum(shares) < 1.1
        assert row["iteration_s"] > 0.0
        assert row["steps_per_second"] > 0.0
        assert (0.0 < row["belief_share"] < row["update_share"]) == (row["agent"] == "varibad")
    assert report["agents"][0]["over_first"] == 1.0
    assert report["family"] == "bandit@bernoulli-5+horizon=2"


def test_agents_names_at_least_one_that_is_trained(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "agents", "--agents", "random"]) == 2
    assert "Got --agents random. Name one or more agents that are trained" in capsys.readouterr().err
    assert main(["bench", "agents", "--agents", "rl3"]) == 2
    assert "Unknown agent 'rl3'. Did you mean 'rl2'?" in capsys.readouterr().err
