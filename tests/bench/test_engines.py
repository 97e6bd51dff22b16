"""The engines' benchmark at tiny sizes: what it compares is what it says."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from metarl.bench import engines as bench
from metarl.bench.engines import EnginesConfig, OpenLoop, Ours, contenders, run_engines
from metarl.envs import get
from metarl.envs.families.ant import AntDir
from metarl.envs.family import MujocoFamily, State
from metarl.errors import UserError
from metarl.types import Tasks


def test_engines_reports_every_contender(capsys: pytest.CaptureFixture[str]):
    before = torch.get_num_threads()
    report = run_engines(EnginesConfig(family=("ant-dir",), worlds=(2,), rounds=2, env_steps=40, threads=1))
    (row,) = report["results"]
    assert row["worlds"] == 2
    assert row["steps"] == 20
    assert {"metarl", "open loop", "SyncVectorEnv", "AsyncVectorEnv"} <= set(row["env_steps_per_second"])
    assert all(speed > 0 for speed in row["env_steps_per_second"].values())
    assert set(row["metarl_over"]) == set(row["env_steps_per_second"]) - {"metarl"}
    assert 0.0 < row["new_tasks_share_of_collection"] < 1.0
    shown = capsys.readouterr().out
    assert "open loop" in shown
    assert "of a collection" in shown
    assert torch.get_num_threads() == before


def test_engines_needs_a_robot():
    with pytest.raises(UserError, match="no MuJoCo model"):
        run_engines(EnginesConfig(family=("point-nav",), worlds=(2,), rounds=1))
    with pytest.raises(UserError, match="`all` alone"):
        EnginesConfig(family=("all", "ant-dir"))


def test_all_families_are_measured_against_their_ceiling(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    some = {name: [get(name)] for name in ("half-cheetah-vel", "point-nav", "ant-dir")}
    monkeypatch.setattr(bench, "families", lambda: some)
    report = run_engines(EnginesConfig(family=("all",), worlds=(2,), rounds=1, env_steps=40, threads=1))
    assert [row["family"] for row in report["results"]] == ["half-cheetah-vel@v5", "ant-dir@v5"]
    assert all(set(row["metarl_over"]) == {"open loop"} for row in report["results"])
    assert report["left_out"] == ["point-nav@maml17"]
    assert "left out, without a MuJoCo model: point-nav@maml17" in capsys.readouterr().out


@dataclass(frozen=True, kw_only=True)
class LoadedAnt(AntDir):
    """Every task has a model of its own, and every step would end the episode."""

    def apply(self, tasks: Tasks) -> dict[str, torch.Tensor]:
        factor = 1.0 + 0.2 * tasks["direction"] + 0.01 * torch.arange(len(tasks))
        return {"body_mass": torch.from_numpy(self.model.body_mass.copy()) * factor[:, None]}

    def terminated(self, state: State, tasks: Tasks) -> torch.Tensor:
        return torch.ones(len(tasks), dtype=torch.bool)


LOADED = LoadedAnt(
    variant="loaded", source="test", control_weight=0.5, survive_reward=1.0, survive_fallen=False, horizon=200
)


def masses(contender: Ours | OpenLoop) -> np.ndarray:
    found = contender.physics.batch.expanded("body_mass")
    assert found is not None
    return found.copy()


@pytest.mark.parametrize("family", [get("half-cheetah-vel"), LOADED], ids=lambda family: family.full_name)
def test_ours_and_the_ceiling_go_through_the_same_states(family: MujocoFamily):
    with contenders(family, 3, 20, 1, peers=False) as runs:
        ours, ceiling = runs["metarl"], runs["open loop"]
        assert isinstance(ours, Ours)
        assert isinstance(ceiling, OpenLoop)
        before = masses(ours)
        assert len(np.unique(before[:, 1:], axis=0)) == 3
        assert np.array_equal(before, masses(ceiling))
        for _ in range(2):
            assert ours() > 0.0
            assert ceiling() > 0.0
            assert np.array_equal(before, masses(ours))
            assert torch.equal(ours.physics.state["qpos"], ceiling.physics.state["qpos"])
            assert ours.physics.state["qpos"].unique(dim=0).shape[0] == 3
            assert ours.new_tasks() > 0.0
