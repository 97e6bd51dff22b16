"""`metarl check`: a family before anyone trains on it, and the form of robot files for editors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from metarl.cli import ending
from metarl.cli.codes import BAD_INPUT
from metarl.cli.options import parse
from metarl.cli.tables import plain_table
from metarl.config import check_used
from metarl.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from metarl.api.checking import Check
    from metarl.envs.family import Family

CHECK = """\
Look at a family before anyone trains on it: observations and actions with units, rewards at rest and under random
actions, ranges of the tasks, mass and degrees of freedom, whether the physics holds at its time step under random and
saturated actions, steps a second, and a picture of several tasks at several times. It ends with exit code 2 where a
simulation failed, every episode ended in its first step, or a reward is not finite, and says what helps.

--schema prints the form of robot files as JSON Schema, for editors.

examples:
  metarl check quadruped.yaml
  metarl check half-cheetah-vel+mass --episodes 100
  metarl check --schema > robot-schema.json"""

MOST = 1_000_000
"""Episodes."""
SIZE = (320, 240)
"""Width and height of a picture in the grid, pixels."""
TIMES = 4
"""Pictures of a task."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What is looked at."""

    name: tyro.conf.Positional[str | None] = None
    """A robot file, or any family (NAME or NAME@VARIANT, with modifiers if wanted)."""
    episodes: int = 1000
    """Episodes, half of them with random actions and half with saturated ones."""
    horizon: int | None = None
    """Steps of an episode; the family's if not given."""
    seed: int = 0
    """Seed of tasks, starts and actions."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    out: Path | None = None
    """File of the picture, a PNG, which must not exist yet. If not given FAMILY-check.png here, in place of an earlier
    one."""
    schema: bool = False
    """Print the JSON Schema of robot files, and nothing else."""
    json: bool = False
    """Print JSON in place of tables."""


def check_command(arguments: list[str]) -> int:
    """Run `metarl check`."""
    options = parse(CheckOptions, arguments, "metarl check", CHECK)
    if options.schema:
        check_used(options, dict.fromkeys(("name", "episodes", "horizon", "seed", "out", "json"), "no --schema"))
        from metarl.envs.robots.file import schema

        print(json.dumps(schema(), indent=1))
        return 0
    if options.name is None:
        raise UserError("Got no family. Give a robot file or the name of a family, or --schema.")
    if not 2 <= options.episodes <= MOST:
        raise UserError(f"Got --episodes {options.episodes}. It must be from 2 to {MOST}.")
    if options.out is not None and (options.out.suffix != ".png" or options.out.exists()):
        raise UserError(f"Got --out {options.out}. Choose a name that ends in .png, of a file that does not exist yet.")

    from rich.console import Console

    from metarl.api.checking import check
    from metarl.envs.registry import resolve

    family = resolve(options.name, horizon=options.horizon)
    found = check(family, options.episodes, seed=options.seed, threads=options.threads)
    out = options.out or Path(f"{family.full_name}-check.png")
    problem = _draw(family, options.seed, out)
    if options.json:
        print(json.dumps({**found.plain(), "picture": None if problem else str(out)}))
    else:
        _print(found, Console())
        print(f"Picture      {problem or out}")
    for text in found.problems:
        ending.say(text)
    return BAD_INPUT if found.problems else 0


def _draw(family: Family, seed: int, out: Path) -> str:
    """Draw the picture; return why there is none."""
    from metarl.api.checking import pictures
    from metarl.evaluation.film import save_png

    try:
        clips = pictures(family, times=TIMES, seed=seed, size=SIZE)
    # Without OpenGL all else is as useful.
    except UserError as error:
        return f"none: {error}"
    save_png(out, clips, f"{family.full_name}: tasks, and moments of an episode with saturated actions", TIMES)
    return ""


def _print(found: Check, console: Console) -> None:
    """Print what was found."""
    from rich.markup import escape

    from metarl.api.checking import ACTIONS, actions_of

    family, plain = found.family, found.plain()
    console.print(f"[bold]{escape(family.full_name)}[/]  {escape(family.summary)}\n", highlight=False)
    table = plain_table("observation", "meaning", "unit", "mean", "lowest", "highest")
    spreads = found.played["random"].observation
    for i, (row, spread) in enumerate(zip(family.observables, spreads, strict=True)):
        table.add_row(str(i), escape(row.meaning), escape(row.unit), *_numbers(spread))
    console.print(table, highlight=False)
    console.print()
    table = plain_table("action", "from", "to", f"unit: {escape(family.action_unit)}")
    for action in actions_of(family):
        table.add_row(escape(action["name"]), f"{action['low']:.4g}", f"{action['high']:.4g}", "")
    console.print(table, highlight=False)
    console.print()
    kinds = [kind for kind in ("rest", *ACTIONS) if kind in found.played]
    table = plain_table("reward a step", *(f"{kind}: mean (lowest to highest)" for kind in kinds))
    for name in found.played["random"].rewards:
        table.add_row(escape(name), *(_spread(found.played[kind].rewards[name]) for kind in kinds))
    console.print(table, highlight=False)
    console.print()
    table = plain_table("task", "training", "ood", "meaning")
    for parameter in family.space.parameters:
        training, ood = parameter.ranges()
        table.add_row(parameter.name, escape(training), escape(ood), escape(parameter.description))
    console.print(table, highlight=False)
    console.print()
    if plain["model"] is not None:
        model = plain["model"]
        print(
            f"Model        {model['mass']:.4g} kg moving, {model['degrees_of_freedom']} degrees of freedom, "
            f"{model['actuators']} actuators, {model['bodies']} bodies"
        )
        print(
            f"Physics      {model['frame_skip']} steps of {model['time_step']:g} s ({model['integrator']}) for a "
            f"control step of {family.step_seconds:g} s, {1.0 / family.step_seconds:g} Hz; {family.horizon} of these "
            "an episode"
        )
    for kind in kinds:
        played = found.played[kind]
        speed = "" if played.largest_speed is None else f", largest speed {played.largest_speed:.3g} ({played.fastest})"
        print(
            f"{kind.capitalize():<12} {played.failures:,} of {played.episodes:,} simulations failed, {played.ended:,} "
            f"ended early{speed}"
        )
    steps, seconds = found.played["random"].steps, found.played["random"].seconds
    print(f"Speed        {steps / max(seconds, 1e-9):,.0f} control steps a second")


def _numbers(spread: Any) -> tuple[str, str, str]:
    return f"{spread.mean:.3g}", f"{spread.low:.3g}", f"{spread.high:.3g}"


def _spread(spread: Any) -> str:
    mean, low, high = _numbers(spread)
    return f"{mean} ({low} to {high})"
