"""Small trainings in float64, in one process or in several: `python -m tests.ranked FOLDER` as torchrun starts it.

A case is trained for some iterations in FOLDER/<case>; what a rank found out besides goes to FOLDER/rank<r>.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from metarl.agents import config_class, make
from metarl.agents.dpt import Dpt
from metarl.agents.maml_trpo import MamlTrpo
from metarl.agents.multitask import Multitask
from metarl.agents.pearl import Pearl
from metarl.agents.promp import Promp
from metarl.agents.rl2 import Rl2
from metarl.agents.teacher_student import TeacherStudent
from metarl.agents.varibad import Varibad
from metarl.api.validating import validation_tasks, validation_worlds
from metarl.envs import get, make_worlds
from metarl.errors import UserError
from metarl.evaluation.validation import Validation
from metarl.fewshot.episodes import Episodes, EpisodeShape, Support, uniform
from metarl.fewshot.learners import config_class as learner_config
from metarl.fewshot.learners import make as make_learner
from metarl.fewshot.parts.backbones import Conv4, MlpBackbone
from metarl.fewshot.parts.learner import Setting
from metarl.fewshot.run import FewShotRun
from metarl.ranks import Ranks, join
from metarl.run.driver import Step, Validate, iterations_of, train
from metarl.run.folder import Trainable
from metarl.run.settings import RunConfig, RunSettings
from metarl.seeding import Streams
from metarl.types import Params

DOUBLE = torch.float64
CPU = torch.device("cpu")
ITERATIONS = 3
SHAPE = EpisodeShape(way=3, shot=1, query=2)
IMAGE = (1, 16, 16)

SMALL = {"tasks": 4, "episodes": 3, "hidden": (8,)}
TRIALS = {"tasks": 4, "episodes": 2, "width": 8}
PEARL = {
    **{"train_tasks": 6, "tasks": 4, "first_rounds": 1, "updates": 4, "meta_batch": 4, "batch": 8, "context": 5},
    **{"hidden": (8,), "encoder_hidden": (8,), "replay_steps": 2000},
}
AGENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "maml-trpo": ("maml-trpo", "point-nav", {**SMALL, "learn_rates": True}),
    "promp": ("promp", "point-nav", {**SMALL, "inner_steps": 2, "target_kl": 0.01}),
    # Its worlds fall down, and those of a rank sooner than all.
    "multitask": ("multitask", "hopper-rand-params", SMALL),
    "oracle": ("oracle", "bandit", SMALL),
    # Its worlds fall down too, and all ranks keep what all have played.
    "pearl": ("pearl", "hopper-rand-params", PEARL),
    # Minibatches of a trial or two: some of them have none of a rank.
    "rl2-gru": ("rl2", "bandit", {**TRIALS, "minibatches": 3, "entropy": 0.01}),
    # Episodes of many lengths.
    "ppo": ("ppo", "hopper-rand-params", {**SMALL, "minibatches": 5}),
    # The last iteration of the three is the student's.
    "rma": (
        "rma",
        "point-nav",
        {**SMALL, "minibatches": 3, "student_minibatches": 7, "iterations": 3, "rewards": True},
    ),
    # A step takes a trial or two, of which a rank has one or none.
    "dpt": ("dpt", "bandit", {**TRIALS, "minibatches": 3, "layers": 1}),
    "rl2-transformer": ("rl2", "point-nav", {**TRIALS, "minibatches": 2, "core": "transformer"}),
    "rl2-hyper": ("rl2", "point-nav", {**TRIALS, "minibatches": 3, "core": "hyper", "head": (3,)}),
    # A step on the belief takes three trials, of which a rank has one or two.
    "varibad": (
        "varibad",
        "tabular-mdp",
        {
            **{**TRIALS, "hidden": (8,), "minibatches": 3, "belief_updates": 2, "belief_trials": 3, "buffer": 6},
            **{"decoded_moments": 4, "decoded_steps": 5},
        },
    ),
}
"""Case -> agent, family, settings."""
LEARNERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "maml": ("maml", {"tasks": 4, "inner_steps": 2}, {"outputs": 1}),
    "maml-conv": ("maml", {"tasks": 4, "inner_steps": 2, "executor": "loop"}, {"batch_norm": "running"}),
    "imaml": ("imaml", {"tasks": 2, "inner_steps": 2}, {"outputs": 1}),
    "reptile": ("reptile", {"tasks": 2, "inner_steps": 2, "train_shot": 2}, {"batch_norm": "running"}),
    "proto": ("proto", {"tasks": 4, "train_way": 0}, {"batch_norm": "running"}),
    "r2d2": ("r2d2", {"tasks": 2, "train_way": 0}, {}),
    "simpleshot": ("simpleshot", {"batch_size": 12}, {"batch_norm": "running", "classes": 6}),
}
"""Case -> learner, its settings, those of what it is made for."""
VALIDATED = ("maml-trpo", "oracle", "pearl", "rl2-gru")
"""Cases of agents that are validated."""
CASES = (*AGENTS, *LEARNERS)


class Waves:
    """Regression of sines, each with its own phase; its items are one number."""

    name = "waves"
    item_shape = (1,)
    outputs = 1

    def episodes(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Episodes:
        drawn = uniform(numbers, 1 + shape.shot + shape.query, seed, split)
        x = 6.0 * drawn[:, 1:, None]
        y = (x + 3.0 * drawn[:, :1, None]).sin()
        support = Support(x=x[:, : shape.shot], y=y[:, : shape.shot], way=0)
        return Episodes(support=support, query_x=x[:, shape.shot :], query_y=y[:, shape.shot :])

    def describe(self) -> Mapping[str, Any]:
        return {"name": self.name, "fingerprint": "waves-1"}


class Pictures:
    """Images of noise with a brighter row, which tells the class."""

    name = "pictures"
    item_shape = IMAGE
    outputs = 0

    def _drawn(self, numbers: Sequence[int], y: Tensor, *key: object) -> Tensor:
        count, pixels = y.shape[1], IMAGE[1] * IMAGE[2]
        x = uniform(numbers, count * pixels, *key).view(len(numbers), count, *IMAGE)
        x[torch.arange(len(y))[:, None], torch.arange(count), 0, 2 * y] += 1.0
        return x

    def episodes(self, split: str, numbers: Sequence[int], shape: EpisodeShape, seed: int) -> Episodes:
        support_y, query_y = (
            torch.arange(shape.way).repeat_interleave(size).expand(len(numbers), -1)
            for size in (shape.shot, shape.query)
        )
        support_x = self._drawn(numbers, support_y, seed, split, "support")
        query_x = self._drawn(numbers, query_y, seed, split, "query")
        return Episodes(
            support=Support(x=support_x, y=support_y, way=shape.way), query_x=query_x, query_y=query_y.clone()
        )

    def batch(self, split: str, number: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(size) % 6
        return self._drawn([number], y[None], seed, "batch")[0], y

    def describe(self) -> Mapping[str, Any]:
        return {"name": self.name, "fingerprint": "pictures-1"}


def double(params: Params) -> Params:
    return {name: value.double() for name, value in params.items()}


def agent_of(case: str, streams: Streams, ranks: Ranks) -> tuple[RunSettings, Trainable, Step, Validate | None]:
    name, family_name, settings = AGENTS[case]
    family = get(family_name)
    config = config_class(name)(**settings)
    agent = make(name, config, family.spec(), streams, CPU, ranks)
    if isinstance(agent, MamlTrpo):
        agent.meta = double(agent.meta)
    elif isinstance(agent, Promp):
        agent.begin_with(double(agent.meta))
    elif isinstance(agent, Multitask):
        agent.params = double(agent.params)
    elif isinstance(agent, Rl2 | Varibad | Dpt):
        agent.network.double()
    elif isinstance(agent, Pearl):
        agent.begin_with({part: double(params) for part, params in agent.networks.params.items()})
    elif isinstance(agent, TeacherStudent):
        agent.network.double()
        if agent.student is not None:
            agent.student.double()
    worlds = make_worlds(family, ranks.share(config.worlds), threads=1, dtype=DOUBLE, ranks=ranks)
    run = RunConfig(family=family.full_name, agent=name, threads=1, checkpoint_every=1)
    validation = None
    if case in VALIDATED:
        run = replace(run, validation=2)
        count = validation_worlds(agent, 2)
        others = make_worlds(family, count, threads=1, dtype=DOUBLE) if ranks.first else None
        validation = Validation(agent, validation_tasks(family, 2), others, ranks)
    return run, agent, iterations_of(agent, worlds, family.space.sample, streams), validation


def learner_of(case: str, streams: Streams, ranks: Ranks) -> tuple[RunSettings, Trainable, Step, None]:
    name, settings, made_for = LEARNERS[case]
    source = Waves() if "outputs" in made_for else Pictures()
    backbone = Conv4(item_shape=IMAGE, width=3) if source.outputs == 0 else MlpBackbone(item_shape=(1,), hidden=(8,))
    setting = Setting(shape=SHAPE, backbone=backbone, dtype=DOUBLE, ranks=ranks, **made_for)
    learner = make_learner(name, learner_config(name)(**settings), setting, streams, CPU)
    run = FewShotRun(data=source.name, learner=name, threads=1, checkpoint_every=1)
    return run, learner, lambda number: learner.update(source, number), None


def run_case(case: str, folder: Path, ranks: Ranks, *, iterations: int = ITERATIONS, resume: bool = False) -> None:
    streams = Streams(0)
    run, thing, step, validate = (agent_of if case in AGENTS else learner_of)(case, streams, ranks)
    totals = ("env/steps", "env/failures") if case in AGENTS else ()
    console = Console(quiet=True, force_terminal=False)
    train(
        folder / case,
        run,
        thing,
        step,
        streams,
        iterations,
        totals=totals,
        resume=resume,
        ranks=ranks,
        console=console,
        validate=validate,
    )


def caught(function: Callable[[], Any]) -> str:
    try:
        function()
    except UserError as error:
        return str(error)
    return ""


def refused(folder: Path, ranks: Ranks) -> None:
    raise UserError(f"rank {ranks.rank} refuses {folder.name}")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with join(CPU) as ranks:
        for case in CASES:
            run_case(case, folder, ranks)
        params = {"alike": torch.arange(3.0), "layers": [{"weight": torch.ones(2) + ranks.rank * 1e-7}]}
        found = {
            "sum": ranks.sum({"a": (ranks.rank + 1.0, torch.full((2, 1), ranks.rank + 1.0)), "b": torch.tensor([2])}),
            "mean": ranks.mean([torch.tensor([1.0, 2.0]) * ranks.rank, 3.0 * ranks.rank]),
            "gathered": ranks.gathered(torch.full((1, 2), ranks.rank + 1)),
            "largest": ranks.largest(5 - ranks.rank),
            "place": ranks.place(3 + 2 * ranks.rank),
            "unequal": caught(lambda: ranks.assert_replicated(params)),
            "equal": caught(lambda: ranks.assert_replicated({"alike": params["alike"]})),
            "once": ranks.once(lambda: f"of rank {ranks.rank}"),
            "refused": caught(lambda: ranks.once(lambda: refused(folder, ranks))),
            "taken": caught(lambda: run_case("maml", folder, ranks)),
        }
        plain = json.dumps(found, default=Tensor.tolist)
        (folder / f"rank{ranks.rank}.json").write_text(plain)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
