"""`metarl evaluate`: adaptation curves of trained agents on held-out tasks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from metarl.cli.options import Split, parse
from metarl.config import check_used
from metarl.errors import UserError
from metarl.run.settings import Checkpoint, Device, Engine

EVALUATE = """\
Adapt trained agents to tasks they were not trained on, and draw the adaptation curve.

At every point of a curve the agent plays --episodes of each task in parallel, then learns from them. One that takes
gradient steps (maml-trpo, multitask) learns from all of them together: its points are at 0, K, 2K, ... episodes of
experience. One that adapts in its memory (rl2, varibad, pearl) learns in every world by itself: they are as many
trials, and its points are at 0, 1, 2, ...; of a trial of more than two episodes the table tells the total return too.

Runs of one agent are its training seeds and make one curve, unless their settings differ. With --oracle the table shows
the gap closed, (agent - floor@0) / (oracle - floor@0), where the floor is an untrained policy, or --floor; without it
the gain on the first point, task by task. The result is written to RUN/evaluation/SPLIT of the first run, or to --out:
adaptation.csv, adaptation.json, adaptation.png, and TensorBoard events in a folder for each agent: the curve, its
picture, and a film of the first task before and after adaptation where worlds can be drawn (see metarl render). It
takes the place of an earlier result there.

With --reality the same agents meet the same tasks under other physics, actuators and sensors than in training, after
they did so at home: the curves there stand beside those at home, with --oracle also how much of the gap closed
survives. The results are then written to RUN/evaluation/SPLIT-in-REALITY.

With --probe, from the memory after each episode of a trial a linear probe predicts the task parameters of tasks that it
was not fitted to (R2, for a choice accuracy; `before` is the first observation alone); and the last episode of the
trials is played with the world's own memory, with that of another task, and with none. All of it is in probe.json.

With --protocol the agents also play as Meta-World's papers have it: 10 episodes of each task to adapt, then 3 for the
score, --protocol-goals tasks of each class. Every episode counts. Beside it stands what the loop of Meta-World's
package would have printed for the same episodes, where those that succeed early crowd out failures. It is in
protocol.json.

With --record FOLDER every episode is written down: observations, actions as the system got them, rewards, ends, the
task and the first state, one NPZ file AGENT-seedN.npz for each training seed, and for --oracle, --floor and --random.
numpy.load reads it; what the arrays are stands in metarl/identification/README.md. With --record-format minari each is
a data set AGENT-seedN-v0 of Minari, whose load_dataset finds it where the environment variable MINARI_DATASETS_PATH
names FOLDER.

examples:
  metarl evaluate runs/maml --random
  metarl evaluate runs/maml --split ood --steps 5
  metarl evaluate runs/rl2 --probe
  metarl evaluate runs/rl2 --record logs
  metarl evaluate runs/rl2 --record data --record-format minari
  metarl evaluate runs/rl2 --reality slow my_robot.yaml --oracle runs/oracle
  metarl evaluate runs/rl2-seed0 runs/rl2-seed1 runs/maml --oracle runs/oracle --out compare
  metarl evaluate runs/rma --oracle runs/teacher --floor runs/ppo"""


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
    """How many adaptation steps; if not given 3, with a memory as many as lead to the last episode of its trials."""
    episodes: int | None = None
    """Parallel episodes of each task; if not given as in the training of the first agent that takes gradient steps. If
    all have a memory: 10, fewer above 40 tasks (400 in all), at least 1."""
    horizon: int | None = None
    """Steps of an episode; as in training if not given. Runs that were trained with several are compared so."""
    checkpoint: Checkpoint = "last"
    """Which checkpoint of the runs."""
    oracle: tuple[Path, ...] = ()
    """Runs of an agent that is told the task (oracle, teacher), for the gap closed; brings --random without --floor."""
    floor: tuple[Path, ...] = ()
    """Runs of an agent that is told nothing (ppo, multitask), before it adapts: the gap closed is measured from there,
    not from an untrained policy."""
    random: bool = False
    """Show an untrained policy too."""
    reality: tuple[str, ...] = ()
    """Other realities where the agents meet the same tasks too: names (see metarl list --realities) or YAML files."""
    probe: bool = False
    """Show what the memory of agents that have one (rl2, varibad, pearl) knows of the task, and what swaps of it do."""
    probe_tasks: int = 256
    """Tasks for --probe to be scored on; it is fitted to twice as many training tasks."""
    protocol: bool = False
    """Play Meta-World's protocol too, where a family tells success: success by class and in all."""
    protocol_goals: int = 40
    """Tasks of each class for --protocol."""
    film: bool = True
    """Leave the film of the first task, before and after adaptation, out of TensorBoard. (It is left out in any case
    where this machine cannot draw the worlds.)"""
    seed: int = 0
    """Seed of tasks, starts and policy noise: the same seed gives the same tasks."""
    out: Path | None = None
    """Folder for the results; RUN/evaluation/SPLIT of the first run if not given (with a --horizon,
    SPLIT-horizon-N)."""
    record: Path | None = None
    """New folder for logs of all episodes with their tasks, one for each training seed of each agent."""
    record_format: Literal["npz", "minari"] = "npz"
    """What a log is: an NPZ file, or a Minari data set (needs pip install 'metarl-suite[minari]')."""
    device: Device = "cpu"
    """Where the networks live: cpu, cuda, a GPU by its number (cuda:1), or auto."""
    engine: Engine = "auto"
    """What steps the worlds: cpu, gpu (mujoco_warp, on the device), or auto: gpu where the device is one."""
    deterministic: bool = False
    """Give the same numbers in every run, bit for bit. A CPU does so anyway; a GPU is slower then."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    trust: bool = False
    """Execute the files of the family though you did not make the runs on this machine: read them first."""
    source: str | None = None
    """File or module that defines the family, where that is not found, or is to be another one."""
    json: bool = False
    """Print adaptation.json in place of the table; with --probe and --protocol their results too."""


def evaluate_command(arguments: list[str]) -> int:
    """Run `metarl evaluate`."""
    options = parse(EvaluateOptions, arguments, "metarl evaluate", EVALUATE)
    if not options.runs:
        raise UserError("Got no run to evaluate. Give a folder of `metarl train`: metarl evaluate runs/...")

    unused = {} if options.probe else {"probe_tasks": "--probe"}
    check_used(options, unused if options.protocol else unused | {"protocol_goals": "--protocol"})

    from metarl.api.evaluating import evaluate
    from metarl.envs.reality import find_realities
    from metarl.evaluation import protocol_report
    from metarl.evaluation.probe_report import tables
    from metarl.files import Folder
    from metarl.run.folder import RunFolder

    length = "" if options.horizon is None else f"-horizon-{options.horizon}"
    where = "-in-".join((f"{options.split}{length}", *(there.name for there in find_realities(options.reality))))
    results = Folder(options.out) if options.out else RunFolder(options.runs[0]).results(where)
    folder = results.path
    given: dict[str, Any] = {name: value for name, value in vars(options).items() if name != "json"}
    given["out"] = results
    curve = evaluate(**given)
    if options.json:
        more = {"probe": curve.probes, "protocol": curve.protocols}
        print(json.dumps(curve.summary | {name: found for name, found in more.items() if found}))
        return 0
    console = Console()
    console.print(curve.table())
    for result in curve.probes:
        for part in tables(result, curve.summary["kind"]):
            console.print(part)
    for result in curve.protocols:
        console.print(protocol_report.table(result))
    if curve.summary["gap_note"]:
        console.print(f"No gap closed: {curve.summary['gap_note']}", style="yellow", soft_wrap=True, markup=False)
    for part in curve.summary.get("realities", []):
        for agent in part["agents"]:
            if agent["survives_note"]:
                print(f"{agent['agent']}: what survives is not defined, {agent['survives_note']}")
    parts = [curve.summary, *curve.summary.get("realities", [])]
    failures = sum(agent["failures"] for part in parts for agent in part["agents"])
    if failures:
        console.print(f"{failures} simulations became invalid; each ended its own episode only.", style="yellow")
    print(
        f"Picture      {folder / 'adaptation.png'}\n"
        f"Numbers      {folder / 'adaptation.csv'}\n"
        f"Summary      {folder / 'adaptation.json'}\n"
        + (f"Probe        {folder / 'probe.json'}\n" if curve.probes else "")
        + (f"Protocol     {folder / 'protocol.json'}\n" if curve.protocols else "")
        + (f"Logs         {options.record}\n" if options.record else "")
        + f"TensorBoard  tensorboard --logdir {options.out or options.runs[0]}"
    )
    return 0
