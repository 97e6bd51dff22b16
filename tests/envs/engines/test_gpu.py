"""The GPU engine beside the CPU engine, on Warp's CPU device where there is no GPU.

The first run compiles the kernels, half a minute for a robot; later ones find them in Warp's cache.
It is one file because all of it compares the same few worlds on both engines.
"""

import copy
import dataclasses
import importlib.util
import math
import sys

import mujoco
import pytest
import torch
from torch import Tensor

from metarl.agents import config_class, make
from metarl.envs import get, make_worlds
from metarl.envs.engines.cpu import MujocoPhysics
from metarl.envs.engines.warp_model import gpu_model
from metarl.envs.families.half_cheetah import HalfCheetahVel
from metarl.envs.family import MujocoFamily, random_actions
from metarl.envs.horizon import with_horizon
from metarl.envs.physics import CPU
from metarl.envs.worlds import Worlds
from metarl.errors import NotFiniteError, UserError
from metarl.seeding import Streams
from metarl.types import Tasks

if importlib.util.find_spec("mujoco_warp") is None:
    pytest.skip("mujoco_warp is not installed (the extra `gpu`)", allow_module_level=True)

from metarl.envs.engines.gpu import WarpPhysics
from metarl.envs.engines.loading import load
from tests.helpers.driven import Driven
from tests.helpers.no_waits import no_waits

DEVICE = torch.device("cuda") if torch.cuda.is_available() else CPU
WORLDS = 4
CHEETAH = "half-cheetah-vel@v5"
VARIED = "half-cheetah-vel@v5+mass+inertia=each+damping+friction+gravity+gain+range+damage"


def prepared(name: str, *, round_cone: bool = False) -> MujocoFamily:
    """Return a family whose model on the CPU is the one that the GPU engine runs."""
    family = get(name)
    assert isinstance(family, MujocoFamily)
    family, model = copy.copy(family), gpu_model(family)
    if round_cone:
        model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    vars(family)["model"] = model
    return family


def physical(family: MujocoFamily, action: Tensor) -> Tensor:
    low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (family.action_low, family.action_high))
    return low + (action + 1.0) * 0.5 * (high - low)


def deviations(family: MujocoFamily, steps: int, seed: int = 1) -> dict[str, list[float]]:
    """Step both engines from the same start with the same actions; return the largest difference after each step.

    The first number is that of the start.
    """
    generator = torch.Generator().manual_seed(seed)
    tasks = family.space.sample(WORLDS, "train", generator)
    start = family.reset_state(generator, tasks)
    host, device = MujocoPhysics(family, WORLDS, threads=1), WarpPhysics(family, WORLDS, DEVICE)
    for physics in (host, device):
        physics.apply(tasks, None)
        physics.write(start, None)
    found: dict[str, list[float]] = {name: [] for name in host.state}
    for step in range(steps + 1):
        for name, value in host.state.items():
            found[name].append((device.state[name].cpu() - value).abs().max().item())
        if step < steps:
            action = physical(family, random_actions(family, WORLDS, generator))
            assert host.advance(action, None) is None
            assert not device.advance(action.to(DEVICE), None).any()
    return found


# --- agreement ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What is asked of a family: about five times the largest difference that 3 seeds of 4 worlds had.

    Differences begin as float32's rounding, 1e-7; contacts make them grow, the more the harder they are.
    """

    name: str
    tolerances: dict[str, float]
    steps: int = 10
    round_cone: bool = False
    """Contacts with round friction cones in place of pyramids, whose tangents differ (see gpu.py)."""


FAST = [
    Agreement(CHEETAH, {"qpos": 3e-4, "qvel": 7e-3}),
    Agreement(VARIED, {"qpos": 1e-2, "qvel": 5e-1}),
]
SLOW = [
    Agreement("ant-dir@v5", {"qpos": 5e-5, "qvel": 5e-4, "xpos": 5e-5, "cfrc_ext": 3e-2}, round_cone=True),
    Agreement("ant-goal@v5", {"qpos": 5e-5, "qvel": 5e-4, "cfrc_ext": 5e-2}, round_cone=True),
    Agreement("humanoid-dir@v5", {"qpos": 1e-5, "qvel": 3e-4, "subtree_com": 5e-6, "cfrc_ext": 5e-2}),
    Agreement("walker2d-vel@v5", {"qpos": 2e-5, "qvel": 5e-4}),
    Agreement("walker2d-rand-params@v5", {"qpos": 4e-5, "qvel": 1e-3}),
    Agreement("hopper-rand-params@v5", {"qpos": 2e-6, "qvel": 5e-5}),
    Agreement("swimmer-vel@v5", {"qpos": 5e-6, "qvel": 4e-5}),
    Agreement("reacher-goal@v5", {"qpos": 1e-6, "qvel": 1e-5, "xpos": 5e-7}),
    Agreement("push-shape@v1", {"qpos": 2e-5, "qvel": 3e-4}),
    # The object lands on the table in the first step; with other seeds the fingers touch it early.
    Agreement("grasp-shape@v1", {"qpos": 2e-3, "qvel": 5e-2}, steps=5),
    Agreement("reach-over@v1", {"qpos": 2e-3, "qvel": 5e-2}),
    # On a height field only until the feet touch the ground.
    Agreement("ant-terrain@v1", {"qpos": 2e-6, "qvel": 3e-5, "cfrc_ext": 1e-6}, steps=1),
]


@pytest.mark.parametrize(
    "wanted", [*FAST, *(pytest.param(slow, marks=pytest.mark.slow) for slow in SLOW)], ids=lambda wanted: wanted.name
)
def test_engines_agree_over_the_first_steps(wanted: Agreement) -> None:
    tolerances = wanted.tolerances
    found = deviations(prepared(wanted.name, round_cone=wanted.round_cone), wanted.steps)
    assert set(found) == set(tolerances)
    for field, differences in found.items():
        assert differences[0] < 1e-6, f"{field} at the start"
        assert max(differences) < tolerances[field], field


LOOKS = 5
"""Contacts are counted at every so many steps."""


def contact_counts(physics: MujocoPhysics | WarpPhysics, worlds: int) -> Tensor:
    """Return the number of contacts in every world."""
    if isinstance(physics, WarpPhysics):
        owners = physics._wp.to_torch(physics._data.contact.worldid)[: int(physics._data.nacon.numpy()[0])].cpu()
        return owners.bincount(minlength=worlds).double()
    model, data = physics.snapshot(0)
    return torch.tensor([physics.snapshot(world, model, data)[1].ncon for world in range(worlds)], dtype=torch.float64)


def play(family: MujocoFamily, physics: MujocoPhysics | WarpPhysics, tasks: Tasks, seed: int) -> dict[str, Tensor]:
    """Play an episode of every task with random actions; return its return, its length and its mean of contacts."""
    generator = torch.Generator().manual_seed(seed)
    worlds = Worlds(family, len(tasks), physics)
    worlds.set_tasks(tasks)
    worlds.reset(generator)
    total, length, contacts, looks = (torch.zeros(len(tasks), dtype=torch.float64) for _ in range(4))
    running = torch.ones(len(tasks), dtype=torch.bool)
    for number in range(worlds.horizon):
        step = worlds.step(random_actions(family, len(tasks), generator).to(worlds.device))
        total += step.reward.cpu()
        length += running
        if number % LOOKS == 0:
            contacts += contact_counts(physics, len(tasks)) * running
            looks += running
        running &= ~(step.terminated | step.truncated).cpu()
        if not running.any():
            break
    return {"return": total, "length": length, "contacts": contacts / looks}


def assert_alike(name: str, worlds: int, seed: int = 0) -> None:
    """Assert that means over episodes of the two engines lie within 4 standard errors of their difference."""
    family = prepared(name)
    tasks = family.space.sample(worlds, "train", torch.Generator().manual_seed(seed))
    host, device = (
        play(family, physics, tasks, seed)
        for physics in (MujocoPhysics(family, worlds, threads=1), WarpPhysics(family, worlds, DEVICE))
    )
    for what, here in host.items():
        # The same tasks, starts and actions: what is left is what chaos makes of rounding.
        difference = device[what] - here
        error = difference.std() / len(difference) ** 0.5
        found = f"{name}: {what} {here.mean():.4g}, on the GPU engine {difference.mean():+.3g} +- {error:.2g}"
        print(found)
        assert difference.mean().abs() <= 4.0 * error + 1e-3, found


@pytest.mark.slow
def test_whole_episodes_are_alike() -> None:
    assert_alike(CHEETAH, worlds=8)


ALL_ROBOTS = [
    "ant-dir@v5",
    "humanoid-dir@v5",
    "walker2d-rand-params@v5",
    "hopper-rand-params@v5",
    "swimmer-vel@v5",
    "reacher-goal@v5",
    "push-shape@v1",
    "grasp-shape@v1",
    "reach-over@v1",
    "ant-terrain@v1",
    "half-cheetah-terrain@scan",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_ROBOTS)
def test_whole_episodes_of_every_robot_are_alike(name: str) -> None:
    assert_alike(name, worlds=32)


# --- one model a world -------------------------------------------------------------------------------------------


def on_both_engines(name: str) -> tuple[Tasks, MujocoPhysics, WarpPhysics]:
    """Return tasks of a family, and the engines with a world for each of them."""
    family = get(name)
    assert isinstance(family, MujocoFamily)
    tasks = family.space.sample(WORLDS, "train", torch.Generator().manual_seed(0))
    host, device = MujocoPhysics(family, WORLDS, threads=1), WarpPhysics(family, WORLDS, DEVICE)
    for physics in (host, device):
        physics.apply(tasks, None)
    return tasks, host, device


def test_every_world_has_its_own_model_and_what_mujoco_derives_from_it() -> None:
    tasks, host, device = on_both_engines(VARIED)
    wp, _ = load()
    names = [*host.family.apply(tasks), "body_subtreemass", "body_invweight0", "dof_invweight0", "actuator_acc0"]
    for name in names:
        holder = device._model.opt if name.startswith("opt.") else device._model
        mine = wp.to_torch(getattr(holder, name.removeprefix("opt."))).cpu().double()
        for world in range(WORLDS):
            model, _ = host.snapshot(world)
            its = model.opt if name.startswith("opt.") else model
            expected = torch.as_tensor(getattr(its, name.removeprefix("opt.")), dtype=torch.float64)
            torch.testing.assert_close(mine[world].reshape(expected.shape), expected, rtol=1e-4, atol=1e-6, msg=name)
        # What is zero stays zero, such as the bias of a motor.
        if bool(mine.any()):
            assert (mine[1:] != mine[0]).any(), f"{name} is the same in all worlds"


def test_the_objects_of_a_shape_family_have_their_own_sizes_and_bounds() -> None:
    _, host, device = on_both_engines("push-shape")
    wp, _ = load()
    for name in ("geom_size", "geom_rbound", "geom_aabb"):
        mine = wp.to_torch(getattr(device._model, name)).cpu().double()
        for world in range(WORLDS):
            expected = torch.as_tensor(getattr(host.snapshot(world)[0], name), dtype=torch.float64)
            torch.testing.assert_close(mine[world].reshape(expected.shape), expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", ["half-cheetah-terrain", "push-shape"])
def test_what_cannot_move_is_where_the_task_puts_it(name: str) -> None:
    tasks, host, device = on_both_engines(name)
    start = host.family.reset_state(torch.Generator().manual_seed(0), tasks)
    for physics in (host, device):
        physics.write(start, None)
    mine = device._wp.to_torch(device._data.geom_xpos).cpu().double()
    still = torch.as_tensor(device._host.body_weldid[device._host.geom_bodyid] == 0)
    assert still.any()
    for world in range(WORLDS):
        its = torch.as_tensor(host.snapshot(world)[1].geom_xpos)
        torch.testing.assert_close(mine[world][still], its[still], rtol=1e-6, atol=1e-5)
    if "terrain" in name:
        assert (mine[1:, still] != mine[0, still]).any(), "all worlds have the same ground"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ant-terrain", "half-cheetah-terrain"])
def test_equal_states_touch_height_fields_alike(name: str) -> None:
    tasks, host, device = on_both_engines(name)
    family, generator = host.family, torch.Generator().manual_seed(11)
    host.write(family.reset_state(generator, tasks), None)
    touching = both = equal = 0
    for _ in range(60):
        host.advance(physical(family, random_actions(family, WORLDS, generator)), None)
        device.write({field: host.state[field] for field in ("qpos", "qvel")}, None)
        here, there = contact_counts(host, WORLDS), contact_counts(device, WORLDS)
        touching += int(((here > 0) | (there > 0)).sum())
        both += int(((here > 0) & (there > 0)).sum())
        equal += int(((here == there) & (here > 0)).sum())
    print(f"{name}: of {touching} worlds that touch the ground {both} do with both engines, {equal} as often")
    # Contacts that all but repeat one another at a fold may be dropped or not.
    assert both >= 0.9 * touching >= 36
    assert equal >= 0.5 * touching


def test_a_task_of_some_worlds_leaves_the_models_of_the_others() -> None:
    family = get(VARIED)
    assert isinstance(family, MujocoFamily)
    first, second = (family.space.sample(WORLDS, "train", torch.Generator().manual_seed(seed)) for seed in (0, 1))
    device = WarpPhysics(family, WORLDS, DEVICE)
    wp, _ = load()
    device.apply(first, None)
    before = wp.to_torch(device._model.body_mass).clone()
    device.apply(second, torch.tensor([2]))
    after = wp.to_torch(device._model.body_mass)
    assert (after != before).any(1).tolist() == [False, False, True, False]


def test_commands_and_forces_on_bodies_are_those_of_the_cpu_engine() -> None:
    family = Driven()
    vars(family)["model"] = gpu_model(family)
    seen = []
    for engine in ("cpu", "gpu"):
        worlds = make_worlds(
            family, WORLDS, engine=engine, device=DEVICE if engine == "gpu" else CPU, dtype=torch.float64
        )
        generator = torch.Generator().manual_seed(0)
        worlds.set_tasks(family.space.sample(WORLDS, "train", generator))
        worlds.reset(generator)
        for _ in range(4):
            worlds.step(random_actions(family, WORLDS, generator).to(worlds.device))
        seen.append({name: value.cpu() for name, value in worlds.state.items()})
    for name in family.carried:
        torch.testing.assert_close(seen[1][name], seen[0][name], rtol=0.0, atol=1e-6)
    torch.testing.assert_close(seen[1]["qpos"], seen[0]["qpos"], rtol=0.0, atol=3e-4)
    torch.testing.assert_close(seen[1]["qvel"], seen[0]["qvel"], rtol=0.0, atol=7e-3)


# --- resets and failures -----------------------------------------------------------------------------------------


def test_a_reset_of_some_worlds_leaves_the_others() -> None:
    family = prepared("reacher-goal@v5")
    generator = torch.Generator().manual_seed(0)
    tasks = family.space.sample(WORLDS, "train", generator)
    host, device = MujocoPhysics(family, WORLDS, threads=1), WarpPhysics(family, WORLDS, DEVICE)
    start, again = family.reset_state(generator, tasks), family.reset_state(generator, tasks)
    some = torch.tensor([1, 3])
    for physics in (host, device):
        physics.write(start, None)
    for step in range(6):
        action = physical(family, random_actions(family, WORLDS, generator))
        for physics in (host, device):
            physics.advance(action.to(physics.device), None)
            if step == 2:
                physics.write({name: value[some] for name, value in again.items()}, some)
        for name, value in host.state.items():
            torch.testing.assert_close(device.state[name].cpu(), value, rtol=0.0, atol=1e-4, msg=name)


def started(name: str = CHEETAH) -> tuple[Worlds, WarpPhysics, Tasks]:
    family = get(name)
    assert isinstance(family, MujocoFamily)
    physics = WarpPhysics(family, WORLDS, DEVICE)
    tasks = family.space.sample(WORLDS, "train", torch.Generator().manual_seed(0))
    worlds = Worlds(family, WORLDS, physics)
    worlds.set_tasks(tasks)
    worlds.reset(torch.Generator().manual_seed(0))
    return worlds, physics, tasks


def test_a_world_that_becomes_invalid_ends_and_is_counted() -> None:
    worlds, physics, _ = started()
    others, _, _ = started()
    broken = {name: physics.state[name][1:2].cpu() for name in ("qpos", "qvel")}
    broken["qvel"] = broken["qvel"] + float("nan")
    physics.write(broken, torch.tensor([1]))
    action = torch.zeros(WORLDS, 6, device=DEVICE)
    for number in range(3):
        step, plain = worlds.step(action), others.step(action)
        assert step.truncated.tolist() == [False, number == 0, False, False]
        assert not step.terminated.any()
        assert step.reward[1] == 0.0
        assert step.observation.isfinite().all()
        assert torch.equal(step.observation[[0, 2, 3]], plain.observation[[0, 2, 3]])
    assert worlds.failures == 1
    worlds.reset(torch.Generator().manual_seed(1))
    assert not worlds.step(action).truncated.any()


# --- worlds ------------------------------------------------------------------------------------------------------


def test_both_engines_draw_the_same_starts() -> None:
    seen = []
    for engine in ("cpu", "gpu"):
        worlds = make_worlds(CHEETAH, WORLDS, engine=engine, device=DEVICE, threads=1)
        worlds.set_tasks(worlds.family.space.sample(WORLDS, "train", torch.Generator().manual_seed(0)))
        seen.append(worlds.reset(torch.Generator().manual_seed(1)).cpu())
    torch.testing.assert_close(seen[1], seen[0], rtol=0.0, atol=1e-6)


def test_a_wrong_action_is_told_at_the_next_reset() -> None:
    worlds, _, _ = started()
    action = torch.zeros(WORLDS, 6, device=DEVICE)
    action[2, 3] = float("nan")
    step = worlds.step(action)
    assert step.truncated.tolist() == [False, False, True, False]
    with pytest.raises(NotFiniteError, match="world 2 of 1 such worlds: give half-cheetah-vel@v5 finite numbers"):
        worlds.reset(torch.Generator().manual_seed(0))
    worlds.reset(torch.Generator().manual_seed(0))


class Reads(HalfCheetahVel):
    """Reads what mujoco_warp does not have."""

    fields = ("qpos", "qvel", "bvh_active")


class Varies(HalfCheetahVel):
    """Varies what mujoco_warp shares among the worlds."""

    def apply(self, tasks: Tasks) -> dict[str, Tensor]:
        return {"geom_conaffinity": torch.zeros(len(tasks), self.model.ngeom, dtype=torch.float64)}


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Reads, "it reads bvh_active, which mujoco_warp does not compute"),
        (Varies, "'geom_conaffinity' is not a batched"),
    ],
)
def test_what_the_engine_cannot_do_is_said(kind: type[HalfCheetahVel], says: str) -> None:
    with pytest.raises(UserError, match=rf"half-cheetah-vel@own does not run on the GPU engine: .*{says}"):
        WarpPhysics(
            kind(variant="own", source="test", control_weight=0.1, top_speed=2.0), 2, contacts=16, constraints=32
        )


def test_an_engine_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    with pytest.raises(UserError, match=r"needs mujoco_warp.*pip install 'metarl-suite\[gpu\]'"):
        make_worlds(CHEETAH, 2, engine="gpu")


@pytest.mark.parametrize("agent", ["maml-trpo", "rl2"])
def test_agents_learn_on_it(agent: str) -> None:
    family = with_horizon(get(CHEETAH), 4)
    config = config_class(agent)(tasks=2, episodes=2, **({"minibatches": 1} if agent == "rl2" else {}))
    worlds = make_worlds(family, config.worlds, engine="gpu", device=DEVICE)
    metrics = make(agent, config, family.spec(), Streams(0), DEVICE).train_iteration(
        worlds, family.space.sample, Streams(0)
    )
    assert metrics["episode/length"] == 4.0
    assert all(math.isfinite(value) for value in metrics.values())


# --- on a GPU ----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", [CHEETAH, "ant-dir", "half-cheetah-vel+mass", "point-nav"])
def test_no_step_makes_the_host_wait(name: str) -> None:
    device = torch.device("cuda")
    worlds = make_worlds(name, 64, engine="gpu", device=device)
    worlds.set_tasks(worlds.family.space.sample(64, "train", torch.Generator().manual_seed(0)))
    worlds.reset(torch.Generator().manual_seed(0))
    action = torch.zeros(64, worlds.action_size, device=device)
    # The first step copies the family's constants to the device, the third one is captured.
    for _ in range(4):
        worlds.step(action)
    with no_waits():
        for _ in range(5):
            worlds.step(action)
