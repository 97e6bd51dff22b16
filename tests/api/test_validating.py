"""Trainings with a validation, and their plateau."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import metarl
from metarl import memory
from metarl.agents import AGENTS, config_class, make, register
from metarl.agents.pearl import Pearl
from metarl.api.runs import Run, ending
from metarl.api.validating import validation_said, validation_tasks, validation_worlds
from metarl.cli.main import main
from metarl.envs import get
from metarl.envs.registry import families
from metarl.errors import UserError
from metarl.run.checkpoint import load
from metarl.run.plateau import training_said
from metarl.run.settings import RunConfig
from metarl.run.tracking import read_progress
from metarl.seeding import Streams
from metarl.space.parameter_space import ParameterSpace
from metarl.types import BatchEnv, EnvSpec, Metrics, SampleTasks, Tasks, Trajectories
from tests.api.test_training import assert_same_run, untimed
from tests.helpers.same import assert_same
from tests.helpers.tiny_trainings import FAMILY, SMALL, TRIALS

CPU = torch.device("cpu")
SPEEDS = (0.0, 0.2, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6)
"""Of the agent below after each iteration, m per 0.1 m. With a patience of 3 it waits from the fourth on: 1, 2, 3."""
END = 7


@dataclass(frozen=True, kw_only=True)
class PacedConfig:
    iterations: int = 12
    episodes: int = 1
    worlds: int = 2


@dataclass(frozen=True)
class Walker:
    """Goes straight to the goals."""

    goals: torch.Tensor
    speed: float

    @property
    def policy(self) -> Walker:
        return self

    def act(self, observation: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        way = self.goals.repeat_interleave(len(observation) // len(self.goals), 0) - observation
        return (self.speed * way / way.norm(dim=1, keepdim=True)).float()

    def learn(self, experience: Trajectories) -> Walker:
        return self


class Paced:
    """An agent that is told its task, and whose return is fixed by its iteration: it is as fast as SPEEDS says."""

    name = "paced"
    trial = 1
    pools = True

    def __init__(self, config: Any, spec: EnvSpec, streams: Streams, device: torch.device, ranks: Any) -> None:
        self.config = config
        self.done = 0

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        sample_tasks(2, "train", streams["tasks"])
        self.done += 1
        return {"env/steps": 1.0}

    def start(self, tasks: Tasks) -> Walker:
        return Walker(tasks["goal"], SPEEDS[self.done - 1] if self.done else 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = state["done"]


@pytest.fixture(autouse=True)
def paced() -> Iterator[None]:
    before = dict(AGENTS)
    register("paced", PacedConfig, Paced, "goes to the goal at a pace")
    yield
    AGENTS.clear()
    AGENTS.update(before)


WAITING: dict[str, Any] = {"horizon": 3, "threads": 1, "checkpoint_every": 1, "validation": 5, "patience": 3}


def train_paced(folder: Path, **given: Any) -> tuple[Run, str]:
    text = io.StringIO()
    run = metarl.train("paced", FAMILY, out=folder, console=Console(file=text, width=400), **{**WAITING, **given})
    return run, text.getvalue()


def checkpoint(folder: Path, which: str = "last") -> dict[str, Any]:
    return load(folder / "checkpoints" / f"{which}.pt", {})


# -- the plateau ------------------------------------------------------------------------------------------------------


def test_a_run_ends_at_its_plateau_and_says_what_lets_it_go_on(tmp_path: Path, capsys: Any) -> None:
    run, said = train_paced(tmp_path / "run")
    assert (run.iteration, run.interrupted) == (END, False)
    rows = read_progress(tmp_path / "run")
    assert [row["validation/waited"] for row in rows] == [0, 0, 1, 0, 1, 2, 3]
    # Three steps towards goals that are further away than 0.12 m: s, 2 s and 3 s times 0.1 m nearer.
    far = validation_tasks(get(FAMILY), 5)["goal"].norm(dim=1)
    assert float(far.min()) > 0.12
    for row, speed in zip(rows, SPEEDS, strict=False):
        assert row["validation/return"] == pytest.approx(float((-3.0 * far + 0.6 * speed).mean()), abs=1e-5)
    assert checkpoint(tmp_path / "run", "best")["iteration"] == 4
    # 2 and 4 above the first one.
    assert checkpoint(tmp_path / "run")["rises"] == 2
    plateau = f"{tmp_path / 'run'} is at its plateau after 7 iterations: 3 checkpoints in a row did not raise"
    assert plateau in said
    assert "Validation: 5 tasks of the training distribution, none of those trained on; 1 episode of each." in said
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert len(events.Scalars("validation/return")) == END

    # Nothing more is trained, whatever else is asked for; the command says so too.
    before = checkpoint(tmp_path / "run")
    assert main(["train", "--resume", str(tmp_path / "run"), "--iterations", "30"]) == 0
    shown = capsys.readouterr().out
    assert plateau in " ".join(shown.split())
    assert_same(checkpoint(tmp_path / "run"), before)
    # What it advises.
    assert f"metarl train --resume {tmp_path / 'run'} --patience 6" in said
    assert main(["train", "--resume", str(tmp_path / "run"), "--patience", "6", "--iterations", "12", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["iteration"], last["plateau"], last["interrupted"]) == (12, False, False)
    assert [row["validation/waited"] for row in read_progress(tmp_path / "run")] == [0, 0, 1, 0, 1, 2, 3, 4, 0, 1, 2, 3]
    # It is the run that had this patience from the start, but for what it says of it.
    train_paced(tmp_path / "whole", patience=6)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    # A shorter patience finds that it has been there for long.
    assert metarl.resume(tmp_path / "run", patience=2, console=Console(quiet=True)).settings.patience == 2


def test_resumed_in_the_middle_of_waiting_it_ends_where_a_whole_one_does(tmp_path: Path) -> None:
    train_paced(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    checkpoints = tmp_path / "killed" / "checkpoints"
    (checkpoints / "previous.pt").replace(checkpoints / "last.pt")
    assert (checkpoint(tmp_path / "killed")["iteration"], checkpoint(tmp_path / "killed")["waited"]) == (6, 2)
    run = metarl.resume(tmp_path / "killed", console=Console(quiet=True))
    assert run.iteration == END
    assert_same(*(untimed(checkpoint(tmp_path / name)) for name in ("whole", "killed")))
    assert_same(*([untimed(row) for row in read_progress(tmp_path / name)] for name in ("whole", "killed")))


def test_only_full_intervals_count_so_that_pieces_end_as_the_whole(tmp_path: Path) -> None:
    given = {"checkpoint_every": 2, "patience": 2}
    # At 2, 4, 6, 8: 0.2, 0.4, 0.4, 0.4.
    whole, _ = train_paced(tmp_path / "whole", **given)
    assert whole.iteration == 8
    _, said = train_paced(tmp_path / "pieces", **given, iterations=5)
    assert "Its validation rose at its last checkpoint: it may rise further. Go on with: metarl train --resume" in said
    rows = read_progress(tmp_path / "pieces")
    assert [row["step"] for row in rows if "validation/return" in row] == [2, 4, 5]
    run = metarl.resume(tmp_path / "pieces", 7, console=Console(quiet=True))
    run = metarl.resume(tmp_path / "pieces", 12, console=Console(quiet=True))
    assert run.iteration == 8
    assert checkpoint(tmp_path / "pieces")["waited"] == checkpoint(tmp_path / "whole")["waited"] == 2
    assert checkpoint(tmp_path / "pieces")["reference"] == checkpoint(tmp_path / "whole")["reference"]


def test_an_evaluation_says_how_its_oracle_was_trained(tmp_path: Path) -> None:
    # `oracle` is the name of an agent that is told its task; who trains it is ours here.
    AGENTS["oracle"] = AGENTS["paced"]._replace(make=Oracle)
    for name, given in (("at", {}), ("early", {"iterations": 6}), ("none", {"patience": 0, "iterations": 2})):
        kept = {**WAITING, **given}
        metarl.train("oracle", FAMILY, out=tmp_path / name, console=Console(quiet=True), **kept)
    words = {
        "at": "stopped at its plateau after 7 iterations",
        "early": "not yet at its plateau after 6 iterations",
        "none": "trained without a stopping rule, for 2 iterations",
    }
    for name, said in words.items():
        # Whichever checkpoint is looked at, it is the training's end that counts.
        assert training_said([ending(metarl.load(tmp_path / name, "best"))]) == said
    found = metarl.evaluate(tmp_path / "none", oracle=tmp_path / "at", checkpoint="best", tasks=2, threads=1)
    assert found.summary["oracle_training"] == words["at"]
    assert f"Oracle: {words['at']}." in str(found)
    (tmp_path / "at" / "checkpoints" / "last.pt").unlink()
    assert training_said([ending(metarl.load(tmp_path / "at", "best"))]) == "not yet at its plateau after 4 iterations"


class Oracle(Paced):
    name = "oracle"


# -- training is as without it ----------------------------------------------------------------------------------------

BELIEF: dict[str, Any] = {
    **{"train_tasks": 3, "tasks": 2, "first_rounds": 1, "updates": 2, "meta_batch": 2, "batch": 4, "context": 4},
    **{"hidden": (8,), "encoder_hidden": (8,), "replay_steps": 50, "iterations": 2, "threads": 1},
}
TOLD: dict[str, Any] = {"tasks": 2, "episodes": 2, "hidden": (8,), "minibatches": 2, "iterations": 2, "threads": 1}
VARIBAD: dict[str, Any] = {
    **{**TRIALS, "hidden": (8,), "belief_updates": 2, "belief_trials": 2, "buffer": 4, "iterations": 2},
    **{"decoded_moments": 2, "decoded_steps": 2},
}
EVERY: dict[str, dict[str, Any]] = {
    "maml-trpo": {**SMALL, "inner_steps": 2},
    "promp": SMALL,
    "multitask": SMALL,
    "oracle": SMALL,
    "rl2": {**TRIALS, "iterations": 2},
    "varibad": VARIBAD,
    "dpt": {"tasks": 4, "minibatches": 1, "width": 4, "layers": 1, "iterations": 2, "threads": 1},
    "pearl": BELIEF,
    "teacher": TOLD,
    "ppo": TOLD,
    "rma": {**TOLD, "student_minibatches": 2, "rewards": True},
}


def test_every_agent_is_here() -> None:
    assert set(EVERY) == set(AGENTS) - {"random", "paced"}


SLOW = ("promp", "multitask", "varibad", "dpt", "ppo")
"""They share how they act, and all that counts here, with one of the others."""


@pytest.mark.parametrize(
    "agent", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in EVERY]
)
def test_an_agent_is_trained_as_without_a_validation(agent: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {**EVERY[agent], "horizon": 4, "checkpoint_every": 1, "console": Console(quiet=True)}
    metarl.train(agent, FAMILY, out=tmp_path / "without", **given)
    metarl.train(agent, FAMILY, out=tmp_path / "with", validation=3, patience=9, **given)
    plain, validated = (checkpoint(tmp_path / name) for name in ("without", "with"))
    for part in ("agent", "streams", "totals", "iteration"):
        assert_same(plain[part], validated[part])
    assert (plain["reference"], len(validated["reference"])) == ([], 3)
    rows = [[untimed(row) for row in read_progress(tmp_path / name)] for name in ("without", "with")]
    names = {"validation/return", "validation/failures", "validation/waited"}
    # Of rma the first iteration is its teacher's.
    assert [names & set(row) for row in rows[1]] == [set() if agent == "rma" else names, names]
    assert rows[0] == [{tag: value for tag, value in row.items() if tag not in names} for row in rows[1]]


# -- its tasks --------------------------------------------------------------------------------------------------------


def known(tasks: Tasks) -> set[str]:
    return {repr(record) for record in tasks.records()}


def all_spaces() -> dict[str, ParameterSpace]:
    named = {family.full_name: family.space for variants in families().values() for family in variants}
    return named | {name: get(name).space for name in ("half-cheetah-vel@pearl19+switch", "ant-goal@pearl19+mass")}


def test_tasks_are_of_no_test_split_and_of_no_training_set() -> None:
    spaces = all_spaces()
    assert sum(space.unfixed is not space for space in spaces.values()) >= 5
    for name, space in spaces.items():
        tasks = validation_tasks(get(name), 30)
        assert_same(dict(tasks.values), dict(validation_tasks(get(name), 30).values))
        assert bool(space.unfixed.contains(tasks, "train").all()), name
        if not space.coincide:
            assert not bool(space.unfixed.contains(tasks, "test").any()), name
        if space.unfixed is not space:
            # All that it is trained and tested on.
            assert not bool((space.contains(tasks, "train") | space.contains(tasks, "test")).any()), name


def test_an_agent_that_keeps_its_training_tasks_is_validated_on_others() -> None:
    family = get(FAMILY)
    agent = make("pearl", config_class("pearl")(train_tasks=50), family.spec(), Streams(0), CPU)
    assert isinstance(agent, Pearl)
    agent._train_on(family.space.sample(50, "train", Streams(0)["tasks"]))
    assert agent.tasks is not None
    assert not known(agent.tasks) & known(validation_tasks(family, 50))


def test_a_family_of_few_tasks_is_validated_on_them_and_it_is_said() -> None:
    family = get("half-cheetah-dir")
    tasks = validation_tasks(family, 6)
    assert sorted(tasks["direction"].tolist()) == [-1.0] * 3 + [1.0] * 3
    agent = make("oracle", config_class("oracle")(episodes=4), family.spec(), Streams(0), CPU)
    run = RunConfig(agent="oracle", family="half-cheetah-dir", validation=6)
    assert validation_said(family, agent, run) == [
        "Validation: 6 times a task of half-cheetah-dir@v5, which has 2: those trained on and tested too; 4 "
        "episodes of each."
    ]
    assert validation_worlds(agent, 6) == 24


def test_it_is_said_how_an_agent_is_measured() -> None:
    family, run = get(FAMILY), RunConfig(agent="any", validation=40, patience=3)
    said = {
        name: validation_said(family, make(name, config_class(name)(), family.spec(), Streams(0), CPU), run)
        for name in ("maml-trpo", "rl2", "rma")
    }
    assert said["maml-trpo"][0].endswith("; 20 episodes of each, after 1 adaptation step on as many.")
    assert said["rl2"][0].endswith("; 10 trials of each, the last of 2 episodes.")
    falls = "The learning rate goes from 0.001 to 0.0001 over 400 iterations: a plateau before their end may be one of"
    assert said["rma"][1].startswith(falls)
    assert said["rma"][2].startswith("It begins when that which acts at test is trained")
    # The advice works.
    steady = make("teacher", config_class("teacher")(final_learning_rate=1e-3), family.spec(), Streams(0), CPU)
    assert len(validation_said(family, steady, run)) == 1
    assert len(validation_said(family, steady, replace(run, patience=0))) == 1


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"validation": -1}, r"Got --validation -1\. It must be at least 0"),
        ({"patience": -2}, r"Got --patience -2\. It must be at least 0"),
        ({"validation": 10**6}, r"Got --validation 1000000\. It must be at most 100000"),
        ({"patience": 3}, r"Got --patience 3 with --validation 0.*Start a run with --validation 40, or leave --pat"),
        ({"patience": 3, "validation": 1}, r"Got --patience 3 with --validation 1.*over 2 tasks or more"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], says: str, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(UserError, match=says):
        metarl.train("multitask", FAMILY, out=tmp_path / "run", **SMALL, **given)
    options = [f"--{name}={value}" for name, value in given.items()]
    assert main(["train", "multitask", "--out", str(tmp_path / "run"), *options]) == 2
    assert list(tmp_path.iterdir()) == []
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_without_a_validation_has_no_patience(tmp_path: Path, capsys: Any) -> None:
    train_paced(tmp_path / "run", validation=0, patience=0, iterations=1)
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    assert main(["train", "--resume", str(tmp_path / "run"), "--patience", "3"]) == 2
    assert "Start a run with --validation 40, or leave --patience out" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


def test_the_worlds_of_a_validation_have_to_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 200_000_000)
    with pytest.raises(UserError, match=r"Needs about .* and 0\.2 GB are free: lower --validation\."):
        metarl.train("multitask", FAMILY, out=tmp_path / "run", validation=50_000, **SMALL)
    assert not (tmp_path / "run").exists()
