"""The benchmark of MAML-TRPO at tiny sizes: every round does the same work, under every executor."""

import pytest
import torch

from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.bench import limits
from metarl.bench.maml import COLUMNS, Counted, MamlConfig, run_maml
from metarl.envs import get, make_worlds
from metarl.envs.horizon import with_horizon
from metarl.seeding import Streams


def test_maml_compares_executors(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setitem(limits.SIDES, "cpu", 64)
    report = run_maml(MamlConfig(family="point-nav", tasks=2, episodes=2, steps=5, rounds=1, threads=1))
    assert list(report["executors"]) == ["grouped", "vmap", "loop"]
    assert report["executors"]["loop"]["speedup"] == 1.0
    assert all(row["time/update"] > 0 for row in report["executors"].values())
    for row in report["executors"].values():
        seconds_at_the_limit = report["update_gflop"] / report["product_gflops"]
        assert row["update_share_of_product"] == pytest.approx(seconds_at_the_limit / row["time/update"])
    shown = capsys.readouterr().out
    assert "of adapt and update together, on loop" in shown
    assert "…" not in shown
    for column, meaning in COLUMNS.items():
        assert column in shown
        assert meaning in shown or column == "speed-up"


def test_the_operations_of_the_update_are_those_of_every_executor_and_every_round():
    family = with_horizon(get("point-nav"), 4)
    env = make_worlds(family, 4)
    counted, metrics = [], []
    for executor in ("grouped", "vmap", "loop", "grouped"):
        config = MamlTrpoConfig(tasks=2, episodes=2, hidden=(8,), executor=executor, chunk_steps=1, cg_iterations=2)
        agent = Counted(config, family.spec(), Streams(0), torch.device("cpu"))
        metrics.append(agent.train_iteration(env, family.space.sample, Streams(0)))
        counted.append(agent.operations)
    assert counted[0] > 0
    assert len(set(counted)) == 1
    assert metrics[0]["return/pre"] == metrics[-1]["return/pre"]
    assert metrics[0]["update/kl"] == metrics[-1]["update/kl"] > 0.0
