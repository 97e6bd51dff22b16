"""Gradient steps of an exported policy are those of its agent; a new task begins with the initial parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.envs import get, make_worlds
from metarl.envs.family import Family
from metarl.learning.rollout import collect
from metarl.nets.layers import of_mlp
from metarl.types import Trajectories
from tests.helpers.exported import LEVERS, doubled, one_task, runtime, short, trained, written
from tests.helpers.toys import seeded
from tests.helpers.trials import Ragged

FAMILIES: dict[str, Family] = {
    "half-cheetah-vel": short(get("half-cheetah-vel"), 12),
    "tabular-mdp": get("tabular-mdp"),
    "ragged": Ragged(),
    "levers": LEVERS,
}
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "maml": ("maml-trpo", {"later_rate": 0.25, "discount": 0.9}),
    "rates": ("maml-trpo", {"learn_rates": True, "activation": "tanh", "layer_norm": True}),
    "elu": ("multitask", {"activation": "elu", "hidden": (5,), "layer_norm": True}),
    "no layers": ("multitask", {"hidden": (), "scale_observations": False}),
    "dice": ("maml-trpo", {"estimator": "dice", "inner_rate": 0.5}),
}


def episodes_of(played: Trajectories, *, discrete: bool, choices: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return the episodes of the first task as a user has them."""
    found = []
    for episode in range(played.rewards.shape[1]):
        steps = int(played.mask[0, episode].sum())
        actions = played.actions[0, episode, :steps]
        if discrete:
            numbers = [part.argmax(1) for part in actions.split(list(choices), 1)]
            actions = numbers[0] if len(numbers) == 1 else torch.stack(numbers, 1)
        names = {"observations": played.observations[0, episode, :steps], "rewards": played.rewards[0, episode, :steps]}
        found.append({"actions": actions.tolist()} | {name: value.numpy() for name, value in names.items()})
    return found


PAIRS = [
    ("half-cheetah-vel", "maml"),
    ("half-cheetah-vel", "rates"),
    ("tabular-mdp", "elu"),
    ("tabular-mdp", "rates"),
    ("ragged", "dice"),
    ("ragged", "no layers"),
    ("levers", "maml"),
    ("levers", "no layers"),
]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_steps_are_those_of_the_agent(name: str, kind: str, tmp_path: Path) -> None:
    family, (agent_name, options) = FAMILIES[name], AGENTS[kind]
    agent: Any = trained(agent_name, family, **options)
    folder = written(agent, family, tmp_path / "policy")
    exact, single = runtime(folder, dtype="float64"), runtime(folder)
    initial = {key: value.copy() for key, value in single.parameters.items()}
    tasks, env = one_task(family), make_worlds(family, 3, threads=1)
    learner = agent.start(tasks)
    in_double = doubled(learner)
    moved = 0.0
    for step in range(3):
        played = collect(env, learner.policy, tasks, 3, seeded(step))
        learner, in_double = learner.learn(played), in_double.learn(in_float64(played))
        given = episodes_of(played, discrete=family.discrete, choices=family.choices)
        for policy, like, limit in ((exact, in_double, 1e-7), (single, learner, 2e-5)):
            policy.adapt(given)
            assert policy.steps == step + 1
            expected = by_name(like)
            assert policy.parameters.keys() == expected.keys()
            for key, value in policy.parameters.items():
                np.testing.assert_allclose(value, expected[key], rtol=limit, atol=limit, err_msg=key)
        moved = max(float(np.abs(value - initial[key]).max()) for key, value in single.parameters.items())
    assert moved > 1e-3
    single.begin_task()
    assert single.steps == 0
    assert all(np.array_equal(value, initial[key]) for key, value in single.parameters.items())


def by_name(learner: Any) -> dict[str, np.ndarray]:
    """Return the parameters of the first task under the names of the export."""
    params = {name: value[0].detach() for name, value in learner.params.items()}
    named = {
        f"layers.{number}.{part}": tensor
        for number, layer in enumerate(of_mlp(learner.network.network, params))
        for part, tensor in layer.tensors.items()
    }
    if "log_std" in params:
        named["distribution.log_std"] = params["log_std"]
    return {name: value.numpy() for name, value in named.items()}


def in_float64(played: Trajectories) -> Trajectories:
    parts = ("observations", "actions", "rewards", "mask", "final_observations")
    return replace(played, **{part: getattr(played, part).double() for part in parts})


def test_deviations_below_the_least_one_stay_there(tmp_path: Path) -> None:
    family = Ragged()
    agent: Any = trained("multitask", family, hidden=())
    agent.params["log_std"][:] = torch.tensor([-8.0, -1.0])
    policy = runtime(written(agent, family, tmp_path / "policy"), dtype="float64")
    learner = agent.start(one_task(family))
    assert policy.act([0.0, 0.0]).shape == (2,)
    played = collect(make_worlds(family, 3, threads=1), learner.policy, one_task(family), 3, seeded())
    policy.adapt(episodes_of(played, discrete=False, choices=()))
    expected = by_name(doubled(learner).learn(in_float64(played)))
    for key, value in policy.parameters.items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-7, atol=1e-7, err_msg=key)
    log_std = policy.parameters["distribution.log_std"]
    assert log_std[0] == -8.0
    assert log_std[1] != -1.0
