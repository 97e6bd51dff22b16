"""`metarl train`: meta-train an agent on a family of tasks, or go on with a run."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.cli.codes import BAD_INPUT, INTERRUPTED
from metarl.cli.options import joined, parse
from metarl.errors import UserError, nearest
from metarl.run.settings import DEFAULT_FAMILY, Checkpoint, Device, Engine

if TYPE_CHECKING:
    from metarl.api.training import Training

TRAIN = """\
Meta-train an agent on a family of tasks.

usage: metarl train AGENT [OPTIONS]
       metarl train --resume RUN [--iterations N] [--patience P] [--checkpoint WHICH]

The run folder holds config.yaml, checkpoints, progress.csv and TensorBoard events. A run that was stopped or killed
goes on, bit for bit, with --resume.

With --validation N the agent meets the same N tasks at every checkpoint, with the same starts and noise: tasks of the
training distribution, never of the test split, and none that it is trained on. (Where a family has but a few tasks,
these are trained on and tested too, and a line at the start says so.) With --patience P the run ends at its plateau:
when P checkpoints in a row did not raise the validation, task by task, by more than the 95% interval of the mean.

examples:
  metarl train maml-trpo --family half-cheetah-vel --seed 1
  metarl train maml-trpo --family point-nav --inner-rate 0.5 --iterations 100 --out runs/point
  metarl train oracle --family point-nav --iterations 1000 --validation 40 --patience 5 --out runs/oracle
  metarl train --resume runs/point --iterations 200"""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What is trained on, and where the run is kept."""

    family: str = DEFAULT_FAMILY
    """Task family, as NAME or NAME@VARIANT, with +MODIFIER for more to vary (see `metarl list`)."""
    horizon: int | None = None
    """Steps of an episode; the family's if not given."""
    seed: int = 0
    """Where all randomness comes from."""
    out: Path | None = None
    """Run folder, which must not exist yet; runs/FAMILY-AGENT-seedSEED if not given."""
    device: Device = "cpu"
    """Where the networks live: cpu, cuda, a GPU by its number (cuda:1), or auto: cuda where there is one."""
    engine: Engine = "auto"
    """What steps the worlds: cpu, gpu (mujoco_warp, on the device), or auto: gpu where the device is one."""
    deterministic: bool = False
    """Give the same numbers in every run, bit for bit. A CPU does so anyway; a GPU is slower then."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    checkpoint_every: int = 10
    """Iterations from one checkpoint to the next."""
    validation: int = 0
    """Validation tasks at every checkpoint, drawn from the training distribution; best.pt is then chosen by them. 0:
    none."""
    patience: int = 0
    """End the run once so many checkpoints in a row did not raise the validation; 0: never end by it."""
    json: bool = False
    """Show progress as JSON lines, for scripts."""


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Go on with a run. All other settings are those it was started with."""

    resume: Path
    """Run folder."""
    iterations: int | None = None
    """Iterations in the end; as many as it was last asked for if not given."""
    checkpoint: Checkpoint = "last"
    """Which checkpoint to go on from."""
    patience: int | None = None
    """From now on end the run once so many checkpoints in a row did not raise its validation; 0: never end by it."""
    device: Device | None = None
    """Where the networks live from now on, if elsewhere than before."""
    deterministic: bool = False
    """From now on give the same numbers in every run; what was so stays so."""
    trust: bool = False
    """Execute the files of the family though you did not make the run on this machine: read them first."""
    source: str | None = None
    """File or module that defines the family, where that is not found, or is to be another one."""
    json: bool = False
    """Show progress as JSON lines, for scripts."""


def train_command(arguments: list[str]) -> int:
    """Run `metarl train`."""
    if any(argument.partition("=")[0] == "--resume" for argument in arguments):
        return _resume(parse(ResumeOptions, arguments, "metarl train", TRAIN))

    from metarl.agents import AGENTS, config_class

    if not arguments or arguments[0] in ("-h", "--help"):
        names = "\n".join(f"  {name:<10} {AGENTS[name].summary}" for name in _trainable())
        print(f"{TRAIN}\n\nagents (metarl train AGENT --help lists the options):\n{names}")
        return 0 if arguments else BAD_INPUT
    name = arguments[0]
    if name.startswith("-"):
        raise UserError(f"Got '{name}' where an agent is needed first.{nearest(name, _trainable())}")
    if name not in _trainable():
        problem = f"The agent '{name}' is never trained." if name in AGENTS else f"Unknown agent '{name}'."
        raise UserError(f"{problem}{nearest(name, _trainable())}")
    combined = joined(run=TrainOptions, agent=config_class(name))
    options: Any = parse(combined, arguments[1:], f"metarl train {name}", f"{name}: {AGENTS[name].summary}.\n\n{TRAIN}")
    return _train(name, options.run, options.agent)


def _trainable() -> list[str]:
    """Return the agents that learn from training tasks."""
    from metarl.agents import AGENTS

    return [name for name in AGENTS if name != "random"]


def _train(name: str, options: TrainOptions, config: Any) -> int:
    from metarl.api.training import carry_out, default_folder, new_run
    from metarl.envs.registry import resolve

    family = resolve(options.family, horizon=options.horizon)
    given = {key: value for key, value in vars(options).items() if key not in ("family", "horizon", "out", "json")}
    run = new_run(name, family, **given)
    folder = options.out or default_folder(family, name, options.seed)
    return _report(carry_out(folder, run, config, config.iterations, json=options.json), options.json)


def _resume(options: ResumeOptions) -> int:
    from metarl.api.training import carry_out, stored

    asked = stored(
        options.resume,
        options.iterations,
        patience=options.patience,
        device=options.device,
        deterministic=options.deterministic,
        trust=options.trust,
        source=options.source,
    )
    return _report(carry_out(*asked, checkpoint=options.checkpoint, json=options.json), options.json)


def _report(training: Training, json_lines: bool) -> int:
    """Say what was trained and what to do with it; return the exit code."""
    run, result = training.run, training.result
    if training.ranks.first and json_lines:
        print(json.dumps({"run": str(run.folder), **dataclasses.asdict(result)}))
    elif training.ranks.first and not result.interrupted:
        print(
            f"Run folder   {run.folder}\n"
            f"Physics      {run.physics}\n"
            f"Evaluate     metarl evaluate {run.folder} --random\n"
            f"TensorBoard  tensorboard --logdir {run.folder}"
        )
    return INTERRUPTED if result.interrupted else 0
