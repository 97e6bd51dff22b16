"""A trained agent with its run, loaded from a run folder; and runs put together as training seeds of one agent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from metarl.agents import config_class, make
from metarl.api.finding import family_of
from metarl.arguments import checked
from metarl.config import from_plain, to_plain
from metarl.devices import resolve_device
from metarl.envs.family import Family
from metarl.envs.horizon import without_horizon
from metarl.envs.registry import at_horizon
from metarl.errors import UserError
from metarl.run.folder import RunFolder
from metarl.run.settings import Checkpoint, Device, RunConfig, by_settings
from metarl.run.standing import Standing
from metarl.seeding import Streams
from metarl.types import MetaAgent, Tasks


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training of an agent: what `metarl.train`, `metarl.resume` and `metarl.load` return."""

    folder: Path
    """The run folder."""
    settings: RunConfig
    """Family, agent, seed, device, ...; the agent's own settings are `agent.config`."""
    family: Family = field(repr=False)
    """What it is trained on."""
    agent: MetaAgent = field(repr=False)
    """The agent, as the checkpoint has it."""
    checkpoint: str
    """Which checkpoint that is: last, best or previous."""
    iteration: int
    """Iterations that it was trained for."""
    interrupted: bool = False
    """Whether a signal ended the training before its last iteration; `metarl.resume` goes on."""
    room: dict[str, int] = field(default_factory=dict, repr=False)
    """What the engine's buffers had room for then, so that they begin there; empty where it had none."""
    physics: str = ""
    """What stepped the worlds, in a few words; empty where the run was only loaded."""

    @property
    def seed(self) -> int:
        """The seed that it was trained with."""
        return self.settings.seed

    def progress(self) -> dict[str, np.ndarray]:
        """Return what was logged while it trained.

        Returns:
            Column of progress.csv -> values [rows], float64; NaN in rows that lack it. `step` is the iteration;
            `metarl list --metrics` tells what the others mean.

        Raises:
            UserError: progress.csv is damaged.
        """
        rows = RunFolder(self.folder).progress()
        columns = dict.fromkeys(tag for row in rows for tag in row)
        return {tag: np.array([row.get(tag, math.nan) for row in rows]) for tag in columns}


@checked
def load(
    folder: Path | str,
    checkpoint: Checkpoint = "last",
    *,
    device: Device = "cpu",
    trust: bool = False,
    source: Path | str | None = None,
) -> Run:
    """Return a trained agent with its run.

    Args:
        folder: a run folder of `metarl train`.
        checkpoint: which checkpoint: `last`, `best` (highest mean score while training) or `previous`.
        device: where its networks are to live.
        trust: execute the files of its family though you did not make the run on this machine.
        source: file or module that defines its family, where that is not found, or is to be another one.

    Raises:
        UserError: there is no such run or checkpoint, or it does not fit; its family is not found, or needs `trust`; a
            run of a few-shot learner is loaded by `metarl.fewshot.load`.
    """
    folder = Path(folder)
    settings, plain = RunFolder(folder).settings(RunConfig)
    family, settings = family_of(RunFolder(folder), settings, trust=trust, source=source)
    config = from_plain(config_class(settings.agent), plain)
    agent = make(settings.agent, config, family.spec(), Streams(settings.seed), resolve_device(device))
    standing = RunFolder(folder).restore(settings, checkpoint, agent)
    return Run(
        folder=folder,
        settings=settings,
        family=family,
        agent=agent,
        checkpoint=checkpoint,
        iteration=standing.iteration,
        room=standing.room,
    )


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one agent with the same settings: its training seeds."""

    label: str
    """What the agent is called among others: its name, told apart by settings where there are several of it."""
    runs: tuple[Run, ...]
    """At least one."""

    @property
    def agent(self) -> MetaAgent:
        """The agent of the first run."""
        return self.runs[0].agent


def grouped(
    runs: Sequence[Run | Path | str],
    checkpoint: Checkpoint = "last",
    *,
    device: Device = "cpu",
    trust: bool = False,
    source: Path | str | None = None,
    horizon: int | None = None,
) -> list[Group]:
    """Return runs by agent and settings, the first one's first: those of a group differ in their seeds only.

    Args:
        runs: of one family; folders are loaded.
        checkpoint: of the folders.
        device: where the networks of those are to live.
        trust: as for `load`.
        source: as for `load`.
        horizon: steps that the episodes of their family are to have, whatever they were trained with; None: as trained.

    Raises:
        UserError: as for `load`; a run is given twice; they are of several families; the family has no such horizon.
    """
    folders = {(run.folder if isinstance(run, Run) else Path(run)).resolve() for run in runs}
    if len(folders) < len(runs):
        raise UserError("Got a run twice, which would count as two training seeds. Give each run once.")
    loaded = [
        run if isinstance(run, Run) else load(run, checkpoint, device=device, trust=trust, source=source)
        for run in runs
    ]
    # How long a run was trained makes it no other agent; how long its episodes were does.
    configs = [
        {key: v for key, v in to_plain(run.agent.config).items() if key != "iterations"}
        | {"horizon": run.family.horizon}
        for run in loaded
    ]
    if horizon is not None:
        loaded = [replace(run, family=at_horizon(run.family, horizon)) for run in loaded]
    check_family(loaded)
    things = [(run.settings.agent, config, run) for run, config in zip(loaded, configs, strict=True)]
    return [Group(label=label, runs=tuple(group)) for label, group in by_settings(things)]


def ending(run: Run) -> tuple[Standing, int]:
    """Return where a training stood at its last checkpoint, or else at that which was loaded, for `training_said`."""
    folder = RunFolder(run.folder)
    which = "last" if folder.checkpoint("last").exists() else run.checkpoint
    return folder.standing(which, run.agent), run.settings.patience


def check_family(runs: Sequence[Run]) -> None:
    """Refuse runs of several families."""
    for run in runs:
        if run.family is not runs[0].family:
            names = [one.family.full_name for one in (run, runs[0])]
            alike = names[0] != names[1] and without_horizon(names[0]) == without_horizon(names[1])
            longer = ", or give the --horizon that all are to have" if alike else ""
            raise UserError(
                f"Got {run.folder} trained on {names[0]}, and {runs[0].folder} trained on {names[1]}. "
                f"Compare runs of one family{longer}."
            )


def most_room(runs: Sequence[Run]) -> dict[str, int]:
    """Return the most that the engine's buffers had room for in any of the runs, by name."""
    names = dict.fromkeys(name for run in runs for name in run.room)
    return {name: max(run.room.get(name, 0) for run in runs) for name in names}


def untrained(family: Family, seed: int, device: torch.device) -> MetaAgent:
    """Return an untrained policy for a family."""
    return make("random", config_class("random")(), family.spec(), Streams(seed), device)


def draw_tasks(family: Family, count: int, split: str, seed: int) -> Tasks:
    """Return the tasks that an evaluation with this seed meets."""
    return family.space.sample(count, split, Streams(seed)["tasks"])
