"""`metarl evaluate`: adaptation curves of trained agents on held-out tasks."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from metarl.cli.options import Split, Which, parse
from metarl.errors import UserError
from metarl.run.settings import Device, Engine

if TYPE_CHECKING:
    import torch

    from metarl.envs.family import Family
    from metarl.evaluation.curve import Curve, Entry
    from metarl.run.settings import RunConfig
    from metarl.types import MetaAgent, Tasks

RANDOM_NETWORKS = 5
"""Untrained networks behind `--random`."""
STEPS = 3
"""Adaptation steps of an agent that pools, where no number is given."""
TRIALS, MOST_TRIALS = 400, 10
"""Parallel trials of all tasks together, and most of one task, where no agent says how many episodes it learns from."""
WORLD_BYTES, NUMBER_BYTES, STEP_BYTES = 20_000, 160, 70
"""Memory that a collection needs for a world, for each number of its task, and for each number of a step, measured."""
BOOTSTRAP_BYTES = 60_000
"""Memory that an interval needs for a task and training seed: 2,000 resamples."""

EVALUATE = """\
Adapt trained agents to tasks they were not trained on, and draw the adaptation curve.

At every point of a curve the agent plays --episodes of each task in parallel, then learns from them. One that takes
gradient steps (maml-trpo, multitask) learns from all of them together: its points are at 0, K, 2K, ... episodes of
experience. One that adapts in its memory (rl2) learns in every world by itself, so that they are as many trials, and
its points are at 0, 1, 2, ...; of a trial of more than two episodes the table tells the total return too.

Runs of one agent are its training seeds and make one curve, unless their settings differ. With --oracle the table shows
the gap closed, (agent - random@0) / (oracle - random@0); without it the gain on the first point, task by task. The
result is written to RUN/evaluation/SPLIT of the first run, or to --out: adaptation.csv, adaptation.json,
adaptation.png, and TensorBoard events in a folder for each agent. It takes the place of an earlier result there.

With --probe, from the memory after each episode of a trial a linear probe predicts the task parameters of tasks that it
was not fitted to (R2, for a choice accuracy; `before` is the first observation alone); and the last episode of the
trials is played with the world's own memory, with that of another task, and with none. All of it is in probe.json.

examples:
  metarl evaluate runs/maml --random
  metarl evaluate runs/maml --split ood --steps 5
  metarl evaluate runs/rl2 --probe
  metarl evaluate runs/rl2-seed0 runs/rl2-seed1 runs/maml --oracle runs/oracle --out compare"""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What is evaluated, and on which tasks."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, of one agent or of several; the agent of the first one comes first."""
    split: Split = "test"
    """Where the tasks are from: test (held out), ood (out of distribution), train."""
    tasks: int = 40
    """How many tasks."""
    steps: int | None = None
    """How many adaptation steps; if not given 3, for rl2 as many as lead to the last episode of its trials."""
    episodes: int | None = None
    """Parallel episodes of each task; if not given as in the training of the first agent that takes gradient steps. If
    there is only rl2: 10, fewer above 40 tasks (400 in all), at least 1."""
    checkpoint: Which = "last"
    """Which checkpoint of the runs."""
    oracle: tuple[Path, ...] = ()
    """Runs of the oracle, for the gap closed; brings --random with it."""
    random: bool = False
    """Show an untrained policy too."""
    probe: bool = False
    """Show what the memory of agents that have one (rl2) knows of the task, and what swapping memories does."""
    probe_tasks: int = 256
    """Tasks for --probe to be scored on; it is fitted to twice as many training tasks."""
    seed: int = 0
    """Seed of tasks, starts and policy noise: the same seed gives the same tasks."""
    out: Path | None = None
    """Folder for the results; RUN/evaluation/SPLIT of the first run if not given."""
    device: Device = "cpu"
    """Where the networks live."""
    engine: Engine = "auto"
    """What steps the worlds: cpu, gpu (mujoco_warp, on the device), or auto: gpu where the device is one."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    json: bool = False
    """Print adaptation.json in place of the table; with --probe its results too."""


def evaluate_command(arguments: list[str]) -> int:
    """Run `metarl evaluate`."""
    options = parse(EvaluateOptions, arguments, "metarl evaluate", EVALUATE)
    if not options.runs:
        raise UserError("Got no run to evaluate. Give a folder of `metarl train`: metarl evaluate runs/...")

    from metarl.evaluation import probe
    from metarl.evaluation.curve import Evaluation, summarise, table, write

    meeting = _Meeting(options)
    folder = options.out or options.runs[0] / "evaluation" / options.split
    # Better refused now than when everything has been computed.
    folder.mkdir(parents=True, exist_ok=True)
    probes = meeting.probe() if options.probe else []
    entries = tuple(meeting.entry(runs) for runs in meeting.agents)
    oracle = meeting.entry(meeting.oracle, steps=0) if meeting.oracle else None
    evaluation = Evaluation(
        family=meeting.family.full_name,
        split=options.split,
        seed=options.seed,
        entries=entries,
        oracle=oracle,
        random=meeting.random() if options.random or oracle else None,
        coincide=meeting.family.space.coincide,
    )
    summary = summarise(evaluation)
    write(evaluation, summary, folder)
    probe.write(probes, folder)
    if options.json:
        print(json.dumps(summary | {"probe": probes} if probes else summary))
        return 0
    console = Console()
    console.print(table(summary))
    for result in probes:
        for part in probe.tables(result, summary["kind"]):
            console.print(part)
    if summary["gap_note"]:
        console.print(f"No gap closed: {summary['gap_note']}", style="yellow", soft_wrap=True, markup=False)
    failures = sum(agent["failures"] for agent in summary["agents"])
    if failures:
        console.print(f"{failures} simulations became invalid; each ended its own episode only.", style="yellow")
    print(
        f"Picture      {folder / 'adaptation.png'}\n"
        f"Numbers      {folder / 'adaptation.csv'}\n"
        f"Summary      {folder / 'adaptation.json'}\n"
        + (f"Probe        {folder / 'probe.json'}\n" if probes else "")
        + f"TensorBoard  tensorboard --logdir {options.out or options.runs[0]}"
    )
    return 0


@dataclass(frozen=True)
class TrainedRun:
    """A run that was loaded."""

    folder: Path
    """Where it is."""
    family: Family
    """What it was trained on."""
    agent: MetaAgent
    """As its checkpoint has it."""
    seed: int
    """It was trained with."""
    label: str
    """What it is called in the result: the agent's name, told apart by settings where there are several of it."""


class _Meeting:
    """Tasks and worlds on which all agents of one evaluation meet.

    Attributes:
        agents: the runs of every agent; those of one agent are its training seeds.
        oracle: the runs of the oracle.
    """

    def __init__(self, options: EvaluateOptions) -> None:
        from metarl.devices import resolve_device
        from metarl.envs import make_worlds

        self.options = options
        self.device = resolve_device(options.device)
        self.agents = load_runs(options.runs, options.checkpoint, self.device)
        self.family = self.agents[0][0].family
        self.oracle = self._load_oracle()
        self.episodes = self._episodes()
        if self.episodes < 1 or options.tasks < 1 or (options.steps is not None and options.steps < 0):
            got = f"--tasks {options.tasks} --episodes {self.episodes} --steps {options.steps}"
            raise UserError(f"Got {got}. Allowed: from 1, from 1, and from 0.")
        most_seeds = max(RANDOM_NETWORKS, *(len(runs) for runs in self.agents))
        check_memory(
            self.family,
            options.tasks * self.episodes,
            f"--tasks {options.tasks} with {self.episodes} parallel episodes each",
            more=options.tasks * most_seeds * BOOTSTRAP_BYTES,
        )
        self.tasks = draw_tasks(self.family, options.tasks, options.split, options.seed)
        self.env = make_worlds(
            self.family,
            options.tasks * self.episodes,
            threads=options.threads,
            engine=options.engine,
            device=self.device,
        )

    def _load_oracle(self) -> list[TrainedRun]:
        """Load the runs of the oracle, of the same family."""
        if not self.options.oracle:
            return []
        groups = load_runs(self.options.oracle, self.options.checkpoint, self.device)
        for run in (group[0] for group in groups):
            if run.agent.name != "oracle":
                raise UserError(
                    f"Got {run.folder} for --oracle, which is a run of '{run.agent.name}'. Give one of 'oracle'."
                )
        if len(groups) > 1:
            names = " and ".join(f"'{group[0].label}'" for group in groups)
            raise UserError(f"Got oracles of several kinds, {names}. Give training seeds of one.")
        check_family([self.agents[0][0], groups[0][0]])
        return groups[0]

    def _episodes(self) -> int:
        """Return the number of parallel episodes of each task, K."""
        if self.options.episodes is not None:
            return self.options.episodes
        pooling = [runs[0].agent.config.episodes for runs in self.agents if runs[0].agent.pools]
        return pooling[0] if pooling else min(MOST_TRIALS, max(1, TRIALS // max(1, self.options.tasks)))

    def entry(self, runs: Sequence[TrainedRun], steps: int | None = None) -> Entry:
        """Evaluate the runs of one agent, with so many adaptation steps; as many as asked for if None."""
        from metarl.evaluation.curve import Entry

        return Entry(
            agent=runs[0].label,
            curves=tuple(self._curve(run.agent, steps) for run in runs),
            runs=tuple(str(run.folder) for run in runs),
            seeds=tuple(run.seed for run in runs),
        )

    def random(self) -> Entry:
        """Evaluate untrained policies, without adaptation; several, since they differ from one another."""
        from metarl.agents import config_class, make
        from metarl.evaluation.curve import Entry
        from metarl.seeding import Streams

        seeds = tuple(range(self.options.seed, self.options.seed + RANDOM_NETWORKS))
        spec, config = self.family.spec(), config_class("random")()
        agents = [make("random", config, spec, Streams(seed), self.device) for seed in seeds]
        return Entry(agent="random", curves=tuple(self._curve(agent, 0) for agent in agents), runs=(), seeds=seeds)

    def probe(self) -> list[dict[str, Any]]:
        """Probe every agent that has a memory."""
        from metarl.envs import make_worlds
        from metarl.evaluation.probe import MOST_WORLDS, probe, probe_tasks
        from metarl.seeding import Streams

        options, space = self.options, self.family.space
        groups = [runs for runs in self.agents if not runs[0].agent.pools]
        if not groups:
            names = ", ".join(f"'{runs[0].agent.name}'" for runs in self.agents)
            raise UserError(f"Got --probe for {names}, which has no memory. Give a run of an agent that has one: rl2.")
        fit, tasks = probe_tasks(space, options.split, options.probe_tasks, Streams(options.seed))
        worlds = make_worlds(self.family, min(len(tasks), MOST_WORLDS), threads=options.threads)
        results = []
        for runs in groups:
            agents = [run.agent for run in runs]
            result = probe(agents, worlds, space, fit, tasks, options.seed, discrete=self.family.discrete)
            result["agent"] = runs[0].label
            result["runs"], result["training_seeds"] = [str(run.folder) for run in runs], [run.seed for run in runs]
            results.append(result)
        return results

    def _curve(self, agent: MetaAgent, steps: int | None) -> Curve:
        from metarl.evaluation.curve import adaptation_curve
        from metarl.seeding import Streams

        if steps is None:
            steps = self.options.steps
        if steps is None:
            steps = STEPS if agent.pools else agent.trial - 1
        return adaptation_curve(
            agent,
            self.env,
            self.tasks,
            steps=steps,
            episodes=self.episodes,
            # Fresh for every agent: all meet the same starts.
            generator=Streams(self.options.seed)["evaluation"],
        )


def load_runs(runs: Sequence[Path], which: Which, device: torch.device) -> list[list[TrainedRun]]:
    """Return trained runs by agent and settings, the first one's first: those of a group differ in their seeds only.

    Raises:
        UserError: as for `load_agent`; a run is given twice; they are of several families.
    """
    from metarl.config import to_plain
    from metarl.run.settings import by_settings

    if len({run.resolve() for run in runs}) < len(runs):
        raise UserError("Got a run twice, which would count as two training seeds. Give each run once.")
    loaded = []
    for folder in runs:
        family, agent, settings = load_agent(folder, which, device)
        # How long a run was trained makes it no other agent.
        config = {key: value for key, value in to_plain(agent.config).items() if key != "iterations"}
        run = TrainedRun(folder, family, agent, settings.seed, label=settings.agent)
        loaded.append((agent.name, config, run))
    check_family([run for _, _, run in loaded])
    return [[replace(run, label=label) for run in group] for label, group in by_settings(loaded)]


def check_family(runs: Sequence[TrainedRun]) -> None:
    """Refuse runs of several families."""
    for run in runs:
        if run.family is not runs[0].family:
            raise UserError(
                f"Got {run.folder} trained on {run.family.full_name}, and {runs[0].folder} trained on "
                f"{runs[0].family.full_name}. Compare runs of one family."
            )


def load_agent(run: Path, which: Which, device: torch.device) -> tuple[Family, MetaAgent, RunConfig]:
    """Return a trained agent with its family and its run's settings.

    Raises:
        UserError: there is no such run or checkpoint, or it does not fit.
    """
    from metarl.agents import config_class, make
    from metarl.config import from_plain
    from metarl.envs import get
    from metarl.run.folder import RunFolder
    from metarl.run.settings import RunConfig
    from metarl.seeding import Streams

    settings, plain = RunFolder(run).settings(RunConfig)
    family = get(settings.family)
    config = from_plain(config_class(settings.agent), plain)
    agent = make(settings.agent, config, family.spec(), Streams(settings.seed), device)
    RunFolder(run).restore(settings, which, agent)
    return family, agent, settings


def draw_tasks(family: Family, count: int, split: Split, seed: int) -> Tasks:
    """Return the tasks that an evaluation with this seed meets."""
    from metarl.seeding import Streams

    return family.space.sample(count, split, Streams(seed)["tasks"])


def check_memory(family: Family, worlds: int, asked: str, more: int = 0) -> None:
    """Refuse what does not fit into memory, by a rough estimate: the system would end the process in the middle of it.

    Args:
        family: what the worlds are of.
        worlds: B.
        asked: the options that ask for it.
        more: memory needed for something else, bytes.
    """
    step = family.observation_size + family.action_size + 10
    world = WORLD_BYTES + NUMBER_BYTES * family.space.feature_size + STEP_BYTES * step * family.horizon
    needed, free = worlds * world + more, free_memory()
    if needed > free:
        raise UserError(
            f"Got {asked}: that takes about {needed / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} are free. Ask "
            "for fewer."
        )


def free_memory() -> int:
    """Return how much memory this process may still take, bytes."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    free = 1024 * int(lines["MemAvailable"].split()[0])
    # A container may have been given less.
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free
