"""Episodes of another length than the family's, wherever a family is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import metarl
from metarl.cli.main import main
from metarl.envs import get, make_worlds
from metarl.envs.gym.single import FamilyEnv
from metarl.envs.horizon import with_horizon
from metarl.envs.registry import at_horizon, families, resolve
from metarl.errors import UserError
from metarl.run.tracking import read_progress
from tests.helpers.adapted import reach
from tests.helpers.commands import refused

ID = "metarl/PointNav-v0"


def length(env: gymnasium.Env[Any, Any]) -> int:
    env.reset(seed=0)
    for step in range(1, 1000):
        *_, terminated, truncated, _ = env.step(np.zeros(env.action_space.shape or (), np.float32))
        assert not terminated
        if truncated:
            return step
    raise AssertionError("it never ends")


@pytest.mark.parametrize("word", ["horizon", "max_episode_steps"])
@pytest.mark.parametrize("steps", [7, 100, 130])
def test_gymnasium_makes_episodes_of_any_length(word: str, steps: int) -> None:
    asked: dict[str, Any] = {word: steps}
    env = gymnasium.make(ID, **asked)
    assert length(env) == steps
    assert env.spec is not None
    assert env.spec.max_episode_steps == steps
    assert length(gymnasium.make(env.spec)) == steps

    envs = gymnasium.make_vec(ID, 2, **asked)
    assert envs.spec is not None
    assert envs.spec.max_episode_steps == steps
    envs.reset(seed=0)
    ended = [bool(envs.step(np.zeros((2, 2), np.float32))[3].all()) for _ in range(steps)]
    assert ended == [False] * (steps - 1) + [True]
    synchronous = gymnasium.make_vec(ID, 1, vectorization_mode="sync", **asked)
    assert isinstance(synchronous, gymnasium.vector.SyncVectorEnv)
    assert length(synchronous.envs[0]) == steps


def test_a_variant_has_its_own_unless_asked() -> None:
    given: tuple[tuple[dict[str, Any], int], ...] = (({}, 100), ({"max_episode_steps": 150}, 150), ({"horizon": 9}, 9))
    for more, steps in given:
        env = gymnasium.make("metarl/HalfCheetahVel-v0", variant="promp18", **more)
        assert env.spec is not None
        assert env.spec.max_episode_steps == steps
    made = FamilyEnv("point-nav", horizon=3)
    assert made.spec is None
    assert length(made) == 3


def test_an_environment_inside_another_is_not_asked() -> None:
    class Outer(gymnasium.Env[Any, Any]):
        def __init__(self) -> None:
            self.inner = FamilyEnv("point-nav")
            self.observation_space, self.action_space = self.inner.observation_space, self.inner.action_space

    gymnasium.register("tests/Outer-v0", lambda **_: Outer())
    try:
        outer = gymnasium.make("tests/Outer-v0", max_episode_steps=5).unwrapped
        assert isinstance(outer, Outer)
        assert length(outer.inner) == 100
    finally:
        del gymnasium.registry["tests/Outer-v0"]


@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_episode_steps": 0}, "got max_episode_steps=0: give a whole number from 1"),
        ({"max_episode_steps": -1}, "got max_episode_steps=-1: give a whole number from 1"),
        ({"horizon": 0}, "got a horizon of 0 steps: give a whole number from 1"),
        ({"horizon": True}, "got a horizon of True steps"),
        ({"horizon": 5, "max_episode_steps": 6}, "got horizon=5 and max_episode_steps=6, which mean the same"),
        (
            {"variant": "maml17+horizon=8", "horizon": 9},
            "got horizon=9 for point-nav@maml17.horizon=8, which",
        ),
    ],
)
def test_what_is_no_length_is_refused(make: Callable[..., Any], given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(ID, **given)


def test_a_name_tells_it() -> None:
    family = get("half-cheetah-vel+switch+horizon=40+mass")
    assert family.full_name == "half-cheetah-vel@v5+horizon=40+mass+switch"
    assert get(family.full_name) is family
    assert family.horizon == 40
    # The default of +switch follows it.
    assert family.space.parameters[-1].high == 30.0
    assert get("point-nav+horizon=100") is get("point-nav")
    assert resolve("point-nav", horizon=5) is get("point-nav+horizon=5")
    assert resolve("point-nav", "maml17", 5) is get("point-nav+horizon=5")
    assert resolve(family, horizon=40) is family
    for bad in ("", "=", "=0", "=-5", "=2.5", "=1..5", "=5+horizon=6"):
        with pytest.raises(UserError, match=r"give \+horizon= once, with a whole number of steps from 1"):
            get(f"point-nav+horizon{bad}")
    with pytest.raises(UserError, match=r"unknown modifier '\+horizn'\. Did you mean 'horizon'"):
        get("point-nav+horizn=5")


def test_another_takes_its_place() -> None:
    family = get("half-cheetah-vel+switch+horizon=40+mass")
    assert at_horizon(family, 20) is get("half-cheetah-vel+horizon=20+mass+switch")
    assert at_horizon(family, get("half-cheetah-vel").horizon) is get("half-cheetah-vel+mass+switch")
    assert at_horizon(get("half-cheetah-vel+mass"), 20) is get("half-cheetah-vel+horizon=20+mass")
    own = with_horizon(reach(), 8)
    assert at_horizon(own, 9) is at_horizon(own, 9)
    assert (at_horizon(own, 9).full_name, at_horizon(own, 9).horizon) == ("reach@v1+horizon=9", 9)
    assert at_horizon(get("ml1@push+horizon=9"), 500) is get("ml1@push")
    with pytest.raises(UserError, match=r"Meta-World has 500 steps at most"):
        at_horizon(get("ml1"), 501)


@pytest.mark.parametrize("name", sorted(families()))
def test_every_family_takes_it(name: str) -> None:
    for family in families()[name]:
        longer = with_horizon(family, 33)
        assert longer.full_name == longer.space.family == f"{family.full_name}+horizon=33"
        assert (longer.horizon, longer.spec().horizon) == (33, 33)
        assert longer.space.parameters == family.space.parameters
        assert with_horizon(longer, 34).full_name == f"{family.full_name}+horizon=34"


def test_environments_of_ones_own_take_it() -> None:
    env = FamilyEnv(with_horizon(reach(), 8))
    assert length(env) == 8
    env.close()


def test_commands_and_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "maml-trpo", "--family", "point-nav", "--tasks", "2", "--episodes", "2", "--hidden", "4"]
    words += ["--iterations", "1", "--threads", "1"]
    assert main([*words, "--horizon", "6", "--json", "--out", str(tmp_path / "run")]) == 0
    # To know the size of observations, then before and after a step: two episodes of two tasks.
    assert read_progress(tmp_path / "run")[0]["env/steps"] == 3 * 2 * 2 * 6
    assert main(["evaluate", str(tmp_path / "run"), "--tasks", "2", "--no-film"]) == 0
    made = metarl.train(
        "maml-trpo", "point-nav", horizon=6, tasks=2, episodes=2, iterations=0, out=tmp_path / "python", threads=1
    )
    assert made.family is get("point-nav+horizon=6")
    assert make_worlds("point-nav", 1, horizon=6).horizon == 6
    assert main(["render", "point-nav", "--horizon", "4", "--out", str(tmp_path / "a.gif")]) == 0
    message = refused(["render", str(tmp_path / "run"), "--horizon", "4"], capsys)
    assert "Got --horizon 4 for the run" in message
    message = refused([*words, "--horizon", "0", "--out", str(tmp_path / "none")], capsys)
    assert "got a horizon of 0 steps" in message
    assert not (tmp_path / "none").exists()
