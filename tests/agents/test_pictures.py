"""Agents that see pictures: they learn by them, pixels come by their bounds, and without pictures all is as it was."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.agents import config_class, make
from metarl.envs import GymnasiumFamily
from metarl.envs.making import make_worlds
from metarl.errors import UserError
from metarl.learning.rollout import collect
from metarl.learning.scaling import Scaler
from metarl.seeding import Streams
from metarl.space.parameter import Parameter
from metarl.types import Picture
from tests.helpers.stripes import SIDE, Stripes
from tests.helpers.toys import assert_params_close, seeded

CPU = torch.device("cpu")
STEPS: dict[str, Any] = {"tasks": 6, "episodes": 10, "max_kl": 0.1}
SETTINGS: dict[str, dict[str, Any]] = {
    "maml-trpo": STEPS,
    "multitask": STEPS,
    "rl2": {"tasks": 60, "episodes": 1, "width": 16, "minibatches": 4, "learning_rate": 3e-3, "iterations": 10},
}
FEW: dict[str, dict[str, Any]] = {
    **{
        key: {"tasks": 2, "episodes": 3, "hidden": (6,)}
        for key in ("maml-trpo", "promp", "multitask", "oracle", "random")
    },
    **{key: {"tasks": 2, "episodes": 3, "hidden": (6,), "minibatches": 2} for key in ("ppo", "teacher")},
    "rma": {"tasks": 2, "episodes": 3, "hidden": (6,), "minibatches": 2, "student_minibatches": 2},
    "rl2": {"tasks": 6, "episodes": 2, "width": 8, "minibatches": 2},
    "varibad": {
        **{"tasks": 6, "episodes": 2, "width": 8, "hidden": (6,), "minibatches": 2, "decode": "both"},
        **{"belief_updates": 2, "belief_trials": 4, "buffer": 10},
    },
}
ENCODERS = {"varibad": 3}
"""Networks that have an encoder, where there are several: here memory, policy and values."""


@pytest.mark.parametrize(
    ("name", "kind", "iterations"),
    [
        ("rl2", "noise", 8),
        ("multitask", "still", 5),
        pytest.param("maml-trpo", "noise", 8, marks=pytest.mark.slow),
    ],
)
def test_what_a_picture_says_is_learned(name: str, kind: Any, iterations: int) -> None:
    family, streams = Stripes(kind=kind), Streams(0)
    config = config_class(name)(**SETTINGS[name])
    agent = make(name, config, family.spec(), streams, CPU)
    env = make_worlds(family, config.worlds, threads=1)
    for _ in range(iterations):
        agent.train_iteration(env, family.space.sample, streams)
    tasks = family.space.sample(100, "test", seeded(1))
    played = collect(make_worlds(family, 100, threads=1), agent.start(tasks).policy, tasks, 1, seeded(2))
    # By chance 1.67 of 5 steps pay, with a standard error of 0.11.
    assert float(played.returns.mean()) > 2.2


def test_pictures_among_the_parts_of_a_dict_are_seen_by_every_agent() -> None:
    goal = Parameter(name="goal", unit="m", description="where to go", scale="uniform", low=-1.0, high=1.0, size=2)
    file = Path(__file__).parents[1] / "helpers" / "own_envs.py"
    family = GymnasiumFamily(
        name="echo", make=f"{file}:Echo", kwargs={"kind": "pictures"}, parameters=(goal,), horizon=3
    )
    assert len(family.pictures) == 2
    # All agents have as many worlds.
    env = make_worlds(family, 6, threads=1)
    for name, settings in FEW.items():
        config, streams = config_class(name)(**settings), Streams(0)
        agent = make(name, config, family.spec(), streams, CPU)
        before = weights(agent)
        assert sum("picture" in key and "conv" in key and key.endswith("_w") for key in before) == 4 * ENCODERS.get(
            name, 1
        )
        metrics = agent.train_iteration(env, family.space.sample, streams)
        assert all(math.isfinite(value) for value in metrics.values())
        other = make(name, config, family.spec(), Streams(9), CPU)
        other.load_state_dict(agent.state_dict())
        assert_params_close(weights(other), weights(agent), atol=0.0)
        tasks = family.space.sample(2, "test", seeded(1))
        learner = other.start(tasks.repeat(3) if name in ("rl2", "varibad") else tasks)
        for _ in range(2):
            learner = learner.learn(collect(env, learner.policy, tasks, 3, seeded(2)))
        assert learner.policy.act(torch.zeros(6, family.observation_size), seeded()).shape == (6, 5)


def test_all_ways_to_compute_the_tasks_of_a_meta_batch_agree_on_pictures() -> None:
    family = Stripes(horizon=3)
    settings = {"tasks": 3, "episodes": 8, "hidden": (6,), "fisher_fraction": 1.0}
    found = []
    for executor in ("grouped", "vmap", "loop"):
        config, streams = config_class("maml-trpo")(**settings, executor=executor), Streams(0)
        agent: Any = make("maml-trpo", config, family.spec(), streams, CPU)
        # Conjugate gradients make rounding errors larger.
        agent.meta = {key: value.double() for key, value in agent.meta.items()}
        env = make_worlds(family, 24, threads=1, dtype=torch.float64)
        metrics = agent.train_iteration(env, family.space.sample, streams)
        assert metrics["update/accepted"] == 1.0
        found.append(weights(agent))
    start = weights(make("maml-trpo", config, family.spec(), Streams(0), CPU))
    assert all(bool((found[0][key] != value).any()) for key, value in start.items() if key.startswith("picture"))
    for other in found[1:]:
        assert_params_close(other, found[0], atol=1e-6)


def weights(agent: Any) -> dict[str, torch.Tensor]:
    state = agent.state_dict()
    return next(state[part] for part in ("meta", "params", "network") if part in state)


@pytest.mark.parametrize("name", FEW)
def test_without_pictures_networks_are_as_they_would_be_without_encoder(name: str) -> None:
    family = Stripes()
    bare = replace(family.spec(), pictures=())
    config = config_class(name)(**FEW[name])
    expected = weights(make(name, config, bare, Streams(0), CPU))
    off = make(name, replace(config, encode_pictures=False), family.spec(), Streams(0), CPU)
    assert_params_close(weights(off), expected, atol=0.0)
    seeing = weights(make(name, config, family.spec(), Streams(0), CPU))
    assert {key for key in seeing if "picture0" in key}
    assert not {key for key in expected if "picture" in key}


@pytest.mark.parametrize("on", [True, False])
def test_pixels_are_shown_by_their_bounds_whatever_was_met(on: bool) -> None:
    family = Stripes(kind="noise")
    scaler = Scaler(family.spec(), on=on)
    tasks = family.space.sample(2, "train", seeded())
    policy = make("random", config_class("random")(), family.spec(), Streams(0), CPU).start(tasks).policy
    episodes = collect(make_worlds(family, 6, threads=1), policy, tasks, 3, seeded())
    pixels = slice(1, 1 + 3 * SIDE**2)
    for _ in range(2):
        scale = scaler.scale
        assert scale is not None
        for by in (scale, scale.met(episodes)):
            seen = by.of(episodes).observations
            torch.testing.assert_close(seen[..., pixels], episodes.observations[..., pixels] / 255.0)
            assert seen[..., pixels].min() == 0.0
            assert seen[..., pixels].max() == 1.0
        others = scale.of(episodes).observations[..., [0, -1]]
        assert torch.equal(others, episodes.observations[..., [0, -1]]) != on
        scaler.update([episodes])
    assert ("observation" in scaler.state_dict()) is on


def test_large_pictures_are_encoded_and_refused_as_numbers_with_advice_that_works() -> None:
    picture = Picture(first=0, shape=(84, 84, 3), channels=(2,), largest=255.0)
    spec = replace(Stripes().spec(), observation_size=picture.size, pictures=(picture,))
    for name in ("maml-trpo", "multitask"):
        config = config_class(name)(**FEW[name])
        assert weights(make(name, config, spec, Streams(0), CPU))["picture0_conv0_w"].shape == (16, 3, 3, 3)
        with pytest.raises(UserError, match=r"21168 numbers.*Allowed are 4096.*no --no-encode-pictures\)"):
            make(name, replace(config, encode_pictures=False), spec, Streams(0), CPU)
    fewer = replace(spec, observation_size=4097)
    with pytest.raises(UserError, match="train rl2"):
        make("oracle", config_class("oracle")(), replace(fewer, pictures=()), Streams(0), CPU)
    make("rl2", config_class("rl2")(**FEW["rl2"]), replace(fewer, pictures=()), Streams(0), CPU)
