"""The benchmark of PEARL at tiny sizes."""

import json

import pytest

from metarl.bench import limits
from metarl.cli.main import main

TINY = "bench pearl --family point-nav --train-tasks 3 --meta-batch 4 --batch 5 --hidden 6 --steps 4 --updates 2"


@pytest.fixture(autouse=True)
def small_product(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(limits.SIDES, "cpu", 64)
    monkeypatch.setattr(limits, "LEAST_SECONDS", 0.0)


def test_pearl_measures_updates_and_splits_an_iteration(capsys: pytest.CaptureFixture[str]):
    assert main([*TINY.split(), "--rounds", "2", "--threads", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["updates"]) == ["batched", "loop"]
    assert report["updates"]["loop"]["speedup"] == 1.0
    for row in report["updates"].values():
        assert row["per_second"] == pytest.approx(1.0 / row["seconds"])
        assert row["share_of_product"] > 0.0
    split = report["iteration"]
    # 5 tasks x 5 rounds of 4 steps.
    assert split["env_steps"] == 100.0
    assert 0.0 < split["policy_s"] < split["collect_s"]
    assert split["update_s"] > 0.0


def test_pearl_shows_it_in_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*TINY.split(), "--rounds", "1", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    for text in ("batched", "loop", "of product", "speed-up", "GFLOP/s", "of it in the policy"):
        assert text in shown


def test_pearl_needs_sizes(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "pearl", "--meta-batch", "0"]) == 2
    assert "--meta-batch 0. It must be at least 1" in capsys.readouterr().err
