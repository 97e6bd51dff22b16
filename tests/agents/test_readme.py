"""The README of the agents: its commands, with smaller numbers, and its own agent as it stands there."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from metarl.agents import AGENTS, config_class, make
from metarl.cli.main import main
from metarl.envs import get, make_worlds
from metarl.evaluation.curve import adaptation_curve
from metarl.run.driver import iterations_of, train
from metarl.run.settings import RunConfig
from metarl.seeding import Streams
from tests.helpers.readme import ROOT, block, commands

README = "agents/README.md"
PLAYERS = "agents/players/README.md"
ROOMS = ("agents", "agents/players", "metarl/learning", "metarl/nets")
SMALLER = {
    **{"tasks": "10", "iterations": "1", "minibatches": "2", "width": "8", "episodes": "3", "updates": "1"},
    "validation": "2",
}


def smaller(command: str) -> list[str]:
    """Return a command's words with smaller numbers, on one thread."""
    for option, number in {**SMALLER, "iterations": "2" if " rma " in command else "1"}.items():
        command = re.sub(rf"--{option} \d+", f"--{option} {number}", command)
    words = command.split()[1:]
    if words[:2] == ["train", "pearl"]:
        words += ["--first-rounds", "1"] if "--first-rounds" not in words else []
        words += ["--train-tasks", "5"] if "--train-tasks" not in words else []
    elif words[0] == "train" and words[1] != "rl2" and "--tasks" not in words:
        words += ["--tasks", "4", "--episodes", "3", "--hidden", "8"]
    if words[0] == "train" and not {"point-nav", "bandit", "bandit@bernoulli-10", "tabular-mdp"} & set(words):
        words += ["--horizon", "5"]
    if words[0] == "evaluate":
        words += ["--tasks", "4"] if "--tasks" not in words else []
        words += ["--steps", "1"] if "--steps" not in words else []
        words += ["--no-film"]
        words += ["--probe-tasks", "10"] if "--probe" in words else []
    if words[0] == "play" and "--tasks" not in words:
        words += ["--tasks", "4"]
    if words[0] == "train" and words[1] in ("rl2", "varibad"):
        words += ["--epochs", "1"]
    return words if "--threads" in words or words[0] == "play" else [*words, "--threads", "1"]


def test_every_agent_of_the_table_is_in_the_readme() -> None:
    text = (ROOT / README).read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in AGENTS)


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_of_a_room_is_in_its_readme(room: str) -> None:
    text = (ROOT / room / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / room).glob("*.py")} - {"__init__.py"}
    assert {name for name in files if f"[`{name}`]({name})" not in text} == set()


@pytest.mark.parametrize("room", ROOMS)
def test_links_lead_somewhere(room: str) -> None:
    text = (ROOT / room / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert [link for link in links if not (ROOT / room / link.partition("#")[0]).exists()] == []


def test_commands_with_smaller_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = commands(README)
    assert [line.split()[1] for line in lines] == [
        *[*["train"] * 6, "evaluate"],
        *[*["train"] * 3, "evaluate"],
        "train",
        *["train", "evaluate"],
        *[*["train"] * 2, "evaluate"],
        *["train", "evaluate"] * 2,
        *["train"] * 2,
        *["train", "evaluate"],
        *["train", "evaluate", "evaluate"],
        *["train"] * 3,
    ]
    for line in lines:
        assert main(smaller(line)) == 0, line
    assert (tmp_path / "runs" / "compared" / "adaptation.png").is_file()
    capsys.readouterr()

    # The players are compared with one of these runs, whose trials are 3 pulls here.
    names: list[str] = []
    for line in commands(PLAYERS):
        assert main([*smaller(line), "--json"]) == 0, line
        names = [row["player"] for row in json.loads(capsys.readouterr().out)["players"]]
        assert "clairvoyant" in names or "--players" in line, line
    assert names[0] == "rl2"


def test_own_agent_as_it_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A dataclass looks its module up by name, so the example is run as a module.
    example = block(README, "class Steady:").replace("iterations=20", "iterations=2")
    (tmp_path / "steady_example.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    run = importlib.import_module("steady_example").run
    assert run.iteration == 2
    assert (tmp_path / "runs" / "steady" / "progress.csv").is_file()

    # By hand what `metarl.train` does: made by its name, trained in a run folder, stopped, resumed, evaluated.
    family = get("point-nav")
    config = config_class("steady")(tasks=20)
    settings = RunConfig(family=family.full_name, agent="steady", seed=1, threads=1)
    worlds = make_worlds(family, config.worlds, threads=1)

    def trained(folder: str, *iterations: int) -> torch.Tensor:
        agent = None
        for number, until in enumerate(iterations):
            streams = Streams(1)
            agent = make("steady", config, family.spec(), streams, torch.device("cpu"))
            step = iterations_of(agent, worlds, family.space.sample, streams)
            quiet = Console(quiet=True, force_terminal=False)
            train(tmp_path / folder, settings, agent, step, streams, until, resume=number > 0, console=quiet)
        assert agent is not None
        tasks = family.space.sample(10, "test", torch.Generator().manual_seed(0))
        curve = adaptation_curve(
            agent, make_worlds(family, 20), tasks, steps=1, episodes=2, generator=torch.Generator().manual_seed(0)
        )
        assert curve.episodes == (0, 2)
        return agent.state_dict()["action"]

    whole = trained("whole", 6)
    # It has learned that no action is better than full speed to one side.
    assert float(whole.norm()) < 0.8 * 2.0**0.5
    assert torch.equal(whole, trained("cut", 3, 6))
