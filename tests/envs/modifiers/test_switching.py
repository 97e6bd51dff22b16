"""Tasks that change in the middle of a trial: exactly at their step, in the right worlds, and in the right split.

It is one file because a switch is one promise, held in spaces, worlds, Gymnasium and runs with the same few trials.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.cli.main import main
from metarl.envs import FamilyEnv, FamilyVectorEnv, get, make_worlds
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.families.half_cheetah import HalfCheetahVel
from metarl.envs.family import Family, MujocoFamily
from metarl.envs.horizon import with_horizon
from metarl.envs.modifiers.apply import with_switch
from metarl.envs.modifiers.switching import LATER, STEP, Switch, SwitchSpace, check_trials
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.learning.rollout import collect
from metarl.types import Record, Step, Tasks
from tests.helpers.run_folders import assert_same_run
from tests.helpers.toys import seeded as generator

WORLDS, STEPS = 3, 12


def space_of(family: Family) -> SwitchSpace:
    assert isinstance(family.space, SwitchSpace)
    return family.space


def trials(family: Family, steps: list[int], split: str = "train") -> Tasks:
    drawn = family.space.sample(len(steps), split, generator())
    return Tasks(drawn.family, {**drawn.values, STEP: torch.tensor(steps, dtype=torch.float64)})


def begin(family: Family, tasks: Tasks) -> tuple[Worlds, Tensor]:
    worlds = make_worlds(family, len(tasks), threads=2, dtype=torch.float64)
    worlds.set_tasks(tasks)
    return worlds, worlds.reset(generator(1))


def play(worlds: Worlds, steps: int = STEPS) -> list[Step]:
    actions = torch.rand(STEPS, worlds.num_worlds, worlds.action_size, generator=generator(2)) * 2.0 - 1.0
    return [worlds.step(action) for action in actions[:steps]]


def fields_of(family: Family) -> dict[str, Any]:
    """What it takes to make the family again, as another class."""
    assert dataclasses.is_dataclass(family)
    return {field.name: getattr(family, field.name) for field in dataclasses.fields(family) if field.init}


# --- at the switch -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["half-cheetah-vel", "ant-dir", "ant-goal", "point-nav"])
def test_reward_is_of_the_first_task_before_the_switch_and_of_the_later_one_from_it(name: str) -> None:
    family = with_switch(get(name), 1, 11)
    space, steps = space_of(family), [1, 5, 11]
    tasks = trials(family, steps)
    worlds, start = begin(family, tasks)
    played = play(worlds)
    # The physics of these families is the same whatever the task.
    parts = []
    for later in (False, True):
        plain, same_start = begin(get(name), space.part(tasks, later=later))
        assert torch.equal(start, same_start)
        parts.append(play(plain))
    seen = 0
    for t, (ours, first, second) in enumerate(zip(played, *parts, strict=True)):
        for world, switch in enumerate(steps):
            theirs = first if t < switch else second
            assert torch.equal(ours.observation[world], theirs.observation[world])
            assert ours.reward[world] == theirs.reward[world]
            assert ours.terminated[world] == theirs.terminated[world]
            seen += int(first.reward[world] != second.reward[world])
    assert seen > 0


@pytest.mark.parametrize("name", ["half-cheetah-vel+mass+gain=each", "ant-dir+gravity+damage"])
def test_physics_goes_on_from_the_same_state_with_the_later_model(name: str) -> None:
    family = with_switch(get(name), 1, 11)
    plain = get(name)
    assert isinstance(plain, MujocoFamily)
    steps = [1, 4, 11]
    tasks = trials(family, steps)
    parts = [plain.apply(space_of(family).part(tasks, later=later)) for later in (False, True)]
    worlds, _ = begin(family, tasks)
    assert isinstance(worlds.physics, MujocoPhysics)
    start = {name: value.clone() for name, value in worlds.physics.state.items()}
    engine = []
    for action in torch.rand(STEPS, WORLDS, family.action_size, generator=generator(2)) * 2.0 - 1.0:
        worlds.step(action)
        engine.append((action, {name: value.clone() for name, value in worlds.physics.state.items()}))
    for world, switch in enumerate(steps):
        models = []
        for fields in parts:
            model = copy.copy(plain.model)
            for field, value in fields.items():
                holder = model.opt if field.startswith("opt.") else model
                getattr(holder, field.removeprefix("opt."))[:] = value[world].numpy()
            mujoco.mj_setConst(model, mujoco.MjData(model))
            models.append(model)
        data = mujoco.MjData(models[0])
        data.qpos[:], data.qvel[:] = start["qpos"][world].numpy(), start["qvel"][world].numpy()
        mujoco.mj_forward(models[0], data)
        for t, (action, state) in enumerate(engine):
            data.ctrl[:] = action[world].double().numpy()
            mujoco.mj_step(models[t >= switch], data, nstep=plain.frame_skip)
            for field, value in state.items():
                np.testing.assert_array_equal(value[world].numpy(), getattr(data, field), err_msg=f"{field}, step {t}")
    # The later models were felt.
    unchanged, _ = begin(plain, space_of(family).part(tasks, later=False))
    play(unchanged)
    assert (unchanged.physics.state["qpos"] != engine[-1][1]["qpos"]).any(1).tolist() == [True] * WORLDS


def test_the_switch_itself_moves_nothing() -> None:
    family = with_switch(get("ant-dir+mass"), 5, 5)
    worlds, _ = begin(family, trials(family, [5, 5, 5]))
    play(worlds, 5)
    before = {name: value.clone() for name, value in worlds.physics.state.items()}
    assert worlds.present is not None
    present = worlds.present
    space = space_of(family)
    assert worlds._switch_tasks(space, None) is not present
    assert all(torch.equal(value, before[name]) for name, value in worlds.physics.state.items())


# --- steps of a trial --------------------------------------------------------------------------------------------


def present(worlds: Worlds, name: str = "velocity") -> list[float]:
    assert worlds.present is not None
    return worlds.present[name].tolist()


def test_steps_are_counted_over_the_episodes_of_a_trial() -> None:
    family = with_horizon(with_switch(get("half-cheetah-vel"), 1, 20), 4)
    tasks = trials(family, [4, 6, 20])
    first, later = tasks["velocity"].tolist(), tasks[LATER + "velocity"].tolist()
    worlds, _ = begin(family, tasks)
    play(worlds, 4)
    assert present(worlds) == first
    # The first world comes to its switch as its second episode begins.
    worlds.reset(generator())
    assert present(worlds) == [later[0], *first[1:]]
    play(worlds, 2)
    assert present(worlds) == [later[0], *first[1:]]
    play(worlds, 2)
    assert present(worlds) == [*later[:2], first[2]]
    # Nothing brings the first task back, but a new trial.
    worlds.reset(generator())
    assert present(worlds) == [*later[:2], first[2]]
    worlds.set_tasks(tasks)
    assert present(worlds) == [*later[:2], first[2]]
    worlds.reset(generator())
    assert present(worlds) == first
    play(worlds, 4)
    worlds.reset(generator())
    assert present(worlds) == [later[0], *first[1:]]


def test_a_new_episode_starts_from_the_task_in_force() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Recorded(HalfCheetahVel):
        starts: list[list[float]]

        def reset_state(self, generator: torch.Generator, tasks: Tasks) -> dict[str, Tensor]:
            self.starts.append(tasks["velocity"].tolist())
            return super().reset_state(generator, tasks)

    given = fields_of(get("half-cheetah-vel"))
    recorded = Recorded(**given, starts=[])
    family = with_horizon(with_switch(recorded, 1, 20), 4)
    tasks = trials(family, [4, 20])
    worlds, _ = begin(family, tasks)
    play(worlds, 4)
    worlds.reset(generator(), torch.tensor([0]))
    worlds.reset(generator(), torch.tensor([1]))
    first, later = tasks["velocity"].tolist(), tasks[LATER + "velocity"].tolist()
    assert recorded.starts == [first, later[:1], first[1:]]


def test_worlds_that_wait_do_not_count() -> None:
    family = with_switch(get("point-nav"), 3, 3)
    # The first world is at its goal after one step.
    goals = {"goal": [0.1, 0.0], "later_goal": [0.4, 0.4], STEP: 3.0}
    far = {"goal": [0.5, 0.5], "later_goal": [-0.3, 0.3], STEP: 3.0}
    worlds, _ = begin(family, family.space.from_records([goals, far]))
    for _ in range(4):
        worlds.step(torch.tensor([[1.0, 0.0]] * 2))
    assert present(worlds, "goal") == [[0.1, 0.0], [-0.3, 0.3]]
    worlds.reset(generator(), torch.tensor([0]))
    worlds.step(torch.tensor([[-1.0, 0.0]] * 2))
    assert present(worlds, "goal") == [[0.1, 0.0], [-0.3, 0.3]]
    worlds.step(torch.tensor([[-1.0, 0.0]] * 2))
    assert present(worlds, "goal")[0] == [0.1, 0.0]
    step = worlds.step(torch.tensor([[-1.0, 0.0]] * 2))
    assert present(worlds, "goal")[0] == [0.4, 0.4]
    assert step.reward[0].item() == pytest.approx(-((0.7**2 + 0.4**2) ** 0.5))


class Straight:
    """Always to the right, as fast as may be."""

    def act(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(observation), -1)


def test_a_trial_of_several_collections_switches_once_and_at_its_step() -> None:
    family = with_horizon(with_switch(get("point-nav"), 1, 9), 3)
    # In units of a move: the first world switches at the 5th of 9 steps; the second, at its first goal after one step
    # in every episode, has taken 3 when its last episode has begun; the third switches as its third episode begins.
    records: list[Record] = [
        {"goal": [-0.3, 0.0], "later_goal": [0.0, 0.4], STEP: 4.0},
        {"goal": [0.1, 0.0], "later_goal": [-0.5, 0.0], STEP: 2.0},
        {"goal": [-0.5, 0.0], "later_goal": [-0.1, 0.0], STEP: 6.0},
    ]
    tasks = family.space.from_records(records)
    worlds = make_worlds(family, 3, threads=1, dtype=torch.float64)
    for _ in range(2):
        episodes = [collect(worlds, Straight(), tasks, 1, generator(), new_trial=number == 0) for number in range(3)]
        rewards = torch.cat([episode.rewards.squeeze(1) for episode in episodes[:2]], dim=1)
        diagonals = [-(((0.1 * n) ** 2 + 0.4**2) ** 0.5) for n in (2, 3)]
        expected = [
            [-0.4, -0.5, -0.6, -0.4, *diagonals],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [-0.6, -0.7, -0.8, -0.6, -0.7, -0.8],
        ]
        torch.testing.assert_close(rewards, torch.tensor(expected, dtype=torch.float64), rtol=0.0, atol=1e-12)
        last = [[-(((0.1 * n) ** 2 + 0.4**2) ** 0.5) for n in (1, 2, 3)], [-0.6, -0.7, -0.8], [-0.2, -0.3, -0.4]]
        rewards = episodes[2].rewards.squeeze(1)
        torch.testing.assert_close(rewards, torch.tensor(last, dtype=torch.float64), rtol=0.0, atol=1e-12)


def test_trials_must_be_long_enough_to_switch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family = get("point-nav+switch=60..150")
    check_trials(family, 2)
    check_trials(get("point-nav+switch=60..199"), 2)
    check_trials(get("point-nav"), 1)
    with pytest.raises(
        UserError, match=r"as late as step 150, but a trial of this agent is 100 steps long.* below 100"
    ):
        check_trials(family)
    with pytest.raises(UserError, match=r"step 200.* 2 episodes of 100 steps long.*EARLIEST\.\.LATEST below 200"):
        check_trials(get("point-nav+switch=60..200"), 2)
    with pytest.raises(UserError, match="leave \\+switch out"):
        check_trials(get("bandit+switch"), 1)
    check_trials(get("bandit+switch"), 2)

    small = ["--tasks", "2", "--minibatches", "1", "--width", "4", "--iterations", "1", "--threads", "1", "--json"]
    command = ["train", "rl2", "--family", "bandit+switch=1..3", *small]
    assert main([*command, "--episodes", "3", "--out", str(tmp_path / "short")]) == 2
    assert "3 episodes of 1 steps long" in capsys.readouterr().err
    assert not (tmp_path / "short").exists()
    assert main([*command, "--episodes", "4", "--out", str(tmp_path / "long")]) == 0


def test_other_families_are_told_their_tasks_as_they_are() -> None:
    family = get("half-cheetah-vel")
    tasks = family.space.sample(2, "train", generator())
    worlds, _ = begin(family, tasks)
    assert worlds.present is worlds.tasks is tasks


# --- Gymnasium ---------------------------------------------------------------------------------------------------


def test_single_environments_report_the_task_in_force() -> None:
    trial: Record = {"velocity": 0.5, "later_velocity": 1.5, STEP: 2.0}
    env = FamilyEnv("half-cheetah-vel+switch=2..2", task=trial)
    tasks = [env.reset(seed=0)[1]["task"]]
    tasks += [env.step(np.zeros(6))[4]["task"] for _ in range(4)]
    # The task of each step's reward.
    assert tasks == [{"velocity": velocity} for velocity in (0.5, 0.5, 0.5, 1.5, 1.5)]
    assert env.task == trial
    assert env.reset()[1]["task"] == {"velocity": 1.5}
    assert env.reset(options={"task": env.task})[1]["task"] == {"velocity": 0.5}
    env.close()


def test_vector_environments_report_the_tasks_in_force() -> None:
    envs = gymnasium.make_vec("metarl/HalfCheetahVel-v0", num_envs=2, variant="v5+switch=1..3", threads=1)
    records = [{"velocity": 0.5, "later_velocity": 1.5, STEP: step} for step in (1.0, 3.0)]
    _, infos = envs.reset(seed=0, options={"tasks": records})
    seen = [infos["task"]["velocity"].tolist()]
    seen += [envs.step(np.zeros((2, 6)))[4]["task"]["velocity"].tolist() for _ in range(4)]
    assert seen == [[0.5, 0.5], [0.5, 0.5], [1.5, 0.5], [1.5, 0.5], [1.5, 1.5]]
    assert isinstance(envs.unwrapped, FamilyVectorEnv)
    assert envs.unwrapped.tasks.records() == records
    envs.close()


# --- spaces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["half-cheetah-vel+switch", "half-cheetah-vel@pearl19+mass+switch", "ant-goal+damage+switch=3..9"]
)
def test_both_parts_are_of_one_split_and_differ(name: str) -> None:
    family = get(name)
    space = space_of(family)
    low, high = space.earliest, space.latest
    for split in ("train", "test", "ood"):
        tasks = family.space.sample(400, split, generator())
        assert tasks.family == family.full_name
        assert space.contains(tasks, split).all()
        assert not any(space.contains(tasks, other).any() for other in ("train", "test", "ood") if other != split)
        for later in (False, True):
            assert space.base.contains(space.part(tasks, later=later), split).all()
        parts = [space.part(tasks, later=later).records() for later in (False, True)]
        assert all(first != second for first, second in zip(*parts, strict=True))
        steps = tasks[STEP]
        assert (steps.min(), steps.max()) == (low, high)
        assert torch.equal(steps, steps.round())
        assert space.features(tasks).shape == (400, space.feature_size)
    halves = [space.sample(400, split, generator()) for split in ("train", "test")]
    mixed = Tasks(family.full_name, {n: halves[n.startswith(LATER)][n] for n in halves[0].values})
    assert not any(space.contains(mixed, split).any() for split in ("train", "test", "ood"))


def test_two_directions_always_change() -> None:
    space = get("half-cheetah-dir+switch").space
    tasks = space.sample(100, "train", generator())
    assert torch.equal(tasks["direction"], -tasks["later_direction"])
    assert tasks["direction"].sum() == 0.0
    assert space.coincide
    assert not space.has_ood


@pytest.mark.parametrize(("split", "count"), [("train", 100), ("test", 30)])
def test_whole_fixed_sets_are_paired_with_others_of_the_set(split: str, count: int) -> None:
    tasks = get("half-cheetah-vel@pearl19+switch").space.sample(count, split, generator())
    assert len(tasks["velocity"].unique()) == count
    assert not (tasks["velocity"] == tasks["later_velocity"]).any()


def test_a_split_of_one_task_cannot_switch() -> None:
    family = with_switch(get("half-cheetah-dir+damage=limb"))
    # Both directions with the limb held out: two tasks, enough.
    assert len(family.space.sample(4, "ood", generator())) == 4
    one = dataclasses.replace(space_of(family).base, parameters=space_of(family).base.parameters[1:])
    with pytest.raises(UserError, match="split 'ood' has no second task to switch to"):
        Switch().space(one, "one", 200).sample(4, "ood", generator())


def test_records_round_trip() -> None:
    for name in ("half-cheetah-vel+mass=each+switch", "point-nav+switch", "half-cheetah-dir+switch=7..7"):
        space = get(name).space
        tasks = space.sample(5, "train", generator())
        again = space.from_records(json.loads(json.dumps(tasks.records())))
        assert again.family == tasks.family
        assert all(torch.equal(again[key], tasks[key]) for key in tasks.values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({STEP: 60.5}, "switch_step got 60.5. Give a whole number"),
        ({STEP: 151.0}, "switch_step got 151.0, out of range. Allowed: 50 to 150 steps"),
        ({"later_velocity": 9.0}, "later_velocity got 9.0, out of range"),
        ({"later_velocities": 1.0}, "unknown task field 'later_velocities'. Did you mean 'later_velocity'"),
    ],
)
def test_refuses_trials_that_do_not_fit(change: Record, message: str) -> None:
    space = get("half-cheetah-vel+switch").space
    task: Record = {"velocity": 0.5, "later_velocity": 1.5, STEP: 60.0}
    with pytest.raises(UserError, match=message):
        space.from_records([{**task, **change}])


@pytest.mark.parametrize("ends", ["0..5", "7..6", "5.5..9", "7", "each", "5..x", ""])
def test_refuses_steps_that_are_no_range(ends: str) -> None:
    with pytest.raises(UserError, match="switch"):
        get(f"half-cheetah-vel+switch={ends}")


def test_a_family_may_refuse() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Buried(HalfCheetahVel):
        no_switch: str = "an object would come to lie in the ground"

    given = fields_of(get("half-cheetah-vel"))
    with pytest.raises(UserError, match="cannot change its task in the middle of a trial: an object would come to lie"):
        with_switch(Buried(**given))


def test_describes_both_parts() -> None:
    lines = get("half-cheetah-vel+mass+switch").space.describe()
    assert lines[-2] == "later_velocity, later_mass_factor: the same again, another task of the same split"
    assert lines[-1].startswith("switch_step: 50 to 150 steps, whole numbers, uniform; ")


# --- runs --------------------------------------------------------------------------------------------------------


def test_a_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    small = ["--tasks", "2", "--episodes", "3", "--hidden", "16", "--checkpoint-every", "1", "--threads", "1", "--json"]
    command = ["train", "maml-trpo", "--family", "point-nav+switch=10..20", *small]
    assert main([*command, "--iterations", "2", "--out", str(tmp_path / "whole")]) == 0
    assert main([*command, "--iterations", "1", "--out", str(tmp_path / "parts")]) == 0
    assert main(["train", "--resume", str(tmp_path / "parts"), "--iterations", "2", "--json"]) == 0
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
