"""What a family adds to its physics in a control step: commands, forces, carried fields; against plain MuJoCo."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from metarl.envs import FamilyEnv, FamilyVectorEnv, chance, make_worlds
from metarl.envs.engines.buffers import measure_buffers
from metarl.envs.family import Family
from metarl.envs.modifiers.apply import modify
from metarl.envs.modifiers.dynamics import Factor
from metarl.envs.modifiers.switching import Switch
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.ranks import Ranks
from tests.envs.test_launched_steps import assert_same, parts, played
from tests.helpers.driven import LAG, TORSO, Driven
from tests.helpers.lockstep import worlds_together
from tests.helpers.recorder import Recorder
from tests.helpers.toys import seeded

WORLDS = 3
FAMILY = Driven()
ACTIONS = torch.rand(5, WORLDS, 6, generator=seeded(3), dtype=torch.float64) * 2.4 - 1.2
"""Some of them beyond the bounds."""


def begun(family: Family = FAMILY, seed: int = 0, **kwargs: Any) -> tuple[Worlds, torch.Tensor]:
    worlds = make_worlds(family, WORLDS, threads=1, dtype=torch.float64, **kwargs)
    generator = seeded(seed)
    worlds.set_tasks(family.space.sample(WORLDS, "train", generator))
    return worlds, worlds.reset(generator)


def test_a_step_is_that_of_plain_mujoco() -> None:
    worlds, first = begun()
    key = worlds.state["key"].clone()
    start = {name: worlds.physics.state[name].clone() for name in ("qpos", "qvel", "xpos")}
    assert torch.equal(first[:, -1], -start["xpos"][:, TORSO, 2])
    steps = [worlds.step(action) for action in ACTIONS]
    model = FAMILY.model
    for world in range(WORLDS):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = start["qpos"][world], start["qvel"][world]
        mujoco.mj_forward(model, data)
        motors, last = np.zeros(6), np.zeros(6)
        for number, step in enumerate(steps):
            action = ACTIONS[number, world].clamp(-1.0, 1.0).numpy()
            motors = motors + LAG * (action - motors)
            data.ctrl[:] = motors
            data.xfrc_applied[TORSO, 0] = 30.0 * chance.normal(key[world : world + 1], number, 1).item()
            x = data.qpos[0]
            mujoco.mj_step(model, data, nstep=FAMILY.frame_skip)
            np.testing.assert_array_equal(step.observation[world, :8].numpy(), data.qpos[1:])
            assert step.observation[world, -1] == number + 1 - start["xpos"][world, TORSO, 2]
            # Reward sees the carried fields of both sides, and the action as it was given.
            assert step.terms["counted"][world] == 1.0
            assert step.terms["rate"][world].item() == pytest.approx(-((action - last) ** 2).sum(), abs=1e-12)
            assert step.terms["control"][world].item() == pytest.approx(-0.1 * (action**2).sum(), abs=1e-12)
            speed = (data.qpos[0] - x) / FAMILY.step_seconds
            wanted = worlds.present["velocity"][world].item() if worlds.present else None
            assert step.terms["velocity"][world].item() == pytest.approx(-abs(speed - wanted), abs=1e-9)
            last = action


def test_worlds_that_rest_keep_what_they_carry_and_others_begin_anew() -> None:
    worlds, _ = begun()
    for action in ACTIONS[:2]:
        worlds.step(action)
    worlds._active[1] = False
    worlds._all_active = False
    before = {name: value.clone() for name, value in worlds.drive.carried.items()}
    places = {name: value.data_ptr() for name, value in worlds.drive.carried.items()}
    worlds.step(ACTIONS[2])
    for name in ("step", "motors", "last"):
        assert [torch.equal(worlds.state[name][i], before[name][i]) for i in range(WORLDS)] == [False, True, False]
    height = worlds.state["first_height"].clone()
    worlds.reset(seeded(9), torch.tensor([2]))
    assert worlds.state["step"].tolist() == [3, 2, 0]
    assert (worlds.state["key"] != before["key"]).tolist() == [False, False, True]
    assert (worlds.state["first_height"] != height).tolist() == [False, False, True]
    assert places == {name: value.data_ptr() for name, value in worlds.drive.carried.items()}


def test_in_lockstep_and_launched_it_is_the_same() -> None:
    recorder = Recorder()
    seen = [played(worlds_together(FAMILY, WORLDS, recorder), 2), played(worlds_together(FAMILY, WORLDS), 2)]
    assert recorder.replays > 0
    assert_same(*seen)


def test_ranks_have_their_rows_of_all_starts() -> None:
    alone, _ = begun()
    tasks, everything = alone.tasks, alone.state["key"]
    assert tasks is not None
    generator = seeded(0)
    FAMILY.space.sample(WORLDS, "train", generator)
    second = make_worlds(FAMILY, 1, threads=1, ranks=Ranks(rank=1, size=3))
    second.set_tasks(tasks.select([1]))
    second.reset(generator)
    assert torch.equal(second.state["key"], everything[1:2])
    assert torch.equal(second.state["qpos"], alone.state["qpos"][1:2])


@pytest.mark.parametrize("way", [copy.deepcopy, lambda worlds: pickle.loads(pickle.dumps(worlds))])
def test_copies_go_on_alike(way: Any) -> None:
    worlds, _ = begun()
    worlds.step(ACTIONS[0])
    other, state = way(worlds), worlds.get_state()
    steps = [worlds.step(action) for action in ACTIONS[1:]]
    assert_same([parts(step) for step in steps], [parts(other.step(action)) for action in ACTIONS[1:]])
    worlds.set_state(state)
    assert_same([parts(step) for step in steps], [parts(worlds.step(action)) for action in ACTIONS[1:]])


def test_gymnasium_environments_and_modifiers_carry_it() -> None:
    single = FamilyEnv(FAMILY, task={"velocity": 1.0})
    single.reset(seed=0)
    observation, _, _, _, info = single.step(ACTIONS[0, 0].numpy())
    assert info["reward/counted"] == 1.0
    state = single.get_state()
    ahead = single.step(ACTIONS[1, 0].numpy())[0]
    single.set_state(pickle.loads(pickle.dumps(state)))
    assert (single.step(ACTIONS[1, 0].numpy())[0] == ahead).all()
    heavy = modify(FAMILY, Factor(quantity="mass"), Switch(earliest=2, latest=2))
    many = FamilyVectorEnv(2, heavy)
    many.reset(seed=0)
    counts = [many.step(np.zeros((2, 6)))[0][:, -1] for _ in range(8)]
    begins = counts[6]
    # The seventh step is the reset after six; where a task switches, what is carried goes on.
    assert [round(float(count[0] - begins[0])) for count in counts] == [1, 2, 3, 4, 5, 6, 0, 1]
    assert observation.shape == (17,)


def test_room_of_the_gpu_engine_is_measured_with_commands_and_forces() -> None:
    assert measure_buffers(FAMILY, steps=6).contacts > 0


class _Wrong(Driven):
    """Which functions return something else stands in `wrong`."""

    wrong: dict[str, Any]

    def reset_state(self, generator: Any, tasks: Any) -> Any:
        start = super().reset_state(generator, tasks)
        return {name: value for name, value in start.items() if name != self.wrong.get("leave")}

    def begin(self, state: Any, tasks: Any) -> Any:
        return self.wrong.get("begin", {})

    def command(self, action: Any, state: Any, tasks: Any) -> Any:
        return self.wrong.get("command", action)

    def disturb(self, state: Any, tasks: Any) -> Any:
        return self.wrong.get("disturb")

    def carry(self, state: Any, action: Any, tasks: Any) -> Any:
        return self.wrong.get("carry", {"last": action})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"leave": "motors"}, r"reset_state returned no motors. It has to return all fields that are `carried`."),
        ({"begin": None}, r"begin returned None. It has to return a dict: name of a carried field -> tensor."),
        (
            {"begin": {"qpos": torch.zeros(3, 9)}},
            r"begin returned 'qpos'. It has to return none but the carried fields",
        ),
        ({"carry": {"step": torch.zeros(3)}}, r"carry returned float32 \[3\] for 'step'. It has to return int64 \[3\]"),
        ({"command": torch.zeros(3, 5)}, r"command returned float32 \[3, 5\]. .* floats \[3, 6\]: .* each actuator"),
        ({"disturb": torch.zeros(3, 6)}, r"disturb returned float32 \[3, 6\]. .* floats \[3, 8, 6\]: a force and"),
    ],
)
def test_what_does_not_fit_is_told(wrong: dict[str, Any], said: str) -> None:
    family = _Wrong()
    object.__setattr__(family, "wrong", wrong)
    with pytest.raises(UserError, match=said):
        begun(family)[0].step(ACTIONS[0])
