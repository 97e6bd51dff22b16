"""The Gymnasium environments: API, tasks, autoreset, pictures, errors."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from metarl.envs import FamilyEnv, FamilyVectorEnv, families, get, gymnasium_id
from metarl.envs.external import child
from metarl.errors import UserError

IDS = {name: gymnasium_id(name) for name in families()}
SLOW = {"velocity": 0.25}
FAST = {"velocity": 1.75}


def test_ids() -> None:
    assert IDS["point-nav"] == "metarl/PointNav-v0"
    assert IDS["half-cheetah-vel"] == "metarl/HalfCheetahVel-v0"
    assert len(set(IDS.values())) == len(IDS)


def test_an_id_imports_its_module() -> None:
    code = "import gymnasium; print(gymnasium.make('metarl.envs:metarl/PointNav-v0').unwrapped.family.full_name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "point-nav@maml17"


# --- tasks -------------------------------------------------------------------------------------------------------


def test_only_the_options_change_the_task() -> None:
    env = FamilyEnv("half-cheetah-vel", task=SLOW)
    assert env.reset()[1]["task"] == SLOW
    assert env.reset(seed=3)[1]["task"] == SLOW
    assert env.reset(options={"task": FAST})[1]["task"] == FAST
    assert env.reset(options={})[1]["task"] == FAST
    info = env.step(np.zeros(6))[-1]
    assert info["task"] == FAST == env.task
    # The reward is that task's, and the record is the caller's own.
    assert info["reward/velocity"] == pytest.approx(-1.75, abs=0.5)
    info["task"]["velocity"] = 0.0
    assert env.task == FAST


def test_a_task_is_drawn_once_and_then_on_request() -> None:
    env = FamilyEnv("half-cheetah-vel@maml17", split="test")
    space = get("half-cheetah-vel@maml17").space
    first = env.reset(seed=1)[1]["task"]
    assert space.contains(space.from_records([first]), "test").all()
    assert env.reset()[1]["task"] == first
    assert env.reset(seed=2)[1]["task"] == first
    drawn = [env.reset(options={"task": "sample"})[1]["task"] for _ in range(5)]
    assert len({task["velocity"] for task in [first, *drawn]}) == 6
    assert space.contains(space.from_records(drawn), "test").all()
    assert FamilyEnv("half-cheetah-vel@maml17", split="test").reset(seed=1)[1]["task"] == first
    ood = FamilyEnv("half-cheetah-vel@maml17", split="ood").reset(seed=1)[1]["task"]
    assert space.contains(space.from_records([ood]), "ood").all()


def test_a_start_depends_on_the_seed_only() -> None:
    starts = [
        FamilyEnv("half-cheetah-vel", task=SLOW).reset(seed=4)[0],
        FamilyEnv("half-cheetah-vel").reset(seed=4)[0],
        FamilyEnv("half-cheetah-vel").reset(seed=4, options={"task": FAST})[0],
    ]
    assert np.array_equal(starts[0], starts[1])
    assert np.array_equal(starts[0], starts[2])
    assert not np.array_equal(starts[0], FamilyEnv("half-cheetah-vel").reset(seed=5)[0])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"family": "half-cheetah-vell"}, "Did you mean 'half-cheetah-vel'"),
        ({"family": "half-cheetah-vel", "variant": "v6"}, "no variant 'v6'.* Choose from: v5, maml17"),
        ({"family": "half-cheetah-vel@v5", "variant": "maml17"}, "leave one of them out"),
        ({"family": "half-cheetah-vel", "task": SLOW, "split": "test"}, "give one of them"),
        ({"family": "half-cheetah-vel", "split": "tset"}, "unknown split 'tset'.* Did you mean 'test'"),
        ({"family": "half-cheetah-dir", "split": "ood"}, "no out-of-distribution part"),
        ({"family": "half-cheetah-vel", "task": {"velocity": 9.0}}, r"velocity got 9.0, out of range. Allowed: 0 to 2"),
        ({"family": "half-cheetah-vel", "task": {}}, "lacks the field 'velocity'"),
        ({"family": "half-cheetah-vel", "task": {"speed": 1.0, "velocity": 1.0}}, "unknown task field 'speed'"),
        ({"family": "half-cheetah-vel", "render_mode": "human"}, "render_mode='human': choose from rgb_array or None"),
    ],
)
def test_refuses_bad_arguments(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FamilyEnv(**kwargs)
    with pytest.raises(UserError, match=message):
        FamilyVectorEnv(2, **kwargs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tsk": SLOW}, "unknown reset option 'tsk'. Did you mean 'task'"),
        ({"task": {"velocity": -1.0}}, "out of range"),
        ({"task": "simple"}, "got the task 'simple'"),
        ({"task": None}, "got the task None"),
    ],
)
def test_refuses_bad_options(options: dict[str, Any], message: str) -> None:
    for env in (FamilyEnv("half-cheetah-vel", task=FAST), FamilyVectorEnv(2, "half-cheetah-vel", task=FAST)):
        env.reset(seed=0)
        with pytest.raises(UserError, match=message):
            env.reset(options=options)


def test_single_refuses_bad_actions() -> None:
    env = FamilyEnv("half-cheetah-vel")
    with pytest.raises(UserError, match="call reset before step"):
        env.step(np.zeros(6))
    with pytest.raises(UserError, match="no task yet"):
        assert env.task
    env.reset(seed=0)
    for action in (np.zeros(5), np.zeros((1, 6)), np.array(0.0)):
        with pytest.raises(UserError, match=r"got an action of shape .*: give one of shape \(6,\)"):
            env.step(action)
    with pytest.raises(UserError, match="not finite"):
        env.step(np.full(6, np.nan))
    with pytest.raises(UserError, match=r"give numbers of shape \(6,\)"):
        env.step(np.array(["left"] * 6))


def test_actions_beyond_the_bounds_are_clipped() -> None:
    ends = []
    for size in (1.0, 50.0):
        env = FamilyEnv("half-cheetah-vel", task=SLOW)
        env.reset(seed=0)
        ends.append(env.step(np.full(6, size)))
    assert np.array_equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


# --- vector ------------------------------------------------------------------------------------------------------

GOALS = [{"goal": goal} for goal in ([0.1, 0.0], [0.3, 0.0], [0.3, 0.25], [-0.5, -0.5])]


def plan(steps: int) -> np.ndarray:
    """Actions that bring the first three points to their goals, at different times, again and again."""
    actions = np.tile(np.array([0.1, 0.0], np.float32), (steps, 4, 1))
    actions[3:6, 2] = [[0.0, 0.1], [0.0, 0.1], [0.0, 0.05]]
    actions[:, 3] = [0.01, 0.01]
    return actions


def plain(infos: dict[str, Any]) -> dict[str, Any]:
    """Infos without the difference that a vector parameter is rows here and lists in an object array there."""
    flat: dict[str, Any] = {}
    for key, value in infos.items():
        if isinstance(value, dict):
            value = plain(value)
        elif value.dtype == object:
            value = [None if item is None else np.asarray(item).tolist() for item in value]
        else:
            value = value.tolist()
        flat[key] = value
    for row, has in enumerate(flat.get("_goal", [])):
        if not has:
            flat["goal"][row] = None
    return flat


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_autoresets_as_gymnasium_does(mode: AutoresetMode) -> None:
    ours = FamilyVectorEnv(4, "point-nav", autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda goal=goal: FamilyEnv("point-nav", task=goal) for goal in GOALS], autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is mode
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    got, expected = ours.reset(seed=0, options={"tasks": GOALS}), theirs.reset(seed=0)
    np.testing.assert_array_equal(got[0], expected[0])
    assert plain(got[1]) == plain(expected[1])
    terminations = truncations = 0
    for actions in plan(130):
        got, expected = ours.step(actions), theirs.step(actions)
        for a, b in zip(got[:4], expected[:4], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        assert plain(got[4]) == plain(expected[4])
        terminations, truncations = terminations + got[2].sum(), truncations + got[3].sum()
    assert terminations > 20
    assert truncations > 0


def test_the_default_mode_is_gymnasiums() -> None:
    assert FamilyVectorEnv.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert FamilyVectorEnv(1, "point-nav").metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    with pytest.raises(UserError, match="autoreset_mode='now': choose from NextStep, SameStep, Disabled"):
        FamilyVectorEnv(1, "point-nav", autoreset_mode="now")


def test_without_autoreset_a_mask_resets() -> None:
    envs = FamilyVectorEnv(4, "point-nav", autoreset_mode="Disabled")
    envs.reset(seed=0, options={"tasks": GOALS})
    observation, _, terminated, _, _ = envs.step(plan(6)[0])
    assert terminated.tolist() == [True, False, False, False]
    with pytest.raises(UserError, match=r"episodes of worlds \[0\] have ended: reset them first"):
        envs.step(plan(6)[0])
    mask = np.array([True, False, False, True])
    after, infos = envs.reset(options={"reset_mask": mask, "task": {"goal": [0.0, 0.4]}})
    np.testing.assert_array_equal(after[mask], np.zeros((2, 2)))
    np.testing.assert_array_equal(after[~mask], observation[~mask])
    assert infos["_task"].tolist() == mask.tolist()
    # The tasks of the worlds that run on are due at their own next reset.
    assert envs.tasks["goal"].tolist() == [[0.0, 0.4], [0.3, 0.0], [0.3, 0.25], [0.0, 0.4]]
    assert not envs.step(plan(6)[0])[2].any()
    envs.reset()
    assert envs.tasks["goal"].tolist() == [[0.0, 0.4]] * 4


@pytest.mark.parametrize("mask", [np.zeros(4, bool), np.ones(3, bool), np.ones(4), [[True] * 4]])
def test_refuses_bad_masks(mask: Any) -> None:
    envs = FamilyVectorEnv(4, "point-nav")
    with pytest.raises(UserError, match="give 4 booleans"):
        envs.reset(options={"reset_mask": mask})


@pytest.mark.parametrize("name", IDS)
def test_make_vec(name: str) -> None:
    envs: Any = gymnasium.make_vec(IDS[name], num_envs=3, split="test", threads=2)
    assert isinstance(envs, FamilyVectorEnv)
    envs.action_space.seed(0)
    observation, infos = envs.reset(seed=0)
    task = {key: value.tolist() for key, value in infos["task"].items()}
    kept = [observation]
    for _ in range(30):
        observation, reward, terminated, truncated, infos = envs.step(envs.action_space.sample())
        assert observation in envs.observation_space
        assert reward.shape == terminated.shape == truncated.shape == (3,)
        assert {key: value.tolist() for key, value in infos["task"].items()} == task
        assert not any(np.shares_memory(observation, other) for other in kept)
        kept.append(observation)
    again: Any = gymnasium.make_vec(IDS[name], num_envs=3, split="test", threads=1)
    again.action_space.seed(0)
    np.testing.assert_array_equal(again.reset(seed=0)[0], kept[0])
    for expected in kept[1:]:
        np.testing.assert_array_equal(again.step(again.action_space.sample())[0], expected)
    envs.close()
    envs.close()


def test_make_vec_sync_and_wrappers() -> None:
    envs = gymnasium.make_vec(IDS["point-nav"], num_envs=2, vectorization_mode="sync", task=GOALS[0])
    assert isinstance(envs.reset(seed=0)[1]["task"], dict)
    counted: Any = gymnasium.wrappers.vector.RecordEpisodeStatistics(
        gymnasium.make_vec(IDS["point-nav"], num_envs=2, task=GOALS[0])
    )
    counted.reset(seed=0)
    infos = counted.step(np.array([[0.1, 0.0], [0.0, 0.1]]))[-1]
    assert infos["episode"]["l"].tolist() == [1, 0]


def test_vector_tasks() -> None:
    envs = FamilyVectorEnv(3, "half-cheetah-vel", task=SLOW)
    with pytest.raises(UserError, match="no tasks yet"):
        assert envs.tasks
    assert envs.reset(seed=0)[1]["task"]["velocity"].tolist() == [0.25] * 3
    assert envs.reset(options={"task": FAST})[1]["task"]["velocity"].tolist() == [1.75] * 3
    assert envs.reset()[1]["task"]["velocity"].tolist() == [1.75] * 3
    drawn = envs.reset(options={"task": "sample"})[1]["task"]["velocity"]
    assert len(set(drawn.tolist())) == 3
    given = [{"velocity": 0.5}, {"velocity": 1.0}, {"velocity": 1.5}]
    assert envs.reset(options={"tasks": given})[1]["task"]["velocity"].tolist() == [0.5, 1.0, 1.5]
    for tasks in (given[:2], FAST, "sample"):
        with pytest.raises(UserError, match="give a list of 3 task records"):
            envs.reset(options={"tasks": tasks})
    with pytest.raises(UserError, match="give one task for all, or one per world"):
        envs.reset(options={"tasks": given, "task": FAST})


def test_vector_refuses_bad_actions() -> None:
    envs = FamilyVectorEnv(2, "half-cheetah-vel")
    with pytest.raises(UserError, match="call reset before step"):
        envs.step(np.zeros((2, 6)))
    envs.reset(seed=0)
    for action in (np.zeros(6), np.zeros((3, 6))):
        with pytest.raises(UserError, match=r"give one of shape \(2, 6\)"):
            envs.step(action)
    with pytest.raises(UserError, match="not finite in world 1"):
        envs.step(np.array([[0.0] * 6, [np.inf] * 6]))
    with pytest.raises(UserError, match="got 0 worlds"):
        FamilyVectorEnv(0, "half-cheetah-vel")


# --- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["point-nav", "half-cheetah-dir", "ant-goal", "push-shape", "ant-terrain"])
def test_pictures_show_what_happens(name: str, opengl: bool) -> None:
    if not opengl and name != "point-nav":
        pytest.skip("no off-screen OpenGL: install libegl1 or libosmesa6")
    env = FamilyEnv(name, render_mode="rgb_array", width=96, height=64)
    env.reset(seed=0)
    first = env.render()
    assert first is not None
    assert first.shape == (64, 96, 3)
    assert first.dtype == np.uint8
    assert first.std() > 1.0
    np.testing.assert_array_equal(env.render(), first)
    for _ in range(5):
        env.step(np.ones(env.family.action_size))
    assert (env.render() != first).any()
    env.close()
    assert FamilyEnv(name).render() is None


def test_vector_pictures_are_of_their_worlds() -> None:
    envs = FamilyVectorEnv(2, "point-nav", task=GOALS[3], render_mode="rgb_array", width=64, height=64)
    envs.reset(seed=0)
    envs.step(np.array([[0.1, 0.0], [0.0, 0.1]]))
    pictures = envs.render()
    assert pictures is not None
    assert (pictures[0] != pictures[1]).any()


def test_says_how_to_get_opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(child.ctypes.util, "find_library", lambda name: None)
    env = FamilyEnv("half-cheetah-vel", render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"neither EGL nor OSMesa is installed.*libegl1.*MUJOCO_GL=egl.*libosmesa6"):
        env.render()


def test_frame_rate_is_the_familys() -> None:
    assert FamilyEnv("half-cheetah-vel").metadata["render_fps"] == 20
    assert FamilyEnv("point-nav").metadata["render_fps"] == 10


# --- others ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stable_baselines_learns() -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env(IDS["half-cheetah-vel"], n_envs=2, seed=0, env_kwargs={"task": SLOW})
    model = PPO("MlpPolicy", env, n_steps=512, seed=0, device="cpu")
    model.learn(10_000)
    assert model.num_timesteps >= 10_000
    returns = [episode["r"] for episode in model.ep_info_buffer or ()]
    assert len(returns) > 40
    assert np.isfinite(returns).all()
    assert np.mean(returns[-10:]) > np.mean(returns[:10])
