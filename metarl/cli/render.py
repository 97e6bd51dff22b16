"""`metarl render`: a GIF of one task before and after adaptation; a picture or GIF of many tasks side by side."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from metarl.cli.options import Split, parse
from metarl.config import MOST_STEPS, check_used
from metarl.errors import UserError, nearest
from metarl.plain import parse_json
from metarl.run.settings import Checkpoint

if TYPE_CHECKING:
    from metarl.envs.family import Family
    from metarl.types import Tasks

RENDER = """\
Make a GIF of one task: a trained agent before and after adaptation, side by side, from the same start; of one that
adapts in its memory (rl2, varibad, dpt), the first and last episode of a trial. Or, with --grid, a picture of many
tasks side by side (--video: a GIF of the agent, before adaptation, in all of them).

Robots need off-screen OpenGL (no screen, no graphics card): on Debian and Ubuntu `apt-get install libegl1`.

examples:
  metarl render runs/maml
  metarl render runs/maml --task '{"velocity": 1.5}' --steps 3
  metarl render half-cheetah-vel          (an untrained policy)
  metarl render push-shape --grid --split ood
  metarl render ant-terrain --grid --video --rows 1 --columns 2"""

MOST_CELLS = 400
"""Pictures in a grid."""


@dataclass(frozen=True, kw_only=True)
class RenderOptions:
    """What is shown."""

    what: tyro.conf.Positional[str]
    """A run folder; or a family, for an untrained policy."""
    horizon: int | None = None
    """Steps of an episode of a family, where they are to be others than its own; a run has its own."""
    task: str = "0"
    """Number of the task (column `task` of adaptation.csv), or a task as JSON: '{"velocity": 1.5}'."""
    split: Split = "test"
    """Where numbered tasks, and those of a grid, are from."""
    tasks: int = 40
    """How many tasks are drawn for a numbered one, as in `metarl evaluate`."""
    steps: int | None = None
    """Adaptation steps before the second picture; if not given 1, with a memory as many as lead to the last episode of
    its trials."""
    episodes: int | None = None
    """Episodes for every step; as in the agent's training if not given (with a memory, a step is one episode)."""
    grid: bool = False
    """Show --rows times --columns tasks side by side, each at its start."""
    rows: int = 2
    """Rows of the grid."""
    columns: int = 3
    """Columns of the grid."""
    video: bool = False
    """Let the agent act in all tasks of the grid, as a GIF."""
    checkpoint: Checkpoint = "last"
    """Which checkpoint of the run."""
    trust: bool = False
    """Execute the files of the family though you did not make the run on this machine: read them first."""
    source: str | None = None
    """File or module that defines the family, where that is not found, or is to be another one."""
    seed: int = 0
    """Seed of tasks, starts and policy noise."""
    width: int = 400
    """Width of a picture, pixels."""
    height: int = 300
    """Height of a picture, pixels."""
    out: Path | None = None
    """The file, which must not exist yet: a GIF, or a PNG for a grid without --video; in the run's folder, or here,
    if not given."""


def render_command(arguments: list[str]) -> int:
    """Run `metarl render`."""
    options = parse(RenderOptions, arguments, "metarl render", RENDER)
    if options.video and not options.grid:
        raise UserError("Got --video without --grid. Give both, or neither: one task is always a GIF.")
    if min(options.rows, options.columns) < 1 or options.rows * options.columns > MOST_CELLS:
        got = f"--rows {options.rows} --columns {options.columns}"
        raise UserError(f"Got {got}. Both must be at least 1, and their product at most {MOST_CELLS}.")
    out = _out(options)
    check_used(options, _unused(options))

    import torch

    from metarl.api.runs import load, untrained
    from metarl.envs import families
    from metarl.envs.registry import LATER, is_family, resolve

    if Path(options.what).is_dir():
        if options.horizon is not None:
            raise UserError(
                f"Got --horizon {options.horizon} for the run {options.what}. Leave it out: a run has its own."
            )
        run = load(options.what, options.checkpoint, trust=options.trust, source=options.source)
        family, agent = run.family, run.agent
    elif is_family(options.what):
        family = resolve(options.what, horizon=options.horizon)
        agent = untrained(family, options.seed, torch.device("cpu"))
    else:
        choices = nearest(options.what, [*families(), *LATER])
        raise UserError(f"'{options.what}' is neither a run folder nor a family.{choices}")
    if options.grid:
        _grid(family, agent, options, out)
    else:
        _before_and_after(family, agent, options, out)
    print(out)
    return 0


def _unused(options: RenderOptions) -> dict[str, str]:
    """Return options that change nothing -> what they would need."""
    unused: dict[str, str] = {}
    if not Path(options.what).is_dir():
        unused |= dict.fromkeys(("checkpoint", "source", "trust", "steps", "episodes"), "a run, which a family is not")
    if options.grid:
        unused |= dict.fromkeys(("steps", "episodes", "tasks"), "one task, no --grid")
    elif not options.task.isdecimal():
        unused |= dict.fromkeys(("tasks", "split"), "a --task by its number")
    return unused


def _out(options: RenderOptions) -> Path:
    """Return the file to be written."""
    run = Path(options.what)
    suffixes = (".gif",) if options.video or not options.grid else (".png",)
    stem = "grid" if options.grid else "render"
    # What stands before a colon is where a family is imported from; a robot file's is called by that.
    family = re.sub(r"\.ya?ml(?=$|[+@])", "", Path(options.what.rpartition(":")[2]).name)
    name = f"{family}{'-grid' if options.grid else ''}"
    if not options.grid and (options.rows, options.columns) != (RenderOptions.rows, RenderOptions.columns):
        raise UserError(
            f"Got --rows {options.rows} --columns {options.columns} without --grid. Add it, or leave them out."
        )
    if options.grid and options.task != RenderOptions.task:
        raise UserError(f"Got --task {options.task} with --grid, which draws tasks of a split. Leave one of them out.")
    out = options.out or (run / f"{stem}{suffixes[0]}" if run.is_dir() else Path(f"{name}{suffixes[0]}"))
    if out.exists():
        raise UserError(f"{out} exists already. Remove it, or choose another name with --out.")
    if out.suffix not in suffixes:
        raise UserError(f"Got --out {out}. Choose a name that ends in {' or '.join(suffixes)}.")
    return out


def _grid(family: Family, agent: Any, options: RenderOptions, out: Path) -> None:
    """Draw many tasks side by side: their starts, or whole episodes as a film."""
    from metarl.api.runs import draw_tasks
    from metarl.envs import make_worlds
    from metarl.envs.draw import make_painter
    from metarl.evaluation.film import play, save_gif, save_png, stride_of
    from metarl.seeding import Streams

    stride = stride_of(family.step_seconds) if options.video else 0
    cells = options.rows * options.columns
    _check_pictures(family, options, cells * (1 + (family.horizon // stride if stride else 0)))
    tasks = draw_tasks(family, cells, options.split, options.seed)
    worlds = make_worlds(family, len(tasks), pictures=True)
    painter = make_painter(worlds, options.width, options.height)
    clips = play(
        worlds,
        agent.start(tasks).policy,
        tasks,
        Streams(options.seed)["render"],
        painter,
        stride=stride,
        captions=family.space.in_words(tasks),
    )
    painter.close()
    who = "untrained policy" if agent.name == "random" else agent.name
    title = f"{family.full_name}, {options.split} tasks" + (f", {who}" if options.video else "")
    (save_gif if options.video else save_png)(out, clips, title, options.columns)


def _before_and_after(family: Family, agent: Any, options: RenderOptions, out: Path) -> None:
    """Film one task before and after adaptation; only once with a policy that was never trained."""
    from metarl.api.film import before_and_after
    from metarl.api.memory import check_playing
    from metarl.evaluation.film import save_gif, stride_of
    from metarl.memory import TASK_NUMBER
    from metarl.run.progress import rounded

    steps, episodes = _practice(agent, options)
    drawn = {"--tasks": TASK_NUMBER * options.tasks * (family.space.feature_size + 1)}
    check_playing(family, episodes, "--episodes", more=drawn)
    _check_pictures(family, options, 2 * (1 + family.horizon // stride_of(family.step_seconds)))
    task = _one_task(family, options)
    size = (options.width, options.height)
    clips = before_and_after(agent, family, task, steps=steps, episodes=episodes, seed=options.seed, size=size)
    save_gif(out, clips, f"{agent.name}, {family.full_name}, {family.space.in_words(task)[0]}", len(clips))
    for clip in clips:
        print(f"{clip.caption}: return {rounded(clip.returns[-1])[0]}")


def _check_pictures(family: Family, options: RenderOptions, count: int) -> None:
    """Refuse a film that does not fit into memory; `count` pictures."""
    from metarl.memory import pictures, require

    require({"--width, --height or the number of tasks": pictures(count, options.width, options.height)})


def _practice(agent: Any, options: RenderOptions) -> tuple[int, int]:
    """Return the adaptation steps between the two pictures, and the episodes of each."""
    steps, episodes = options.steps, options.episodes
    if agent.pools:
        steps = 1 if steps is None else steps
        episodes = agent.config.episodes if episodes is None else episodes
    elif episodes is None:
        steps = max(1, agent.trial - 1) if steps is None else steps
        episodes = 1
    else:
        raise UserError(f"Got --episodes {episodes}, but {agent.name} learns from one at a time. Leave it out.")
    if min(steps, episodes, options.tasks) < 1 or steps > MOST_STEPS:
        got = f"--steps {steps} --episodes {episodes} --tasks {options.tasks}"
        raise UserError(f"Got {got}. All must be at least 1, and steps at most {MOST_STEPS}.")
    return steps, episodes


def _one_task(family: Family, options: RenderOptions) -> Tasks:
    """Return the task that `--task` names."""
    from metarl.api.runs import draw_tasks

    wanted: dict[str, Any] | None = None
    if options.task.isdecimal() and len(options.task) < 10 and int(options.task) < options.tasks:
        return draw_tasks(family, options.tasks, options.split, options.seed).select([int(options.task)])
    # What is no JSON is told with an example.
    with contextlib.suppress(UserError):
        wanted = parse_json(options.task.encode(errors="replace"), "--task")
    if wanted is not None:
        return family.space.from_records([wanted])
    raise UserError(
        f"Got --task {options.task}. Give a number from 0 to {options.tasks - 1}, or a task as JSON such as "
        f"'{json.dumps(draw_tasks(family, 1, 'train', 0).records()[0])}'."
    )
