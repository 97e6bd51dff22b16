"""`metarl evaluate`: adaptation curves of trained agents on held-out tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from metarl.cli_options import Device, Split, Which, parse
from metarl.errors import UserError

if TYPE_CHECKING:
    import torch

    from metarl.envs.family import Family
    from metarl.evaluate import Curve, Entry
    from metarl.training import RunConfig
    from metarl.types import MetaAgent, Tasks

RANDOM_NETWORKS = 5
"""Untrained networks behind `--random`."""

EVALUATE = """\
Adapt trained agents to tasks they were not trained on, and draw the adaptation curve.

At every point of the curve an agent plays some episodes of each task, then takes one adaptation step on them. The
result is written to RUN/evaluation/SPLIT: adaptation.csv, adaptation.json, adaptation.png and TensorBoard events. It
takes the place of an earlier result there: keep that by giving this one an --out of its own.
Several runs of one agent are its training seeds and make one curve. With --oracle the table shows the gap closed,
(agent - random@0) / (oracle - random@0).

examples:
  metarl evaluate runs/maml --random
  metarl evaluate runs/maml --split ood --steps 5
  metarl evaluate runs/maml-seed0 runs/maml-seed1 --against runs/multitask --oracle runs/oracle"""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What is evaluated, on which tasks, against what."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders of one agent, each trained with another seed."""
    split: Split = "test"
    """Where the tasks are from: test (held out), ood (out of distribution), train."""
    tasks: int = 40
    """How many tasks."""
    steps: int = 3
    """How many adaptation steps."""
    episodes: int | None = None
    """Episodes of each task for every step; as in the agent's training if not given."""
    checkpoint: Which = "last"
    """Which checkpoint of the runs."""
    against: tuple[Path, ...] = ()
    """Runs of other agents, for further curves."""
    oracle: tuple[Path, ...] = ()
    """Runs of the oracle, for the gap closed; brings --random with it."""
    random: bool = False
    """Show an untrained policy too."""
    seed: int = 0
    """Seed of tasks, starts and policy noise: the same seed gives the same tasks."""
    out: Path | None = None
    """Folder for the results; RUN/evaluation/SPLIT of the first run if not given."""
    device: Device = "cpu"
    """Where the networks live."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    json: bool = False
    """Print adaptation.json in place of the table."""


def evaluate_command(arguments: list[str]) -> int:
    """Run `metarl evaluate`."""
    options = parse(EvaluateOptions, arguments, "metarl evaluate", EVALUATE)
    if not options.runs:
        raise UserError("Got no run to evaluate. Give a folder of `metarl train`: metarl evaluate runs/...")

    from metarl.evaluate import Evaluation, summarise, table, write

    meeting = _Meeting(options)
    folder = options.out or options.runs[0] / "evaluation" / options.split
    # Better refused now than when everything has been computed.
    folder.mkdir(parents=True, exist_ok=True)
    entries = [meeting.entry(options.runs)]
    entries += [meeting.entry(runs) for _, runs in meeting.grouped(options.against)]
    oracle = meeting.entry(options.oracle, steps=0) if options.oracle else None
    evaluation = Evaluation(
        family=meeting.family.full_name,
        split=options.split,
        seed=options.seed,
        entries=tuple(entries),
        oracle=oracle,
        random=meeting.random() if options.random or oracle else None,
        coincide=meeting.family.space.coincide,
    )
    summary = summarise(evaluation)
    write(evaluation, summary, folder)
    if options.json:
        print(json.dumps(summary))
        return 0
    console = Console()
    console.print(table(summary))
    if summary["gap_note"]:
        console.print(f"No gap closed: {summary['gap_note']}", style="yellow", soft_wrap=True, markup=False)
    failures = sum(agent["failures"] for agent in summary["agents"])
    if failures:
        console.print(f"{failures} simulations became invalid; each ended its own episode only.", style="yellow")
    print(
        f"Picture      {folder / 'adaptation.png'}\n"
        f"Numbers      {folder / 'adaptation.csv'}\n"
        f"Summary      {folder / 'adaptation.json'}\n"
        f"TensorBoard  tensorboard --logdir {options.runs[0]}"
    )
    return 0


class _Meeting:
    """Tasks and worlds on which all agents of one evaluation meet."""

    def __init__(self, options: EvaluateOptions) -> None:
        from metarl.envs import make_worlds
        from metarl.training import resolve_device

        self.options = options
        self.device = resolve_device(options.device)
        self.family, agent, _ = load_agent(options.runs[0], options.checkpoint, self.device)
        self.episodes = agent.config.episodes if options.episodes is None else options.episodes
        if self.episodes < 1 or options.steps < 0:
            raise UserError(f"Got --episodes {self.episodes} --steps {options.steps}. Allowed: from 1, and from 0.")
        self.tasks = draw_tasks(self.family, options.tasks, options.split, options.seed)
        self.env = make_worlds(self.family, options.tasks * self.episodes, threads=options.threads)
        self._check()

    def _check(self) -> None:
        """Refuse runs that cannot be compared, before any of them is evaluated."""
        options = self.options
        if len({run.resolve() for run in options.runs}) < len(options.runs):
            raise UserError("Got a run twice, which would count as two training seeds. Give each run once.")
        for run in (*options.runs, *options.against, *options.oracle):
            family, _, _ = load_agent(run, options.checkpoint, self.device)
            if family is not self.family:
                raise UserError(
                    f"Got {run} trained on {family.full_name}, and {options.runs[0]} trained on "
                    f"{self.family.full_name}. Compare runs of one family."
                )
        if len(self.grouped(options.runs)) > 1:
            raise UserError("Got runs of different agents. Give those of one agent, and the others with --against.")
        for name, group in self.grouped(options.oracle):
            if name != "oracle":
                raise UserError(f"Got {group[0]} for --oracle, which is a run of '{name}'. Give one of 'oracle'.")

    def grouped(self, runs: Sequence[Path]) -> list[tuple[str, list[Path]]]:
        """Return the runs by agent."""
        from metarl.training import load_run

        groups: dict[str, list[Path]] = {}
        for run in runs:
            groups.setdefault(load_run(run)[0].agent, []).append(run)
        return list(groups.items())

    def entry(self, runs: Sequence[Path], steps: int | None = None) -> Entry:
        """Evaluate the runs of one agent, with so many adaptation steps; as many as asked for if None."""
        from metarl.evaluate import Entry

        name, curves, seeds = "", [], []
        for run in runs:
            _, agent, settings = load_agent(run, self.options.checkpoint, self.device)
            name = settings.agent
            curves.append(self._curve(agent, steps))
            seeds.append(settings.seed)
        return Entry(agent=name, curves=tuple(curves), runs=tuple(map(str, runs)), seeds=tuple(seeds))

    def random(self) -> Entry:
        """Evaluate untrained policies, without adaptation; several, since they differ from one another."""
        from metarl.agents import config_class, make
        from metarl.evaluate import Entry
        from metarl.seeding import Streams

        seeds = tuple(range(self.options.seed, self.options.seed + RANDOM_NETWORKS))
        spec, config = self.family.spec(), config_class("random")()
        agents = [make("random", config, spec, Streams(seed), self.device) for seed in seeds]
        return Entry(agent="random", curves=tuple(self._curve(agent, 0) for agent in agents), runs=(), seeds=seeds)

    def _curve(self, agent: MetaAgent, steps: int | None) -> Curve:
        from metarl.evaluate import adaptation_curve
        from metarl.seeding import Streams

        return adaptation_curve(
            agent,
            self.env,
            self.tasks,
            steps=self.options.steps if steps is None else steps,
            episodes=self.episodes,
            # Fresh for every agent: all meet the same starts.
            generator=Streams(self.options.seed)["evaluation"],
        )


def load_agent(run: Path, which: Which, device: torch.device) -> tuple[Family, MetaAgent, RunConfig]:
    """Return a trained agent with its family and its run's settings.

    Raises:
        UserError: there is no such run or checkpoint, or it does not fit.
    """
    from metarl.agents import config_class, make
    from metarl.config import from_plain
    from metarl.envs import get
    from metarl.seeding import Streams
    from metarl.training import load_run, restore

    settings, plain = load_run(run)
    family = get(settings.family)
    config = from_plain(config_class(settings.agent), plain)
    agent = make(settings.agent, config, family.spec(), Streams(settings.seed), device)
    restore(run, which, agent)
    return family, agent, settings


def draw_tasks(family: Family, count: int, split: Split, seed: int) -> Tasks:
    """Return the tasks that an evaluation with this seed meets."""
    from metarl.seeding import Streams

    return family.space.sample(count, split, Streams(seed)["tasks"])
