"""The benchmark of RL2's memory at tiny sizes."""

import json

import pytest
import torch

from metarl.bench import limits
from metarl.bench.rl2 import MemoryConfig
from metarl.cli.main import main
from metarl.errors import UserError


@pytest.fixture(autouse=True)
def small_product(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(limits.SIDES, "cpu", 64)
    monkeypatch.setattr(limits, "LEAST_SECONDS", 0.0)


TINY_MEMORY = "bench rl2 --width 3 4 --worlds 3 2 --steps 4 --trials 2 --length 7 --contexts 5 6 --rounds 2 --threads 1"


def test_rl2_measures_acting_and_learning(capsys: pytest.CaptureFixture[str]):
    before = torch.get_num_threads()
    assert main([*TINY_MEMORY.split(), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(row["family"], row["worlds"], row["core"], row["width"]) for row in report["acting"]] == [
        (family, worlds, core, width)
        for family, worlds in (("bandit@bernoulli-5", 3), ("half-cheetah-vel@v5+horizon=4", 2))
        for core in ("gru", "lstm", "transformer", "hyper")
        for width in (3, 4)
    ]
    assert all(0.0 < row["policy_s"] < row["collect_s"] for row in report["acting"])
    assert all(0.0 < row["policy_share"] < 1.0 for row in report["acting"])
    updates = [(row["core"], row["width"], row["steps"]) for row in report["update"]]
    assert updates == [("gru", 3, 7), ("hyper", 3, 7), ("gru", 4, 7), ("hyper", 4, 7)]
    assert [(row["width"], row["steps"]) for row in report["transformer"]] == [(3, 5), (3, 6), (4, 5), (4, 6)]
    assert all(row["rl2_s"] > 0.0 and row["gru_s"] > 0.0 and row["ratio"] > 0.0 for row in report["update"])
    assert all(row["transformer_s"] > 0.0 for row in report["transformer"])
    for row in report["update"] + report["transformer"]:
        assert row["gflop"] > 0.0
        assert row["share_of_product"] > 0.0
        assert row["product_gflops"] > 0.0
    assert "limit" not in json.dumps(report)
    assert torch.get_num_threads() == before


def test_rl2_shows_shares_in_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(TINY_MEMORY.split()) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    for text in (
        "2 half-cheetah-vel",
        "transformer",
        "rl2 / bare nn.GRU",
        "rl2 hyper / nn.GRU",
        "transformer / gru",
        "of product",
        "GFLOP/s",
    ):
        assert text in shown


def test_rl2_needs_sizes(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "rl2", "--contexts", "50", "0"]) == 2
    assert "--contexts 50 0. Give at least one number, from 1" in capsys.readouterr().err
    with pytest.raises(UserError, match="--width"):
        MemoryConfig(width=())
