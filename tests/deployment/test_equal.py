"""An exported policy does what its agent does, over whole trials: every agent, core, layer and kind of action.

In float64 the two are equal to 1e-8. In float32 each rounds by itself, and layer norm makes that larger where a memory
is near empty: there the agent itself is as far from its own float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.envs import get
from metarl.envs.family import Family
from tests.helpers.exported import LEVERS, doubled, one_task, play_both, runtime, short, trained, written
from tests.helpers.trials import Ragged

TRIALS: dict[str, tuple[Family, int]] = {
    "half-cheetah-vel": (short(get("half-cheetah-vel"), 12), 2),
    "bandit": (get("bandit"), 20),
    "tabular-mdp": (get("tabular-mdp"), 3),
    "ragged": (Ragged(), 6),
    "levers": (LEVERS, 3),
}
"""Family, and episodes of a trial."""
CORES: dict[str, dict[str, Any]] = {
    "gru": {},
    "lstm": {"core": "lstm"},
    "transformer": {"core": "transformer", "layers": 2},
    "one head": {"core": "transformer", "width": 3},
    "observations": {"head_observations": True},
    "centred rewards": {"center_rewards": True},
    "deep head": {"core": "transformer", "head": (5, 4), "head_observations": True},
}


@pytest.mark.parametrize(
    ("name", "core"),
    [
        ("half-cheetah-vel", "gru"),
        ("half-cheetah-vel", "centred rewards"),
        ("half-cheetah-vel", "lstm"),
        ("half-cheetah-vel", "transformer"),
        ("bandit", "gru"),
        ("bandit", "one head"),
        ("tabular-mdp", "lstm"),
        ("tabular-mdp", "transformer"),
        ("ragged", "gru"),
        ("levers", "gru"),
        ("half-cheetah-vel", "observations"),
        ("levers", "deep head"),
    ],
)
def test_a_memory_takes_the_same_actions_over_whole_trials(name: str, core: str, tmp_path: Path) -> None:
    family, episodes = TRIALS[name]
    agent: Any = trained("rl2", family, **{"episodes": episodes, "tasks": 2} | CORES[core])
    tasks = one_task(family)
    check(agent, family, tasks, episodes, tmp_path, task=None)


GRADIENT: dict[str, tuple[str, dict[str, Any]]] = {
    "maml": ("maml-trpo", {}),
    "tanh, norm": ("maml-trpo", {"activation": "tanh", "layer_norm": True}),
    "elu": ("multitask", {"activation": "elu", "hidden": (5,)}),
    "no layers": ("multitask", {"hidden": (), "scale_observations": False}),
    "oracle": ("oracle", {"activation": "tanh"}),
    "teacher": ("teacher", {"encoder": (5, 4), "activation": "elu"}),
    "one layer": ("teacher", {"encoder": (), "hidden": (), "latent": 2}),
    "ppo": ("ppo", {}),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("half-cheetah-vel", "maml"),
        ("half-cheetah-vel", "no layers"),
        ("half-cheetah-vel", "oracle"),
        ("tabular-mdp", "tanh, norm"),
        ("bandit", "oracle"),
        ("levers", "elu"),
        ("half-cheetah-vel", "teacher"),
        ("levers", "teacher"),
        ("bandit", "one layer"),
        ("half-cheetah-vel", "ppo"),
    ],
)
def test_a_policy_takes_the_same_actions(name: str, kind: str, tmp_path: Path) -> None:
    (family, _), (agent_name, options) = TRIALS[name], GRADIENT[kind]
    agent = trained(agent_name, family, **options)
    tasks = one_task(family)
    check(agent, family, tasks, 2, tmp_path, task=tasks.records()[0] if agent_name in ("oracle", "teacher") else None)


def check(agent: Any, family: Family, tasks: Any, episodes: int, tmp_path: Path, task: Any) -> None:
    folder = written(agent, family, tmp_path / "policy")
    for kind, limit in (("float64", 1e-8), ("float32", 1e-5)):
        policy = runtime(folder, dtype=kind)
        # The second time as a new task.
        for _ in range(2 if kind == "float32" else 1):
            learner = agent.start(tasks)
            acting = (doubled(learner) if kind == "float64" else learner).policy
            policy.begin_task(task)
            assert play_both(policy, acting, family, tasks, episodes, getattr(torch, kind)) < limit
