"""`metarl render`: a GIF of one task before and after adaptation."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from metarl.cli_evaluate import draw_tasks, load_agent
from metarl.cli_options import Split, Which, parse
from metarl.errors import UserError, nearest

if TYPE_CHECKING:
    from metarl.envs.family import Family
    from metarl.render import Clip
    from metarl.types import Policy, Tasks

RENDER = """\
Make a GIF of one task: a trained agent before and after adaptation, side by side, from the same start.

Robots need off-screen OpenGL (no screen, no graphics card): on Debian and Ubuntu `apt-get install libegl1`.

examples:
  metarl render runs/maml
  metarl render runs/maml --task '{"velocity": 1.5}' --steps 3
  metarl render half-cheetah-vel          (an untrained policy)"""


@dataclass(frozen=True, kw_only=True)
class RenderOptions:
    """What is shown."""

    source: tyro.conf.Positional[str]
    """A run folder; or a family, for an untrained policy."""
    task: str = "0"
    """Number of the task (column `task` of adaptation.csv), or a task as JSON: '{"velocity": 1.5}'."""
    split: Split = "test"
    """Where a numbered task is from."""
    tasks: int = 40
    """How many tasks are drawn for a numbered one, as in `metarl evaluate`."""
    steps: int = 1
    """Adaptation steps before the second picture."""
    episodes: int | None = None
    """Episodes for every step; as in the agent's training if not given."""
    checkpoint: Which = "last"
    """Which checkpoint of the run."""
    seed: int = 0
    """Seed of tasks, starts and policy noise."""
    width: int = 400
    """Width of a picture, pixels."""
    height: int = 300
    """Height of a picture, pixels."""
    out: Path | None = None
    """The GIF, which must not exist yet; RUN/render.gif, or FAMILY.gif here, if not given."""


def render_command(arguments: list[str]) -> int:
    """Run `metarl render`."""
    options = parse(RenderOptions, arguments, "metarl render", RENDER)
    run = Path(options.source)
    is_run = run.is_dir()
    out = options.out or (run / "render.gif" if is_run else Path(f"{options.source}.gif"))
    if out.exists():
        raise UserError(f"{out} exists already. Remove it, or choose another name with --out.")
    if out.suffix != ".gif":
        raise UserError(f"Got --out {out}. What is written is a GIF: choose a name that ends in .gif.")

    import torch

    from metarl.agents import config_class, make
    from metarl.envs import families, get, make_worlds
    from metarl.envs.draw import make_painter
    from metarl.render import play, save_gif, stride_of
    from metarl.rollout import collect
    from metarl.seeding import Streams

    if is_run:
        family, agent, _ = load_agent(run, options.checkpoint, torch.device("cpu"))
    elif options.source.partition("@")[0] in families():
        family = get(options.source)
        config = config_class("random")()
        agent = make("random", config, family.spec(), Streams(options.seed), torch.device("cpu"))
    else:
        choices = nearest(options.source, families())
        raise UserError(f"'{options.source}' is neither a run folder nor a family.{choices}")
    episodes = agent.config.episodes if options.episodes is None else options.episodes
    if min(options.steps, episodes, options.tasks) < 1:
        got = f"--steps {options.steps} --episodes {episodes} --tasks {options.tasks}"
        raise UserError(f"Got {got}. All must be at least 1.")
    task = _one_task(family, options)

    worlds = make_worlds(family, 1)
    painter = make_painter(worlds, options.width, options.height)

    def film(policy: Policy, caption: str) -> Clip:
        return play(
            worlds,
            policy,
            task,
            # The same start and noise for every clip.
            Streams(options.seed)["render"],
            lambda: painter(0),
            stride=stride_of(family.step_seconds),
            caption=caption,
        )

    learner = agent.start(task)
    clips = [film(learner.policy, "before adaptation" if is_run else "untrained policy")]
    if is_run:
        generator = Streams(options.seed)["evaluation"]
        practice = make_worlds(family, episodes)
        for _ in range(options.steps):
            learner = learner.learn(collect(practice, learner.policy, task, episodes, generator))
        plural = "s" if options.steps > 1 else ""
        caption = f"after {options.steps} step{plural} on {options.steps * episodes} episodes"
        clips.append(film(learner.policy, caption))
    painter.close()
    save_gif(out, clips, f"{agent.name}, {family.full_name}, {_in_words(family, task)}")
    for clip in clips:
        print(f"{clip.caption}: return {clip.returns[-1]:.1f}")
    print(out)
    return 0


def _one_task(family: Family, options: RenderOptions) -> Tasks:
    """Return the task that `--task` names."""
    if options.task.isdecimal() and int(options.task) < options.tasks:
        return draw_tasks(family, options.tasks, options.split, options.seed).select([int(options.task)])
    with contextlib.suppress(json.JSONDecodeError):
        wanted = json.loads(options.task, parse_int=float)
        if isinstance(wanted, dict):
            return family.space.from_records([wanted])
    raise UserError(
        f"Got --task {options.task}. Give a number from 0 to {options.tasks - 1}, or a task as JSON such as "
        f"'{json.dumps(draw_tasks(family, 1, 'train', 0).records()[0])}'."
    )


def _in_words(family: Family, task: Tasks) -> str:
    """Return one task as text: names, values, units."""
    parts = []
    for parameter in family.space.parameters:
        values = task[parameter.name].reshape(-1).tolist()
        text = ", ".join(f"{value:.2f}" for value in values)
        parts.append(f"{parameter.name} {f'({text})' if len(values) > 1 else text} {parameter.unit}".rstrip())
    return ", ".join(parts)
