"""A number that is not finite ends a training in a line that names the first place, whatever agent met it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import metarl
from metarl.envs import registry
from metarl.envs.making import make_worlds
from metarl.errors import NotFiniteError, UserError, WorldNotFiniteError
from metarl.evaluation import film
from metarl.learning.finite import check_parts
from metarl.run.checkpoint import load
from tests.helpers.spoilt import Spoilt

SMALL: dict[str, dict[str, Any]] = {
    "maml-trpo": {"tasks": 2, "episodes": 3, "hidden": (8,)},
    "multitask": {"tasks": 2, "episodes": 3, "hidden": (8,)},
    "oracle": {"tasks": 2, "episodes": 3, "hidden": (8,)},
    "rl2": {"tasks": 6, "minibatches": 1, "width": 8},
}


@pytest.fixture(autouse=True)
def registry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_FAMILIES", {name: dict(all_) for name, all_ in registry._FAMILIES.items()})
    monkeypatch.setattr("gymnasium.register", lambda *given, **options: None)


def train(agent: str, family: Spoilt, folder: Path, **more: Any) -> metarl.Run:
    registry.register(family)
    given: dict[str, Any] = {"out": folder, "threads": 1, "iterations": 2, "console": Console(quiet=True)}
    return metarl.train(agent, family, **{**given, **SMALL[agent], **more})


def test_a_family_without_a_fault_trains(tmp_path: Path) -> None:
    assert train("maml-trpo", Spoilt(what=math.nan, place="nowhere"), tmp_path / "run").iteration == 2


@pytest.mark.parametrize("agent", SMALL)
@pytest.mark.parametrize(
    ("place", "what", "says"),
    [
        ("reward", math.nan, r"the reward nan \(near\) after 4 steps"),
        ("reward", -math.inf, r"the reward -inf \(near\) after 4 steps"),
        # Too large for the float32 in which agents learn.
        ("reward", 1e39, "the reward inf after 4 steps"),
        ("observation", math.nan, r"the observation nan \(its number 1\) after 4 steps"),
        ("observation", math.inf, r"the observation inf \(its number 1\) after 4 steps"),
        ("start", math.nan, r"the observation nan \(its number 1\) at the start"),
    ],
)
def test_what_a_family_gives_is_named_with_world_task_and_step(
    agent: str, place: Any, what: float, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        train(agent, Spoilt(what=what, place=place), tmp_path / "run")
    text = str(caught.value)
    assert re.search(rf"failed, spoilt@v1 gave {says} of an episode in world 5, with the task \{{'goal': ", text), text
    assert "Mend what the family computes" in text
    assert "rates" not in text
    assert "\n" not in text
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_the_last_checkpoint_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train("multitask", Spoilt(what=math.nan, place="nowhere"), tmp_path / "run", checkpoint_every=1)
    last = run.folder / "checkpoints" / "last.pt"
    before = last.read_bytes()
    monkeypatch.setattr(Spoilt, "reward_terms", lambda *given: {"near": torch.full((6,), math.nan).double()})
    with pytest.raises(UserError, match=r"Iteration 3 of .* gave the reward nan"):
        metarl.resume(run.folder, 5, console=Console(quiet=True))
    assert last.read_bytes() == before
    assert load(last, {})["iteration"] == 2


@pytest.mark.parametrize(
    ("agent", "settings", "says"),
    [
        ("maml-trpo", {"inner_rate": 1e30}, "got an action that is not finite"),
        ("rl2", {"learning_rate": 1e30, "final_learning_rate": 1e30, "epochs": 2}, "the policy gradient is not finite"),
        ("rl2", {"value_weight": 1e30}, "the policy gradient is not finite"),
    ],
)
def test_a_training_that_runs_away_blames_its_settings(
    agent: str, settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"{says}.*The rates may be too high"):
        train(agent, Spoilt(what=0.0, place="nowhere"), tmp_path / "run", **settings)


def test_an_evaluation_names_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train("multitask", Spoilt(what=math.nan, place="nowhere"), tmp_path / "run")
    monkeypatch.setattr(Spoilt, "reward_terms", lambda *given: {"near": torch.full((6,), math.nan).double()})
    with pytest.raises(WorldNotFiniteError, match="spoilt@v1 gave the reward nan"):
        metarl.evaluate(run, tasks=2)
    worlds = make_worlds(run.family, 6)
    tasks = run.family.space.sample(6, "test", torch.Generator().manual_seed(0))
    policy, generator = run.agent.start(tasks).policy, torch.Generator().manual_seed(0)
    with pytest.raises(WorldNotFiniteError, match="spoilt@v1 gave a reward that is not finite, at step 1"):
        film.play(worlds, policy, tasks, generator, lambda world: None, stride=1, captions=[""] * 6)  # pyright: ignore


def test_the_first_part_that_is_not_finite_is_named() -> None:
    good, bad = {"w": torch.zeros(2), "b": torch.ones(1)}, {"w": torch.zeros(2), "b": torch.tensor([math.nan])}
    with pytest.raises(NotFiniteError, match=r"^the parameter 'b' is not finite"):
        check_parts([("the loss", {"": torch.zeros(())}), ("the parameter", bad)], "the gradient")
    with pytest.raises(NotFiniteError, match=r"^the gradient is not finite$"):
        check_parts([("the parameter", good)], "the gradient is not finite")
