"""Logs of evaluations: all that is needed to play every episode again, exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import metarl
from metarl.api import recording as recording_module
from metarl.api.recording import Recording
from metarl.api.runs import untrained
from metarl.cli.main import main
from metarl.envs import get, make_worlds
from metarl.errors import UserError
from metarl.evaluation.curve import adaptation_curve
from metarl.identification import minari_data
from metarl.identification.log import read_log
from metarl.types import Tasks
from tests.helpers.commands import refused
from tests.helpers.tiny_trainings import FEW, trained

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["hopper-rand-params", "push-shape+horizon=20", "reacher-goal", "point-nav@maml17"])
def test_a_log_of_simulation_is_played_again_exactly(name: str, tmp_path: Path) -> None:
    family = get(name)
    worlds = make_worlds(family, 4, threads=1)
    tasks = family.space.sample(2, "test", torch.Generator().manual_seed(0))
    log = Recording(tmp_path / "logs").log(worlds, "random", 7, split="test", seed=0)
    agent = untrained(family, 0, CPU)
    adaptation_curve(agent, worlds, tasks, steps=0, episodes=2, generator=torch.Generator(), keep=log.add)
    log.write()

    read = read_log(tmp_path / "logs" / "random-seed7.npz")
    assert (read.family, read.step_seconds, len(read)) == (family.full_name, family.step_seconds, 4)
    # Alone, in another batch.
    drive = make_worlds(family, 1, threads=1).drive
    for episode in range(4):
        own = {name: torch.from_numpy(value[episode : episode + 1]) for name, value in read.tasks.items()}
        task = Tasks(family.full_name, own)
        assert own[next(iter(own))].equal(tasks.values[next(iter(own))][episode // 2 : episode // 2 + 1])
        drive.physics.apply(task, None)
        starts = {name: torch.from_numpy(value[episode : episode + 1]) for name, value in read.starts.items()}
        drive.start(starts, None, task)
        seen, first = read.seen(episode), read.firsts[episode]
        assert read.rewards is not None
        for step in range(read.lengths[episode]):
            np.testing.assert_array_equal(family.observe(drive.state, task).float()[0], seen[step])
            before = {name: drive.state[name].clone() for name in family.remember}
            action = torch.from_numpy(read.actions[first + step : first + step + 1])
            assert drive.advance(action, None, task) is None
            terms = family.reward_terms(before, drive.state, action, task)
            reward = torch.stack(tuple(terms.values())).sum(0)
            assert reward.float().item() == read.rewards[first + step]
        np.testing.assert_array_equal(family.observe(drive.state, task).float()[0], seen[-1])


def test_what_does_not_fit_is_refused_before_anything_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worlds = make_worlds("half-cheetah-vel", 2)
    # 200 steps of (17 + 1) * 4 and 6 * 8 bytes; 18 positions and velocities, a task and the last observation.
    each = 2 * (200 * (18 * 4 + 6 * 8) + (18 + 1) * 8 + 17 * 4 + 100)
    usage = type("Usage", (), {"free": 6 * each / 0.95})
    monkeypatch.setattr(recording_module.shutil, "disk_usage", lambda where: usage)
    Recording(tmp_path / "logs").check(worlds, [2, 3])
    with pytest.raises(UserError, match=r"are free there\. Lower --tasks, --episodes or --steps, or give a folder"):
        Recording(tmp_path / "logs").check(worlds, [3, 4])
    monkeypatch.setattr(recording_module.memory, "free_memory", lambda device=None: 8 * each)
    with pytest.raises(UserError, match="lower --tasks, --episodes or --steps with --record"):
        Recording(tmp_path / "logs").check(worlds, [2, 3])
    assert not (tmp_path / "logs").exists()


def test_a_data_set_of_minari_needs_more_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minari", reason="needs Minari: pip install 'metarl-suite[minari]'")
    worlds = make_worlds("half-cheetah-vel", 2)
    # Twice as much as above, and 15,000 bytes for each of five times two episodes.
    each = 2 * (2 * (200 * (18 * 4 + 6 * 8) + (18 + 1) * 8 + 17 * 4 + 100) + 15_000)
    for free, fits in ((5 * each / 0.95 + 10, True), (5 * each / 0.95 - 10, False)):
        monkeypatch.setattr(
            recording_module.shutil, "disk_usage", lambda where, free=free: type("", (), {"free": free})
        )
        recording = Recording(tmp_path / "logs", "minari")
        if fits:
            recording.check(worlds, [2, 3])
        else:
            with pytest.raises(UserError, match="are free there"):
                recording.check(worlds, [2, 3])


def test_an_evaluation_is_recorded_for_minari(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path / "rl2 b=0.5", "rl2")
    words = ["evaluate", str(run.folder), "--tasks", "3", "--episodes", "2", "--threads", "1", "--no-film"]
    no_place = refused([*words, "--record-format", "minari"], capsys)
    assert "Got --record-format minari without --record, which says where" in no_place
    with monkeypatch.context() as patched:
        patched.setattr(minari_data, "find_spec", lambda name: None)
        line = refused([*words, "--record", str(tmp_path / "data"), "--record-format", "minari"], capsys)
        assert "needs the package minari and h5py, which is not installed. Install it with" in line
    assert not (tmp_path / "data").exists()

    minari = pytest.importorskip("minari", reason="needs Minari: pip install 'metarl-suite[minari]'")
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--record", "data", "--record-format", "minari"]) == 0
    metarl.evaluate(run, record=tmp_path / "logs", **FEW)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["rl2-seed0-v0"]
    theirs, ours = read_log(tmp_path / "data" / "rl2-seed0-v0"), read_log(tmp_path / "logs" / "rl2-seed0.npz")
    for name in ("lengths", "observations", "actions", "final_observations", "rewards"):
        np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name))
    np.testing.assert_array_equal(theirs.tasks["goal"], ours.tasks["goal"])
    np.testing.assert_array_equal(theirs.starts["position"], ours.starts["position"])

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    data = minari.load_dataset("rl2-seed0-v0")
    assert (data.total_episodes, data.total_steps) == (len(ours), len(ours.actions))
    facts = data.storage.metadata
    assert (facts["family"], facts["step_seconds"]) == (ours.family, ours.step_seconds)
    assert (facts["algorithm_name"], facts["training_seed"], facts["split"]) == ("rl2", 0, "test")
    assert facts["versions"][0] == f"metarl {metarl.__version__}"
    told = list(data.storage.get_episode_metadata(range(12)))
    assert [episode["experience"] for episode in told] == [0] * 6 + [1] * 6
    assert [episode["task"] for episode in told] == [0, 0, 1, 1, 2, 2] * 2


def test_every_agent_and_reference_has_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [trained(tmp_path / "maml", seed=1, iterations=1), trained(tmp_path / "rl2", "rl2")]
    logs = tmp_path / "logs"
    metarl.evaluate(runs, random=True, steps=1, record=logs, **FEW)
    found = sorted(path.name for path in logs.iterdir())
    others = [f"random-seed{seed}.npz" for seed in range(5)]
    assert found == ["maml-trpo-seed1.npz", *others, "rl2-seed0.npz"]
    with np.load(logs / "maml-trpo-seed1.npz") as arrays:
        # Two points, three tasks, two episodes of each.
        assert arrays["experience"].tolist() == [0] * 6 + [2] * 6
        assert arrays["task"].tolist() == [0, 0, 1, 1, 2, 2] * 2
        assert arrays["lengths"].sum() == len(arrays["observations"]) == len(arrays["actions"])
        assert (str(arrays["agent"]), int(arrays["training_seed"]), str(arrays["split"])) == ("maml-trpo", 1, "test")
        assert arrays["task_units"].tolist() == ["m"]
        assert str(arrays["versions"][0]) == f"metarl {metarl.__version__}"
        # In their unit and within bounds: metres a step, where the agent has -1 to 1.
        assert np.abs(arrays["actions"]).max() <= arrays["action_high"].max() < 0.5
    with np.load(logs / "rl2-seed0.npz") as arrays:
        assert arrays["experience"].tolist() == [0] * 6 + [1] * 6

    before = {path: path.read_bytes() for path in logs.iterdir()}
    again = ["evaluate", str(tmp_path / "maml"), "--tasks", "2", "--record", str(logs)]
    assert "is there already. Give a new folder, or remove it." in refused(again, capsys)
    again[-1] = str(tmp_path / "maml" / "config.yaml")
    assert "is there already" in refused(again, capsys)
    assert {path: path.read_bytes() for path in logs.iterdir()} == before
