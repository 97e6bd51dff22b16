"""`metarl identify`: what a log says of a family's unknown parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from metarl.cli.options import parse
from metarl.run.settings import Device, Engine

IDENTIFY = """\
Find what is unknown of a system from a log of it: a posterior over the family's task parameters, with 90% intervals.

LOG is an NPZ file or a Minari data set: of `metarl evaluate --record`, or of your own robot (see the layout, and a
recorder, in metarl/identification/README.md). Short segments of it are simulated under many tasks, from starts that are
known as well as sensors tell them, and compared with what was seen, and with the rewards where the log has them. The
noise of the sensors is found too. The result says what the log cannot tell, what it tells together only, and how well
the simulation fits; a log that does not fit at all is refused.

--out gets identification.json and .png, posterior.npz with draws, and of a robot's file narrowed.yaml, the same file
with narrowed training ranges. Of modifiers, the family's name has them: `Narrowed` in what is printed.

examples:
  metarl identify logs/rl2-seed0.npz --task 3
  metarl identify robot.npz --family half-cheetah-vel+mass+friction --out found
  metarl identify robot.npz --family go1.yaml+mass --out found
  metarl train rl2 --family "$(metarl identify robot.npz --family ant-dir+gain --json | jq -r .narrowed)\""""


@dataclass(frozen=True, kw_only=True)
class IdentifyOptions:
    """What is identified, and how."""

    log: tyro.conf.Positional[Path]
    """The log: an NPZ file, or a Minari data set."""
    family: str | None = None
    """What the system is taken for, with modifiers for what is unknown: NAME[@VARIANT][+MODIFIER...], or a robot's
    file; the log's own if not given."""
    task: int | None = None
    """Which of the tasks of an evaluation's log."""
    segment_steps: int = 5
    """Steps that are simulated from a state."""
    segments: int = 64
    """Most segments; intervals become narrower with more, and it takes longer."""
    population: int | None = None
    """Tasks of a generation; if not given 128, or 3 for each number that is fitted to them."""
    draws: int = 1000
    """Draws from the posterior."""
    anyway: bool = False
    """Show the result where the family does not fit the log at all."""
    seed: int = 0
    """Seed of all that is drawn."""
    out: Path | None = None
    """Folder for the results; nothing is written if not given."""
    device: Device = "cpu"
    """Where the GPU engine is: cpu, cuda, a GPU by its number (cuda:1), or auto."""
    engine: Engine = "auto"
    """What steps the worlds: cpu, gpu (mujoco_warp, on the device), or auto: gpu where the device is one."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    json: bool = False
    """Print identification.json in place of the table."""


def identify_command(arguments: list[str]) -> int:
    """Run `metarl identify`."""
    options = parse(IdentifyOptions, arguments, "metarl identify", IDENTIFY)

    from metarl.api.identifying import identify
    from metarl.errors import tell

    given: dict[str, Any] = {name: value for name, value in vars(options).items() if name != "json"}
    found = identify(**given)
    if options.json:
        print(json.dumps(found.as_plain()))
        return 0
    console = Console()
    console.print(found.table())
    for note in found.notes():
        console.print(note, soft_wrap=True, markup=False)
    if found.warning:
        tell(found.warning)
    print(f"Narrowed     {found.narrowed}")
    if options.out is not None:
        print(f"Picture      {options.out / 'identification.png'}\nNumbers      {options.out / 'identification.json'}")
    return 0
