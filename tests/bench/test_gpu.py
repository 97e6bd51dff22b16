"""The benchmark of the GPU engine at tiny sizes, on Warp's CPU device."""

from dataclasses import replace

import pytest

from metarl.bench import limits
from metarl.bench.gpu import GpuConfig, run_gpu
from metarl.bench.meta_updates import OMNIGLOT, PROBLEMS
from metarl.errors import UserError

pytest.importorskip("mujoco_warp")


@pytest.mark.slow
def test_gpu_reports_engines_iterations_and_updates(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.setitem(limits.SIDES, "cpu", 64)
    monkeypatch.setitem(PROBLEMS, "omniglot-1", replace(OMNIGLOT, item_shape=(1, 16, 16), width=4))
    report = run_gpu(
        GpuConfig(
            family=("point-nav", "bandit"),
            cpu_family=("point-nav",),
            worlds=(2, 3),
            cpu_worlds=2,
            steps=3,
            cpu_steps=2,
            rounds=1,
            tasks=2,
            episodes=2,
            horizon=3,
            case="omniglot-1",
            device="cpu",
            threads=3,
        )
    )
    row, alone = report["engines"]
    assert (alone["cpu"], alone["over_cpu"], alone["deterministic"]) == ([], None, None)
    assert row["deterministic"]["worlds"] == 2
    assert row["deterministic"]["times_as_long"] > 0.0
    assert list(row["gpu"]) == [2, 3]
    for figures in row["gpu"].values():
        assert figures["of_physics"] > 0.0
        assert figures["failures"] == 0
        assert figures["busy"] is None
        assert figures["copies"] is None
    assert [cores["threads"] for cores in row["cpu"]] == [1, 2, 3]
    assert row["cpu"][0]["efficiency"] == 1.0
    maml, rl2 = report["iterations"]["maml-trpo"], report["iterations"]["rl2"]
    for parts in (maml, rl2):
        assert 0.0 < parts["time/update"] < parts["time/iteration"]
        assert 0.0 < parts["update_share"] < 1.0
    assert maml["of_product"] > 0.0
    assert "of_product" not in rl2
    assert set(report["fewshot"]["updates_per_second"]) == {"grouped", "task loop"}
    shown = capsys.readouterr().out
    for text in (
        "point-nav@maml17",
        "of_product",
        "grouped / task loop",
        "2 tasks",
        "in a round and its reset",
        "per core",
        f"with --deterministic {row['deterministic']['times_as_long']:.2f} times as long",
        "exact",
        "bandit@bernoulli-5",
        "failures",
    ):
        assert text in shown


def test_gpu_needs_worlds_and_a_known_problem():
    with pytest.raises(UserError, match="worlds from 1"):
        GpuConfig(worlds=())
    with pytest.raises(UserError, match="one of sinusoid"):
        GpuConfig(case="omniglot")
