"""Steps of worlds that are launched as one are the same steps."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metarl.envs import families, get, make_worlds
from metarl.envs.families.point_nav import PointNav
from metarl.envs.family import MujocoFamily, TorchFamily, random_actions
from metarl.envs.worlds import Worlds
from metarl.errors import NotFiniteError, UserError
from metarl.types import Step
from tests.helpers.lockstep import worlds_together
from tests.helpers.recorder import Recorder
from tests.helpers.toys import seeded

WORLDS = 3
STEPS = 5
KINDS = (MujocoFamily, TorchFamily)
ALL = [
    *(family.full_name for variants in families().values() for family in variants if isinstance(family, KINDS)),
    "half-cheetah-vel@v5+mass+inertia+damping+friction+gravity+gain+range+damage",
    "half-cheetah-vel@v5+gains+payload+slope+push+bias+noise+delay",
    "point-nav+bias+noise+delay",
]


def parts(step: Step) -> list[Tensor]:
    flags = [step.terminated, step.truncated, *([] if step.success is None else [step.success])]
    return [step.observation, step.reward, *flags, *step.terms.values()]


def played(worlds: Worlds, episodes: int, meddle: Callable[[Worlds, int], None] | None = None) -> list[list[Tensor]]:
    """Play with random actions, every episode with other tasks; return everything that was seen."""
    generator, seen = seeded(), []
    for _ in range(episodes):
        worlds.set_tasks(worlds.family.space.sample(WORLDS, "train", generator))
        seen.append([worlds.reset(generator)])
        for number in range(min(STEPS, worlds.horizon)):
            if meddle is not None:
                meddle(worlds, number)
            seen.append(parts(worlds.step(random_actions(worlds.family, WORLDS, generator).float())))
    return seen


def assert_same(one: list[list[Tensor]], other: list[list[Tensor]]) -> None:
    for mine, its in zip(one, other, strict=True):
        for a, b in zip(mine, its, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ALL)
def test_steps_of_every_family_are_captured_and_the_same(name: str) -> None:
    family, recorder = get(name), Recorder()
    episodes = 2 if family.horizon >= STEPS else 5
    assert_same(
        played(worlds_together(family, WORLDS), episodes), played(worlds_together(family, WORLDS, recorder), episodes)
    )
    assert recorder.captures == 1
    assert recorder.replays > 0
    # Physics of torch is a part of it, MuJoCo's stands between two parts.
    assert recorder.replays % (2 if isinstance(family, MujocoFamily) else 1) == 0


def test_failures_and_ends_are_the_same() -> None:
    def break_one(worlds: Worlds, number: int) -> None:
        if number == 4:
            worlds.physics.state["qvel"][1] = float("nan")

    seen = []
    for recorder in (None, Recorder()):
        worlds = worlds_together(get("hopper-rand-params"), WORLDS, recorder)
        seen.append(played(worlds, 2, break_one))
        assert worlds.failures == 2
    assert_same(*seen)
    assert any(bool(step[3].any()) for step in seen[0][1:6])


def test_a_time_limit_that_is_changed_is_another_launch() -> None:
    recorder = Recorder()
    worlds = worlds_together(get("point-nav"), WORLDS, recorder)
    played(worlds, 1)
    worlds.horizon = 4
    steps = played(worlds, 2)
    assert recorder.captures == 2
    assert [step[3].all().item() for step in steps[6:10]] == [False, False, False, True]


def test_what_a_step_returned_may_be_kept_and_written_to() -> None:
    worlds, generator = worlds_together(get("half-cheetah-vel"), WORLDS, Recorder()), seeded()
    worlds.set_tasks(worlds.family.space.sample(WORLDS, "train", generator))
    worlds.reset(generator)
    action = torch.full((WORLDS, 6), 0.3)
    steps = [worlds.step(action) for _ in range(6)]
    kept = [[part.clone() for part in parts(step)] for step in steps]
    worlds.step(-action)
    assert_same([parts(step) for step in steps], kept)
    before = worlds.step(action)
    for part in parts(before):
        part.fill_(1)
    assert worlds.step(action).observation.abs().max() < 1.0e3
    assert not worlds.step(action).terminated.any()


def test_wrong_actions_are_told_as_ever() -> None:
    worlds, generator = worlds_together(get("point-nav"), WORLDS, Recorder()), seeded()
    worlds.set_tasks(worlds.family.space.sample(WORLDS, "train", generator))
    worlds.reset(generator)
    action = torch.zeros(WORLDS, 2, requires_grad=True)
    for _ in range(4):
        assert not worlds.step(action).observation.requires_grad
    with pytest.raises(UserError, match=r"shape \(3, 3\), point-nav@maml17 with 3 worlds takes \(3, 2\)"):
        worlds.step(torch.zeros(WORLDS, 3))
    wrong = torch.zeros(WORLDS, 2)
    wrong[1, 0], wrong[2, 1] = float("nan"), float("inf")
    assert worlds.step(wrong).truncated.tolist() == [False, True, True]
    with pytest.raises(NotFiniteError, match="world 1 of 2 such worlds"):
        worlds.reset(generator)


def test_tasks_that_are_given_are_left_as_they_are() -> None:
    worlds, generator = worlds_together(get("point-nav"), WORLDS, Recorder()), seeded()
    first, second = (worlds.family.space.sample(WORLDS, "train", generator) for _ in range(2))
    kept = first["goal"].clone()
    for tasks in (first, second):
        worlds.set_tasks(tasks)
        worlds.reset(generator)
        worlds.step(torch.zeros(WORLDS, 2))
    assert torch.equal(first["goal"], kept)
    assert not torch.equal(first["goal"], second["goal"])


def test_worlds_go_back_to_a_state_and_on_from_it() -> None:
    family, recorder = get("point-nav"), Recorder()
    worlds = worlds_together(family, WORLDS, recorder)
    played(worlds, 1)
    state = worlds.get_state()
    action = torch.full((WORLDS, 2), 0.2)
    ahead = [parts(worlds.step(action)) for _ in range(4)]
    played(worlds, 1)
    for _ in range(2):
        worlds.set_state(state)
        assert_same([parts(worlds.step(action)) for _ in range(4)], ahead)
    other = copy.deepcopy(worlds)
    other.set_state(state)
    assert_same([parts(other.step(action)) for _ in range(4)], ahead)


def test_where_tasks_switch_every_step_looks_for_it() -> None:
    recorder = Recorder()
    worlds = worlds_together(get("point-nav+switch=3..5"), WORLDS, recorder)
    assert worlds.launches is None
    assert_same(played(worlds_together(get("point-nav+switch=3..5"), WORLDS), 2), played(worlds, 2))
    assert recorder.captures == 0


class Swapping(PointNav):
    """Returns what it was given, each under the name of the other."""

    def reset_state(self, generator: torch.Generator, tasks: object) -> dict[str, Tensor]:
        zero = torch.zeros(WORLDS, 2, dtype=torch.float64)
        return {"position": zero, "other": zero + 1.0}

    def advance(self, state: object, action: Tensor, tasks: object) -> dict[str, Tensor]:
        assert isinstance(state, dict)
        return {"position": state["other"], "other": state["position"][:, :]}


def test_a_family_may_return_what_it_was_given() -> None:
    family = Swapping(variant="swapping")
    for recorder in (None, Recorder()):
        worlds, generator = worlds_together(family, WORLDS, recorder), seeded()
        worlds.set_tasks(family.space.sample(WORLDS, "train", generator))
        worlds.reset(generator)
        seen = [worlds.step(torch.zeros(WORLDS, 2)).observation[0, 0].item() for _ in range(6)]
        assert seen == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]


# -- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["point-nav", "bandit", "tabular-mdp", "half-cheetah-vel+mass", "hopper-rand-params"])
def test_on_a_gpu_launched_steps_are_the_same(name: str) -> None:
    device, seen = torch.device("cuda", torch.cuda.current_device()), []
    for launched in (False, True):
        worlds = make_worlds(name, WORLDS, engine="gpu", device=device)
        launches = worlds.physics.launches
        if not launched:
            worlds.physics.launches = None
        seen.append(played(worlds, 5))
    assert launches is not None
    assert launches.get(("step", worlds.horizon), lambda: pytest.fail("nothing was launched")).captured
    if not isinstance(worlds.family, MujocoFamily):
        assert_same(*seen)
        return
    # Sums on a GPU may be taken in any order, and contacts make the differences grow.
    for mine, its in zip(*seen, strict=True):
        torch.testing.assert_close(mine[0], its[0], rtol=0.0, atol=1e-2)
