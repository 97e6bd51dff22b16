"""`metarl play`: reference players on bandits and tabular MDPs, beside the published figures."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metarl.cli_options import parse
from metarl.errors import UserError

if TYPE_CHECKING:
    from metarl.agents.players import Model
    from metarl.envs.family import Family
    from metarl.types import Tasks

PLAY = """\
Let players that know the prior play trials of a bandit or a tabular MDP: what an agent can hope to learn there.

Every player meets the same fresh tasks. A trial is some episodes with one task, of which the player remembers
everything; its score is the total reward of the trial (an episode of a bandit is one pull). The intervals are 95%
intervals of the mean over tasks, 1.96 standard errors; `first` and `last` are the mean rewards of single episodes. What
each player does in detail: agents/bandit_players.py and agents/mdp_players.py.

  random           any action
  gittins          finite-horizon Gittins index: nearly the best there is (Bernoulli arms, up to 200 pulls)
  thompson         Thompson sampling
  ucb1             UCB1 with a prior and a tuned bonus, as published with RL2; ucb1-auer: as it was first written
  greedy           the best posterior mean; epsilon-greedy: with 10% random pulls
  psrl             posterior sampling with rewards' prior N(0, 1), as published; psrl-true-prior: with N(1, 1)
  certainty        plans for the posterior's mean MDP
  clairvoyant      is told the task: the ceiling

examples:
  metarl play --family bandit --episodes 100
  metarl play --family bandit@gaussian-10 --players thompson ucb1 --tasks 10000
  metarl play --family tabular-mdp --json"""

PUBLISHED: dict[tuple[str, int], dict[str, float]] = {
    ("bandit@bernoulli-5", 10): {"random": 5.0, "gittins": 6.6, "thompson": 5.7, "ucb1": 6.7, "greedy": 6.6},
    ("bandit@bernoulli-10", 10): {"random": 5.0, "gittins": 6.6, "thompson": 5.5, "ucb1": 6.7, "greedy": 6.6},
    ("bandit@bernoulli-5", 100): {"random": 49.9, "gittins": 78.3, "thompson": 74.7, "ucb1": 78.0, "greedy": 75.4},
    ("bandit@bernoulli-10", 100): {"random": 49.9, "gittins": 82.8, "thompson": 76.7, "ucb1": 82.4, "greedy": 77.4},
    ("tabular-mdp@rl2", 10): {"random": 100.1, "psrl": 138.1},
}
"""(family, episodes of a trial) -> mean total reward over 1,000 tasks: Duan et al. 2016 (RL2), tables 1 and 2.

`greedy` stands for the column ε-greedy, whose ε was the best of a grid from 0 to 1: with ε = 0.1 less is collected in
every one of these settings.
"""


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """What is played, by whom."""

    family: str = "bandit"
    """A bandit or a tabular MDP, as NAME or NAME@VARIANT (see `metarl list`)."""
    episodes: int = 10
    """Episodes of a trial; of a bandit: pulls."""
    tasks: int = 1000
    """How many tasks, one trial each."""
    players: tuple[str, ...] = ()
    """Who plays; all that can if none is given."""
    seed: int = 0
    """Seed of tasks, chance and players."""
    json: bool = False
    """Print JSON in place of the table."""


def play_command(arguments: list[str]) -> int:
    """Run `metarl play`."""
    options = parse(PlayOptions, arguments, "metarl play", PLAY)
    if options.episodes < 1 or options.tasks < 2 or options.seed < 0:
        got = f"--episodes {options.episodes} --tasks {options.tasks} --seed {options.seed}"
        raise UserError(f"Got {got}. Allowed: from 1, from 2, from 0.")
    result = play(options)
    if options.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def play(options: PlayOptions) -> dict[str, Any]:
    """Play the trials and return the result as plain data."""
    from metarl.agents.players import ceiling, expected_ceiling, make_player, players
    from metarl.envs import get, make_worlds
    from metarl.evaluate import adaptation_curve
    from metarl.seeding import Streams

    family = get(options.family)
    model = model_of(family)
    chosen = options.players or tuple(players(model, options.episodes))
    playing = [make_player(name, model, options.episodes) for name in chosen]
    tasks = fresh_tasks(family, options.tasks, options.seed)
    worlds = make_worlds(family, options.tasks)
    published = PUBLISHED.get((family.full_name, options.episodes), {})
    rows = []
    for player in playing:
        curve = adaptation_curve(
            player,
            worlds,
            tasks,
            steps=options.episodes - 1,
            episodes=1,
            # Fresh for every player: all meet the same chance, as long as they draw alike.
            generator=Streams(options.seed)["play"],
        )
        totals = curve.returns.sum(0)
        mean, margin = float(totals.mean()), 1.96 * float(totals.std()) / math.sqrt(len(totals))
        rows.append(
            {
                "player": player.name,
                "mean": mean,
                "lower": mean - margin,
                "upper": mean + margin,
                "published": published.get(player.name),
                "by_episode": curve.returns.mean(1).tolist(),
            }
        )
    return {
        "family": family.full_name,
        "episodes": options.episodes,
        "tasks": options.tasks,
        "seed": options.seed,
        # Of these tasks; and of all tasks, where a formula gives it.
        "ceiling": options.episodes * float(ceiling(model, tasks).mean()),
        "expected_ceiling": expected_ceiling(model, options.episodes),
        "players": rows,
    }


def model_of(family: Family) -> Model:
    """Return what players know of a family beforehand.

    Raises:
        UserError: nobody can play it.
    """
    from metarl.agents.bandit_players import BanditModel
    from metarl.agents.mdp_players import MdpModel
    from metarl.envs import families
    from metarl.envs.bandit import Bandit
    from metarl.envs.tabular_mdp import REWARD_MEAN, TabularMdp

    if isinstance(family, Bandit):
        return BanditModel(arms=family.arms, rewards=family.rewards)
    if isinstance(family, TabularMdp):
        return MdpModel(states=family.states, actions=family.actions, horizon=family.horizon, reward_mean=REWARD_MEAN)
    known = [one.full_name for some in families().values() for one in some if isinstance(one, Bandit | TabularMdp)]
    raise UserError(f"{family.full_name} is neither a bandit nor a tabular MDP. Choose from: {', '.join(known)}.")


def fresh_tasks(family: Family, count: int, seed: int) -> Tasks:
    """Return tasks of the family's whole distribution: of both splits, in their proportion.

    Players learn nothing from training tasks, so there is nothing to hold out.
    """
    import torch

    from metarl.seeding import Streams
    from metarl.space import TRAIN_FRACTION
    from metarl.types import Tasks

    generator = Streams(seed)["tasks"]
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
    expected = result["expected_ceiling"]
    of_all = "" if expected is None else f"; of all tasks {expected:.2f}"
    print(f"Ceiling of these tasks {result['ceiling']:.2f}{of_all}")
