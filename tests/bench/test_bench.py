"""The benchmarks run at tiny sizes, and what they compare is what they say."""

import json
import os
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from metarl.bench import engines as bench
from metarl.bench.engines import EnginesConfig, OpenLoop, Ours, contenders, known_warning_left_out, run_engines
from metarl.bench.learning import MamlConfig, MemoryConfig, in_turn, run_maml
from metarl.cli.main import main
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


def test_maml_compares_executors(capsys: pytest.CaptureFixture[str]):
    report = run_maml(MamlConfig(family="point-nav", tasks=2, episodes=2, steps=5, rounds=1, threads=1))
    assert list(report["executors"]) == ["grouped", "vmap", "loop"]
    assert report["executors"]["loop"]["speedup"] == 1.0
    assert all(row["time/update"] > 0 for row in report["executors"].values())
    assert "of adapt and update, on loop" in " ".join(capsys.readouterr().out.split())


TINY_MEMORY = "bench rl2 --width 3 4 --worlds 3 2 --steps 4 --trials 2 --length 7 --contexts 5 6 --rounds 2 --threads 1"


def test_rl2_measures_acting_and_learning(capsys: pytest.CaptureFixture[str]):
    before = torch.get_num_threads()
    assert main([*TINY_MEMORY.split(), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(row["family"], row["worlds"], row["core"], row["width"]) for row in report["acting"]] == [
        (family, worlds, core, width)
        for family, worlds in (("bandit@bernoulli-5", 3), ("half-cheetah-vel@v5", 2))
        for core in ("gru", "lstm", "transformer")
        for width in (3, 4)
    ]
    assert all(0.0 < row["policy_s"] < row["collect_s"] for row in report["acting"])
    assert all(0.0 < row["policy_share"] < 1.0 and row["limit"] == 0.4 for row in report["acting"])
    assert [(row["width"], row["steps"], row["limit"]) for row in report["update"]] == [(3, 7, 1.2), (4, 7, 1.2)]
    assert [(row["width"], row["steps"]) for row in report["transformer"]] == [(3, 5), (3, 6), (4, 5), (4, 6)]
    assert all(row["rl2_s"] > 0.0 and row["gru_s"] > 0.0 and row["ratio"] > 0.0 for row in report["update"])
    assert all(row["transformer_s"] > 0.0 and row["limit"] == 1.0 for row in report["transformer"])
    assert torch.get_num_threads() == before


def test_rl2_shows_its_limits_in_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(TINY_MEMORY.split()) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    for text in ("2 half-cheetah-vel", "transformer", "rl2 / bare nn.GRU", "transformer / gru", "40%", "1.2", "1.0"):
        assert text in shown


def test_rl2_needs_sizes(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "rl2", "--contexts", "50", "0"]) == 2
    assert "--contexts 50 0. Give at least one number, from 1" in capsys.readouterr().err
    with pytest.raises(UserError, match="--width"):
        MemoryConfig(width=())


def test_contenders_take_turns_and_the_first_round_is_left_out():
    done: list[str] = []

    def note(name: str) -> int:
        done.append(name)
        return len(done)

    assert in_turn(2, {name: lambda name=name: note(name) for name in "ab"}) == {"a": [3, 5], "b": [4, 6]}
    assert done == list("ababab")


def test_only_the_known_warning_is_left_out(capfd: pytest.CaptureFixture[str]):
    with known_warning_left_out():
        os.write(2, b"WARNING: compiler attribute 'settotalmass' is deprecated\nsomething else\n")
    assert capfd.readouterr().err == "something else\n"
