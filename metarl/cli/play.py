"""`metarl play`: reference players and trained agents on bandits and tabular MDPs, beside the published figures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.cli.options import parse
from metarl.config import check_used
from metarl.errors import UserError
from metarl.run.settings import Checkpoint

if TYPE_CHECKING:
    from metarl.agents.players.roster import Model
    from metarl.api.runs import Group, Run
    from metarl.envs.family import Family
    from metarl.types import MetaAgent, Tasks

PLAY = """\
Let players that know the prior play trials of a bandit or a tabular MDP, and agents that were trained on it too.

All meet the same tasks. A trial is some episodes with one task, of which the player remembers everything; its score is
the total reward of the trial (an episode of a bandit is one pull). The intervals are 95% intervals of the mean over
tasks, 1.96 standard errors; `first` and `last` are the mean rewards of single episodes. What each player does in
detail: agents/players/bandit.py and agents/players/mdp.py.

Several runs of one agent are its training seeds: their mean over seeds is taken for every task, and the interval is
over tasks alone. It says what other tasks would give to these trained agents, not what another training would.

The tasks are fresh draws from the family's whole distribution, as in the published figures: 80% from the range of its
training split, 20% from that of its test split. Training draws its own tasks anew in every iteration, so that no agent
has met one of these. (`metarl evaluate` plays tasks of the test split alone.)

  random           any action
  gittins          finite-horizon Gittins index: nearly the best there is (Bernoulli arms, up to 200 pulls)
  thompson         Thompson sampling
  ucb1             UCB1 with a prior and a tuned bonus, as published with RL2; ucb1-auer: as it was first written
  greedy           the best posterior mean; epsilon-greedy: with 10% random pulls
  psrl             posterior sampling with rewards' prior N(0, 1), as published; psrl-true-prior: with N(1, 1)
  certainty        plans for the posterior's mean MDP
  clairvoyant      is told the task: the ceiling

examples:
  metarl play --runs runs/rl2-seed0 runs/rl2-seed1
  metarl play --family bandit --episodes 100
  metarl play --family bandit@gaussian-10 --players thompson ucb1 --tasks 10000
  metarl play --family tabular-mdp --json"""

COLUMNS = ("random", "gittins", "thompson", "ucb1", "greedy", "rl2")
PUBLISHED: dict[tuple[str, int], dict[str, float]] = {
    ("bandit@bernoulli-5", 10): dict(zip(COLUMNS, (5.0, 6.6, 5.7, 6.7, 6.6, 6.7), strict=True)),
    ("bandit@bernoulli-10", 10): dict(zip(COLUMNS, (5.0, 6.6, 5.5, 6.7, 6.6, 6.7), strict=True)),
    ("bandit@bernoulli-5", 100): dict(zip(COLUMNS, (49.9, 78.3, 74.7, 78.0, 75.4, 78.7), strict=True)),
    ("bandit@bernoulli-10", 100): dict(zip(COLUMNS, (49.9, 82.8, 76.7, 82.4, 77.4, 83.5), strict=True)),
    ("tabular-mdp@rl2", 10): {"random": 100.1, "psrl": 138.1, "rl2": 156.2},
}
"""(family, episodes of a trial) -> mean total reward over 1,000 tasks: Duan et al. 2016 (RL2), tables 1 and 2.

`greedy` stands for the column ε-greedy, whose ε was the best of a grid from 0 to 1: with ε = 0.1 less is collected in
every one of these settings.
"""
MOST_EPISODES = 1_000_000
"""Of a trial: more would take days."""
RETURN_BYTES = 64
"""Memory that the return of an episode of a task needs until everything is summed up."""


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """What is played, by whom."""

    runs: tuple[Path, ...] = ()
    """Run folders of trained agents that have a memory (rl2, varibad, dpt), to play too."""
    family: str | None = None
    """A bandit or a tabular MDP, as NAME or NAME@VARIANT (see `metarl list`); if not given that of the runs, bandit if
    there are none."""
    episodes: int | None = None
    """Episodes of a trial; of a bandit: pulls. If not given as in the training of the runs, 10 if there are none."""
    tasks: int = 1000
    """How many tasks, one trial each."""
    players: tuple[str, ...] = ()
    """Who plays; all that can if none is given."""
    checkpoint: Checkpoint = "last"
    """Which checkpoint of the runs."""
    trust: bool = False
    """Execute the files of the family though you did not make the runs on this machine: read them first."""
    source: str | None = None
    """File or module that defines the family, where that is not found, or is to be another one."""
    seed: int = 0
    """Seed of tasks, chance and players."""
    json: bool = False
    """Print JSON in place of the table."""


def play_command(arguments: list[str]) -> int:
    """Run `metarl play`."""
    options = parse(PlayOptions, arguments, "metarl play", PLAY)
    episodes = 1 if options.episodes is None else options.episodes
    if not 1 <= episodes <= MOST_EPISODES or options.tasks < 2 or options.seed < 0:
        got = f"--episodes {options.episodes} --tasks {options.tasks} --seed {options.seed}"
        raise UserError(f"Got {got}. Allowed: from 1 to {MOST_EPISODES}, from 2, from 0.")
    check_used(options, {} if options.runs else dict.fromkeys(("checkpoint", "source", "trust"), "--runs"))
    for name in options.players:
        if options.players.count(name) > 1:
            raise UserError(f"Got the player '{name}' {options.players.count(name)} times. Name each once.")
    result = play(options)
    if options.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def play(options: PlayOptions) -> dict[str, Any]:
    """Play the trials and return the result as plain data."""
    from metarl.agents.players.roster import ceiling, expected_ceiling, make_player, players
    from metarl.api.memory import check_playing
    from metarl.envs import make_worlds
    from metarl.evaluation.curve import adaptation_curve
    from metarl.seeding import Streams

    family, episodes, trained = _who_and_what(options)
    model = model_of(family)
    chosen = options.players or tuple(players(model, episodes))
    playing: list[tuple[str, Sequence[MetaAgent], Sequence[Run]]] = [
        (group.label, [run.agent for run in group.runs], group.runs) for group in trained
    ]
    playing += [(name, [make_player(name, model, episodes)], ()) for name in chosen]
    more = {"--episodes or --tasks": options.tasks * episodes * RETURN_BYTES}
    check_playing(family, options.tasks, "--tasks", more=more)
    tasks = fresh_tasks(family, options.tasks, options.seed)
    worlds = make_worlds(family, options.tasks)
    published = PUBLISHED.get((family.full_name, episodes), {})
    rows = []
    for label, agents, runs in playing:
        curves = [
            adaptation_curve(
                agent,
                worlds,
                tasks,
                steps=episodes - 1,
                episodes=1,
                # Fresh for every player: all meet the same chance, as long as they draw alike.
                generator=Streams(options.seed)["play"],
            ).returns
            for agent in agents
        ]
        returns = sum(curves[1:], curves[0]) / len(curves)
        totals = returns.sum(0)
        mean, margin = float(totals.mean()), 1.96 * float(totals.std()) / math.sqrt(len(totals))
        name = agents[0].name
        rows.append(
            {
                "player": label,
                "runs": [str(run.folder) for run in runs],
                "training_seeds": [run.seed for run in runs],
                "by_run": [float(curve.sum(0).mean()) for curve in curves] if runs else [],
                "mean": mean,
                "lower": mean - margin,
                "upper": mean + margin,
                "published": published.get(name),
                "by_episode": returns.mean(1).tolist(),
            }
        )
    return {
        "family": family.full_name,
        "episodes": episodes,
        "tasks": options.tasks,
        "seed": options.seed,
        # Of these tasks; and of all tasks, where a formula gives it.
        "ceiling": episodes * float(ceiling(model, tasks).mean()),
        "expected_ceiling": expected_ceiling(model, episodes),
        "players": rows,
    }


def _who_and_what(options: PlayOptions) -> tuple[Family, int, list[Group]]:
    """Return the family, the episodes of a trial, and the trained runs by agent.

    Raises:
        UserError: the runs do not fit one another, or the options; or an agent has no memory.
    """
    from metarl.api.runs import grouped
    from metarl.envs import get

    trained = grouped(options.runs, options.checkpoint, trust=options.trust, source=options.source)
    if not trained:
        return get(options.family or "bandit"), options.episodes or 10, []
    first = trained[0].runs[0]
    family, episodes = first.family, first.agent.trial
    if options.family is not None and get(options.family) is not family:
        raise UserError(
            f"Got --family {options.family} for {first.folder}, which was trained on {family.full_name}. Leave it out."
        )
    if options.episodes not in (None, episodes):
        raise UserError(
            f"Got --episodes {options.episodes} for {first.folder}, which was trained for trials of {episodes}. Leave "
            "it out."
        )
    for run in (group.runs[0] for group in trained):
        if run.agent.pools:
            raise UserError(
                f"Got {run.folder}, a run of '{run.agent.name}', which has no memory of a trial. Give runs of "
                "rl2, varibad or dpt, or use metarl evaluate."
            )
        if run.agent.trial != episodes:
            raise UserError(
                f"Got {first.folder}, trained for trials of {episodes} episodes, and {run.folder}, for trials of "
                f"{run.agent.trial}. Let those of one length play together."
            )
    return family, episodes, trained


def model_of(family: Family) -> Model:
    """Return what players know of a family beforehand.

    Raises:
        UserError: nobody can play it.
    """
    from metarl.agents.players.bandit import BanditModel
    from metarl.agents.players.mdp import MdpModel
    from metarl.envs import families
    from metarl.envs.families.bandit import Bandit
    from metarl.envs.families.tabular_mdp import REWARD_MEAN, TabularMdp

    if isinstance(family, Bandit):
        return BanditModel(arms=family.arms, rewards=family.rewards, means=family.means, noise=family.noise)
    if isinstance(family, TabularMdp):
        return MdpModel(states=family.states, actions=family.actions, horizon=family.horizon, reward_mean=REWARD_MEAN)
    known = [one.full_name for some in families().values() for one in some if isinstance(one, Bandit | TabularMdp)]
    raise UserError(f"{family.full_name} is neither a bandit nor a tabular MDP. Choose from: {', '.join(known)}.")


def fresh_tasks(family: Family, count: int, seed: int) -> Tasks:
    """Return tasks of the family's whole distribution: of both splits, in their proportion.

    Players learn nothing from training tasks, and agents meet none of these in training, where tasks are drawn anew in
    every iteration, from other random numbers also with the same seed.
    """
    import torch

    from metarl.seeding import Streams
    from metarl.space.parameter_space import TRAIN_FRACTION
    from metarl.types import Tasks

    generator = Streams(seed)["fresh tasks"]
    train = round(TRAIN_FRACTION * count)
    parts = [
        family.space.sample(size, split, generator).values
        for split, size in (("train", train), ("test", count - train))
        if size > 0
    ]
    return Tasks(family.full_name, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _print(result: dict[str, Any]) -> None:
    """Print the result for people."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("player", no_wrap=True)
    for header in ("mean \\[95%]", "published", "first", "last"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in result["players"]:
        table.add_row(
            row["player"],
            f"{row['mean']:.2f} \\[{row['lower']:.2f}, {row['upper']:.2f}]",
            "" if row["published"] is None else f"{row['published']:.1f}",
            f"{row['by_episode'][0]:.2f}",
            f"{row['by_episode'][-1]:.2f}",
        )
    console = Console()
    title = f"{result['family']}: total reward of {result['episodes']} episodes, {result['tasks']} tasks"
    console.print(title, style="bold", highlight=False)
    console.print(table)
    for row in result["players"]:
        if len(row["by_run"]) > 1:
            means = (f"{mean:.2f}" for mean in row["by_run"])
            print(f"{row['player']}: training seeds {', '.join(map(str, row['training_seeds']))}: {', '.join(means)}")
    expected = result["expected_ceiling"]
    of_all = "" if expected is None else f"; of all tasks {expected:.2f}"
    print(f"Ceiling of these tasks {result['ceiling']:.2f}{of_all}")
