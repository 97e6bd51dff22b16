"""Where the agents of one evaluation meet: the same tasks, worlds, and starts as far as their actions allow."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from metarl.api.film import FILM_PICTURES, FILM_SIZE, before_and_after
from metarl.api.memory import check_playing
from metarl.api.recording import Recording
from metarl.api.runs import Group, check_family, draw_tasks, most_room, untrained
from metarl.config import MOST_STEPS
from metarl.envs import make_worlds
from metarl.envs.elsewhere import going_there, worlds_there
from metarl.envs.family import Family
from metarl.envs.modifiers.switching import too_late
from metarl.envs.reality import Named
from metarl.envs.worlds import Worlds
from metarl.errors import UserError
from metarl.evaluation import probe as probing
from metarl.evaluation.curve import Curve, Entry, Evaluation, adaptation_curve, parallel_episodes, steps_at_test
from metarl.evaluation.elsewhere import Elsewhere
from metarl.evaluation.film import to_gif
from metarl.nets.memory import remembered
from metarl.run.settings import Engine
from metarl.seeding import Streams
from metarl.types import MetaAgent, Tasks

Split = Literal["test", "ood", "train"]

ORACLES = ("oracle", "teacher")
"""Agents that are told the task."""
RANDOM_NETWORKS = 5
"""Untrained networks behind `random`."""
BOOTSTRAP_BYTES = 60_000
"""Memory that an interval needs for a task and training seed: 2,000 resamples."""


class Meeting:
    """Tasks and worlds on which all agents of one evaluation meet."""

    env: Worlds
    tasks: Tasks
    probed: list[Group]
    """Agents whose memories are probed."""
    probe_fit: Tasks
    probe_tasks: Tasks
    recording: Recording | None = None
    told: Group | None = None
    """Runs of the oracle."""
    floor: Group | None = None
    """Runs that the gap closed is measured from, if not from untrained policies."""

    def __init__(
        self,
        groups: Sequence[Group],
        split: Split,
        count: int,
        steps: int | None,
        episodes: int | None,
        seed: int,
        device: torch.device,
        engine: Engine,
        threads: int,
    ) -> None:
        self.groups = groups
        self.family: Family = groups[0].runs[0].family
        self.split = split
        self.count = count
        self.steps = steps
        self.seed = seed
        self.device = device
        self.engine = engine
        self.threads = threads
        agents = [group.agent for group in groups]
        self.episodes = parallel_episodes(agents, count) if episodes is None else episodes

    def measure_gap(self, told: Sequence[Group], floor: Sequence[Group]) -> None:
        """Take what the gap closed is measured between, if it is of the same family and can be that.

        Args:
            told: runs of the oracle; none: no gap is measured.
            floor: runs of an agent that is told nothing; none: an untrained policy.
        """
        for run in (group.runs[0] for group in told):
            if run.agent.name not in ORACLES:
                raise UserError(
                    f"Got {run.folder} for --oracle, which is a run of '{run.agent.name}'. Give one of "
                    f"{' or '.join(map(repr, ORACLES))}."
                )
        if floor and not told:
            raise UserError("Got --floor without --oracle: the gap closed lies between the two. Give both.")
        for run in (group.runs[0] for group in floor):
            knows = run.agent.name in ORACLES
            if knows or not run.agent.pools:
                why = "is told the task" if knows else "adapts in its first episode"
                raise UserError(
                    f"Got {run.folder} for --floor, which is a run of '{run.agent.name}' and {why}. Give one of an "
                    "agent that is told nothing and does the same in every task, such as 'ppo' or 'multitask'."
                )
        self.told, self.floor = self._reference(told, "oracles"), self._reference(floor, "floors")

    def _reference(self, groups: Sequence[Group], what: str) -> Group | None:
        """Return the only group, of the same family, if there is any."""
        if not groups:
            return None
        if len(groups) > 1:
            names = " and ".join(f"'{group.label}'" for group in groups)
            raise UserError(f"Got {what} of several kinds, {names}. Give training seeds of one.")
        check_family([self.groups[0].runs[0], groups[0].runs[0]])
        return groups[0]

    @property
    def references(self) -> list[Group]:
        """Oracle and floor, those of them that were given."""
        return [group for group in (self.told, self.floor) if group is not None]

    def make(self) -> None:
        """Draw the tasks and make the worlds, if all that was asked for is possible."""
        if self.episodes < 1 or self.count < 1 or not 0 <= (self.steps or 0) <= MOST_STEPS:
            got = f"--tasks {self.count} --episodes {self.episodes} --steps {self.steps}"
            raise UserError(f"Got {got}. Allowed: from 1, from 1, and from 0 to {MOST_STEPS}.")
        for group in self.groups:
            self.check_memory(group, self._steps(group.agent) + 1, "lower --steps or")
            trial = group.agent.trial * self.family.horizon
            latest = too_late(self.family, trial)
            if latest is not None:
                raise UserError(
                    f"{self.family.full_name}: tasks may switch as late as step {latest}, and a trial of {group.label} "
                    f"has {trial}. Give a --horizon of {latest // group.agent.trial + 1} or more."
                )
        worlds = self.count * self.episodes
        everyone = [*self.groups, *self.references]
        most_seeds = max(RANDOM_NETWORKS, *(len(group.runs) for group in everyone))
        check_playing(
            self.family,
            worlds,
            "--tasks, --episodes or --horizon",
            more={"--tasks": self.count * most_seeds * BOOTSTRAP_BYTES},
            engine=self.engine,
            device=self.device,
        )
        self.tasks = draw_tasks(self.family, self.count, self.split, self.seed)
        self.env = make_worlds(
            self.family,
            worlds,
            threads=self.threads,
            engine=self.engine,
            device=self.device,
            room=most_room([run for group in everyone for run in group.runs]),
        )

    def check_memory(self, group: Group, episodes: int, cure: str) -> None:
        """Refuse trials that are longer than what an agent with a memory remembers.

        Args:
            group: the agent.
            episodes: that are played in a row with one task.
            cure: what can be done, beside `--horizon`.
        """
        limit = None if group.agent.pools else remembered(group.agent)
        if limit is not None and episodes * self.family.horizon > limit:
            raise UserError(
                f"{group.label} remembers {limit} steps, those of the trials that it was trained on, and {episodes} x "
                f"{self.family.horizon} are more: {cure} --horizon."
            )

    def record(self, recording: Recording, *, random: bool) -> None:
        """Record all episodes that follow, if there is room for the logs."""
        points = [self._steps(group.agent) + 1 for group in self.groups for _ in group.runs]
        points += [1 for group in self.references for _ in group.runs] + [1] * (RANDOM_NETWORKS * random)
        recording.check(self.env, points)
        self.recording = recording

    def entry(self, group: Group, steps: int | None = None) -> Entry:
        """Evaluate the runs of one agent, with so many adaptation steps; as many as asked for if None."""
        steps = self._steps(group.agent) if steps is None else steps
        return Entry(
            agent=group.label,
            curves=tuple(self._curve(run.agent, steps, group.label, run.seed) for run in group.runs),
            runs=tuple(str(run.folder) for run in group.runs),
            seeds=tuple(run.seed for run in group.runs),
        )

    def oracle(self) -> Entry | None:
        """Evaluate the oracle, if there is one; under another name than its own where it is among the agents too."""
        if self.told is None:
            return None
        among = any(group.label == self.told.label for group in self.groups)
        return self.entry(replace(self.told, label="the oracle") if among else self.told, steps=0)

    def lowest(self) -> Entry | None:
        """Evaluate the floor, if there is one."""
        return None if self.floor is None else self.entry(replace(self.floor, label="floor"), steps=0)

    def random(self) -> Entry:
        """Evaluate untrained policies, without adaptation; several, since they differ from one another."""
        seeds = tuple(range(self.seed, self.seed + RANDOM_NETWORKS))
        curves = (self._curve(untrained(self.family, seed, self.device), 0, "random", seed) for seed in seeds)
        return Entry(agent="random", curves=tuple(curves), runs=(), seeds=seeds)

    def check_reality(self, there: Named) -> None:
        """Refuse a reality that the family does not allow, before anything is computed."""
        with there.named():
            going_there(self.family, there.reality, self.engine, self.device)

    def elsewhere(self, there: Named, home: Evaluation) -> Elsewhere:
        """Evaluate all agents in another reality, on the same tasks."""
        meeting = copy.copy(self)
        # A log has what was played at home.
        meeting.recording = None
        with there.named():
            meeting.env = worlds_there(
                self.family,
                there.reality,
                self.tasks,
                self.episodes,
                Streams(self.seed)[f"reality {there.name}"],
                engine=self.engine,
                device=self.device,
                threads=self.threads,
            )
        evaluation = replace(
            home,
            entries=tuple(meeting.entry(group) for group in self.groups),
            oracle=meeting.oracle(),
            floor=meeting.lowest(),
            random=None if home.random is None else meeting.random(),
        )
        return Elsewhere(reality=there.plain(), evaluation=evaluation)

    def prepare_probe(self, count: int) -> None:
        """Find the agents that have a memory, and draw the tasks for the probe, if that is possible."""
        self.probed = [group for group in self.groups if not group.agent.pools]
        if not self.probed:
            names = ", ".join(f"'{group.agent.name}'" for group in self.groups)
            raise UserError(
                f"Got --probe for {names}, which has no memory. Give a run of rl2, varibad, dpt, pearl or rma."
            )
        for group in self.probed:
            self.check_memory(group, group.agent.trial, "leave --probe out, or lower")
        self.probe_fit, self.probe_tasks = probing.probe_tasks(self.family.space, self.split, count, Streams(self.seed))

    def probe(self) -> list[dict[str, Any]]:
        """Probe every agent that has a memory."""
        space, fit, tasks = self.family.space, self.probe_fit, self.probe_tasks
        worlds = make_worlds(self.family, min(len(tasks), probing.MOST_WORLDS), threads=self.threads)
        results = []
        for group in self.probed:
            agents = [run.agent for run in group.runs]
            result = probing.probe(agents, worlds, space, fit, tasks, self.seed, discrete=self.family.discrete)
            result["agent"] = group.label
            result["runs"] = [str(run.folder) for run in group.runs]
            result["training_seeds"] = [run.seed for run in group.runs]
            results.append(result)
        return results

    def films(self, entries: Sequence[Entry]) -> dict[str, bytes]:
        """Film the first task with the first training seed of every agent; without those that cannot be drawn here."""
        films = {}
        for group, entry in zip(self.groups, entries, strict=True):
            steps = len(entry.episodes) - 1
            task = self.tasks.select([0])
            try:
                clips = before_and_after(
                    group.agent,
                    self.family,
                    task,
                    steps=steps,
                    episodes=self.episodes,
                    seed=self.seed,
                    size=FILM_SIZE,
                    most=FILM_PICTURES,
                )
            except UserError:
                # No off-screen OpenGL, or a family that has no drawing: `metarl render` says which.
                continue
            films[group.label] = to_gif(clips, f"{group.label}, {self.family.full_name}", len(clips))
        return films

    def _steps(self, agent: MetaAgent) -> int:
        """Return how often an agent learns."""
        return steps_at_test(agent) if self.steps is None else self.steps

    def _curve(self, agent: MetaAgent, steps: int, label: str, seed: int) -> Curve:
        """Evaluate an agent, and record its episodes where that was asked for."""
        log = None
        if self.recording is not None:
            log = self.recording.log(self.env, label, seed, split=self.split, seed=self.seed)
        curve = adaptation_curve(
            agent,
            self.env,
            self.tasks,
            steps=steps,
            episodes=self.episodes,
            # Fresh for every agent: all meet the same starts.
            generator=Streams(self.seed)["evaluation"],
            keep=None if log is None else log.add,
        )
        if log is not None:
            log.write()
        return curve
