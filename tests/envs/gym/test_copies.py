"""Copies of environments in the middle of an episode, and going back: all that follows is the same, bit for bit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from metarl.envs import GymnasiumFamily, make_worlds
from metarl.envs.gym.single import FamilyEnv
from metarl.envs.gym.vector import FamilyVectorEnv
from metarl.errors import UserError
from tests.helpers.adapted import reach

FAMILIES = (
    "half-cheetah-vel+mass=each+friction+switch=3..6",
    "ant-goal+horizon=9",
    "half-cheetah-vel+gains+payload+slope+push+bias+noise+delay+switch=3..6",
    "hopper-rand-params",
    "grasp-shape",
    "point-nav+switch=2..7",
    "bandit",
    "tabular-mdp",
)


def through_state(env: FamilyEnv) -> FamilyEnv:
    other = FamilyEnv(env.family)
    other.reset(seed=9)
    other.set_state(pickle.loads(pickle.dumps(env.get_state())))
    return other


WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
    "state": through_state,
}


def play(env: FamilyEnv, actions: list[Any]) -> list[Any]:
    """Return all that an environment says, over the ends of episodes, with a task drawn at every reset."""
    said: list[Any] = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        said.append((observation.tolist(), reward, terminated, truncated, info))
        if terminated or truncated:
            observation, info = env.reset(options={"task": "sample"})
            said.append((observation.tolist(), info))
    return said


@pytest.mark.parametrize("name", FAMILIES)
def test_both_go_on_alike(name: str) -> None:
    env = FamilyEnv(name)
    env.action_space.seed(1)
    actions = [env.action_space.sample() for _ in range(14)]
    env.reset(seed=3)
    begun = play(env, actions[:4])
    others = [way(env) for way in WAYS.values()]
    ours = play(env, actions[4:])
    # The original went on first: the copies have nothing of it.
    for other in others:
        assert play(other, actions[4:]) == ours
        assert other.task == env.task
    assert begun != ours


def test_a_state_can_be_gone_back_to_again() -> None:
    env = FamilyEnv("half-cheetah-vel+gravity")
    env.action_space.seed(1)
    env.reset(seed=3)
    actions = [env.action_space.sample() for _ in range(5)]
    play(env, actions[:2])
    state = env.get_state()
    first = play(env, actions)
    # Another task, so another model, and another episode.
    env.reset(seed=8, options={"task": "sample"})
    play(env, actions)
    for _ in range(2):
        env.set_state(state)
        assert play(env, actions) == first


def test_made_by_gymnasium_with_pictures(opengl: bool) -> None:
    env = gymnasium.make("metarl/HalfCheetahVel-v0", render_mode="rgb_array" if opengl else None, horizon=20)
    env.reset(seed=0)
    picture: Any = env.render()
    for way in ("deepcopy", "pickle"):
        other = WAYS[way](env)
        assert other.spec == env.spec
        assert np.array_equal(other.render(), picture)
        other.close()
    env.close()


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state"])
def test_vector_environments(way: str) -> None:
    envs = FamilyVectorEnv(3, "hopper-rand-params+horizon=6", threads=1)
    envs.action_space.seed(1)
    actions = [envs.action_space.sample() for _ in range(16)]
    envs.reset(seed=3)
    for action in actions[:8]:
        envs.step(action)
    if way == "state":
        other = FamilyVectorEnv(3, "hopper-rand-params+horizon=6", threads=1)
        other.set_state(envs.get_state())
    else:
        other = WAYS[way](envs)
    ends = 0
    for action in actions[8:]:
        ours, theirs = envs.step(action), other.step(action)
        for mine, yours in zip(ours[:4], theirs[:4], strict=True):
            assert np.array_equal(mine, yours)
        ends += int((ours[2] | ours[3]).sum())
    assert ends > 0
    assert envs.tasks.records() == other.tasks.records()


def test_what_is_no_state_of_them_is_refused() -> None:
    env, other = FamilyEnv("point-nav"), FamilyEnv("bandit")
    env.reset(seed=0)
    other.reset(seed=0)
    with pytest.raises(UserError, match=r"got the state of 1 worlds of bandit@.*: give one of 1 worlds of point-nav@"):
        env.set_state(other.get_state())
    with pytest.raises(UserError, match="no state of an environment: give what get_state"):
        env.set_state({"position": 1.0})
    with pytest.raises(UserError, match="no state of worlds: give what get_state"):
        env.set_state({**env.get_state(), "worlds": {}})
    many = FamilyVectorEnv(2, "point-nav", threads=1)
    with pytest.raises(UserError, match=r"got the state of 1 worlds of .*: give one of 2 worlds of"):
        many.set_state(env.get_state())


def test_worlds_that_cannot_be_copied_say_so() -> None:
    family = reach(name="own")
    assert isinstance(family, GymnasiumFamily)
    worlds = make_worlds(family, 1, threads=1)
    worlds.set_tasks(family.space.sample(1, "train", torch.Generator()))
    worlds.reset(torch.Generator())
    for use in (copy.deepcopy, pickle.dumps, lambda it: it.get_state(), lambda it: it.physics.set_state({})):
        with pytest.raises(UserError, match=r"own@v1: got a request to copy .* one that you make yourself"):
            use(worlds)


@pytest.mark.warp_cpu
def test_worlds_on_the_gpu_engine_say_so() -> None:
    pytest.importorskip("mujoco_warp")
    worlds = make_worlds("half-cheetah-vel", 1, engine="gpu")
    for use in (copy.deepcopy, lambda it: it.get_state(), lambda it: it.physics.set_state({})):
        with pytest.raises(UserError, match="worlds on the GPU engine cannot be copied: take engine='cpu'"):
            use(worlds)
