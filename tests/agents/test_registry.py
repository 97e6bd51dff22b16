"""The table of agents: what it knows without importing them, and agents of a user's own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.agents import AGENTS, config_class, make, register
from metarl.agents.multitask import Multitask, MultitaskConfig
from metarl.cli import catalogue
from metarl.envs.families.point_nav import PointNav
from metarl.errors import UserError
from metarl.ranks import ALONE, Ranks
from metarl.seeding import Streams
from metarl.types import BatchEnv, EnvSpec, Learner, MetaAgent, Metrics, SampleTasks, Tasks

POINT = PointNav(variant="short", horizon=8)
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class StillConfig:
    iterations: int = 3
    tasks: int = 2
    episodes: int = 2
    gains: tuple[float, ...] = (0.5, 1.0)

    @property
    def worlds(self) -> int:
        return self.tasks * self.episodes


class Still:
    """An agent that does nothing."""

    name = "still"
    trial = 1
    pools = True

    def __init__(self, config: Any, spec: EnvSpec, streams: Streams, device: torch.device, ranks: Ranks) -> None:
        self.config = config
        self.ranks = ranks

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        return {}

    def start(self, tasks: Tasks) -> Learner:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


# --- those in this repository ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(AGENTS))
def test_every_agent_is_made_from_its_default_settings(name: str) -> None:
    config = config_class(name)()
    assert is_dataclass(config_class(name))
    agent = make(name, config, POINT.spec(), Streams(0), CPU)
    assert isinstance(agent, MetaAgent)
    assert (agent.name, agent.config) == (name, config)
    assert config.worlds > 0


def test_the_table_and_the_summaries_import_no_agent_and_no_torch() -> None:
    code = (
        "import sys; from metarl.agents import AGENTS; assert all(row.summary for row in AGENTS.values()); "
        "print([name for name in sys.modules if name == 'torch' or name.startswith('metarl.agents.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['metarl.agents.registry']"


def test_an_unknown_agent_is_refused_with_the_nearest_name() -> None:
    for call in (config_class, lambda name: make(name, None, POINT.spec(), Streams(0), CPU)):
        with pytest.raises(UserError, match=r"Unknown agent 'mamltrpo'\. Did you mean 'maml-trpo'\?"):
            call("mamltrpo")


def test_the_config_of_another_agent_is_refused() -> None:
    with pytest.raises(UserError, match=r"Got a MultitaskConfig for rl2\. Give a Rl2Config"):
        make("rl2", MultitaskConfig(), POINT.spec(), Streams(0), CPU)


# --- those of a user ---------------------------------------------------------------------------------------------


def test_a_registered_agent_is_known_wherever_agents_are() -> None:
    register("still", StillConfig, Still, "does nothing")
    assert config_class("still") is StillConfig
    agent = make("still", StillConfig(tasks=3), POINT.spec(), Streams(0), CPU)
    assert isinstance(agent, Still)
    assert agent.config.worlds == 6
    assert agent.ranks is ALONE
    found = catalogue.find("still")
    assert found["summary"] == "does nothing"
    assert found["options"] == {"iterations": 3, "tasks": 2, "episodes": 2, "gains": [0.5, 1.0]}
    assert [row["name"] for row in catalogue.everything()["agents"]] == list(AGENTS)
    with pytest.raises(UserError, match=r"Unknown agent 'stil'\. Did you mean 'still'\?"):
        config_class("stil")


def test_a_function_makes_an_agent_as_well_as_a_class() -> None:
    register("half", MultitaskConfig, lambda *parts: Multitask(*parts, name="half"), "half of it")
    assert make("half", MultitaskConfig(), POINT.spec(), Streams(0), CPU).name == "half"


@pytest.mark.parametrize("name", ["rl2", "random", "still"])
def test_a_name_registers_once(name: str) -> None:
    register("still", StillConfig, Still, "does nothing")
    entry = AGENTS[name]
    with pytest.raises(UserError, match=f"Got a second agent '{name}'.*Pick another"):
        register(name, StillConfig, Still, "does nothing")
    assert AGENTS[name] is entry


@pytest.mark.parametrize("name", ["", "-x", "two words", "a/b", "2nd", "a@b", "a\n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"for the name of an agent\. Begin with a letter"):
        register(name, StillConfig, Still, "does nothing")


class Plain:
    iterations = episodes = worlds = 1


@dataclass(frozen=True, kw_only=True)
class Demanding(StillConfig):
    rate: float


@dataclass(frozen=True, kw_only=True)
class Endless:
    episodes: int = 1


@dataclass(frozen=True, kw_only=True)
class Unwritable(StillConfig):
    gain: Any = CPU


@dataclass(frozen=True, kw_only=True)
class Forgetful(StillConfig):
    gains: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gains", (*self.gains, 1.0))


class Lazy:
    def __init__(self, *parts: Any) -> None:
        pass

    def start(self, tasks: Tasks) -> Learner:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("config", "build", "summary", "message"),
    [
        (StillConfig, Still, " ", "no summary of mine"),
        (Plain, Still, "mine", "class with @dataclass above it"),
        (StillConfig(), Still, "mine", r"register: got config_class=.* where a class is needed"),
        (Demanding, Still, "mine", r"Demanding\(\) fails.*rate.*a default"),
        (Endless, Still, "mine", "Endless lacks iterations, worlds"),
        (Unwritable, Still, "mine", "Unwritable does not fit in a config.yaml.*cannot hold"),
        (Forgetful, Still, "mine", "Forgetful does not come back from a config.yaml"),
        (StillConfig, None, "mine", r"got make=None \(NoneType\) where a function is needed"),
        (StillConfig, lambda config, spec: None, "mine", r"cannot be made.*called with \(config, spec, streams"),
        (StillConfig, Lazy, "mine", "Lazy lacks train_iteration, state_dict, load_state_dict"),
    ],
)
def test_what_would_fail_later_is_refused(config: Any, build: Any, summary: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        register("mine", config, build, summary)
    assert "mine" not in AGENTS


def test_a_function_that_makes_no_agent_is_found_out_when_it_is_asked_to() -> None:
    register("nothing", StillConfig, lambda *parts: Lazy(), "no agent")
    with pytest.raises(UserError, match="nothing makes a Lazy without name, config, trial, pools, train_iteration"):
        make("nothing", StillConfig(), POINT.spec(), Streams(0), CPU)
